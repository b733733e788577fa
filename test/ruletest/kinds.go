package ruletest

import (
	"context"
	"errors"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/kindschema/catalog"
	"github.com/flux-admission/flux-admission/validators"
)

// kinds knows the kinds of a case: its CustomResourceDefinitions, Kubernetes' own kinds, and those built in as a
// fallback. It is made when a rule asks for the first time, since most do not.
type kinds struct {
	c    *Case
	once sync.Once
	set  *kindschema.Set
	err  error
}

// Kind implements lookup.Kinds.
func (k *kinds) Kind(ctx context.Context, gk schema.GroupKind) (*validators.Kind, validators.Presence, error) {
	if reason, ok := k.c.Hidden[ObjectKey{"Kind", types.NamespacedName{Namespace: gk.Group, Name: gk.Kind}}]; ok {
		return nil, validators.Unknown, errors.New(reason)
	}
	k.once.Do(func() { k.set, k.err = k.fill() })
	if k.err != nil {
		return nil, validators.Unknown, k.err
	}
	return k.set.Kind(ctx, gk)
}

func (k *kinds) fill() (*kindschema.Set, error) {
	crds, err := catalog.New()
	if err != nil {
		return nil, err
	}
	set, err := kindschema.NewSet(kindschema.Options{Complete: true, Catalog: crds})
	if err != nil {
		return nil, err
	}
	for _, o := range k.c.CRDs {
		if err := set.Add(o.GetName()+".yaml", o); err != nil {
			return nil, err
		}
	}
	return set, nil
}
