package kustomization

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/validators"
)

var errNotBuilt = errors.New("not every Kustomization of the tree could be built")

// builds implements lookup.Builds: what the Kustomizations of a cluster build, and which of them apply an object.
type builds struct {
	cluster *Cluster
	byKey   map[types.NamespacedName]*Kustomization
	owners  map[validators.ObjectRef][]types.NamespacedName

	mu        sync.Mutex
	described map[types.NamespacedName]*validators.Build
}

func newBuilds(c *Cluster) *builds {
	b := &builds{
		cluster: c, byKey: map[types.NamespacedName]*Kustomization{}, owners: map[validators.ObjectRef][]types.NamespacedName{},
		described: map[types.NamespacedName]*validators.Build{},
	}
	for _, k := range c.Kustomizations {
		b.byKey[k.Key] = k
		if k.RemoteCluster() {
			continue
		}
		for _, o := range k.Objects {
			if ref := refOf(o); !slices.Contains(b.owners[ref], k.Key) {
				b.owners[ref] = append(b.owners[ref], k.Key)
			}
		}
	}
	for _, keys := range b.owners {
		slices.SortFunc(keys, func(a, b types.NamespacedName) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
		})
	}
	return b
}

// Build implements lookup.Builds.
func (b *builds) Build(_ context.Context, key types.NamespacedName) (*validators.Build, validators.Presence, error) {
	k := b.byKey[key]
	switch {
	case k == nil && b.cluster.Entry == nil:
		return nil, validators.Unknown, ErrNoEntryPoint
	case k == nil && !b.cluster.Complete:
		return nil, validators.Unknown, errNotBuilt
	case k == nil:
		return nil, validators.Absent, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.described[key] == nil {
		b.described[key] = b.describe(k)
	}
	return b.described[key], validators.Present, nil
}

func (b *builds) describe(k *Kustomization) *validators.Build {
	out := &validators.Build{Complete: k.State == Built, Dependents: b.dependents(k)}
	if found := b.cluster.bootstrap; found != nil {
		out.Bootstrap = found.Installs
	}
	for _, o := range k.Objects {
		out.Applies = append(out.Applies, refOf(o))
	}
	for _, p := range k.Problems {
		out.Problems = append(out.Problems, *p)
	}
	return out
}

// dependents returns the Kustomizations that cannot be applied before k, k itself included: those that depend on one
// of them, and those that only they apply.
func (b *builds) dependents(k *Kustomization) map[types.NamespacedName]bool {
	after := map[types.NamespacedName]bool{k.Key: true}
	for grown := true; grown; {
		grown = false
		for _, other := range b.cluster.Kustomizations {
			if after[other.Key] {
				continue
			}
			depends := slices.ContainsFunc(other.DependsOn(), func(d types.NamespacedName) bool { return after[d] })
			parents := slices.DeleteFunc(slices.Clone(other.Parents), func(p *Kustomization) bool { return p == other })
			applied := len(parents) > 0 && !slices.ContainsFunc(parents, func(p *Kustomization) bool { return !after[p.Key] })
			if depends || applied {
				after[other.Key], grown = true, true
			}
		}
	}
	return after
}

// Owners implements lookup.Builds. An object that only a failed build would apply has no known owner.
func (b *builds) Owners(_ context.Context, gk schema.GroupKind, key types.NamespacedName) ([]types.NamespacedName, validators.Presence, error) {
	owners := b.owners[validators.ObjectRef{Group: gk.Group, Kind: gk.Kind, Namespace: key.Namespace, Name: key.Name}]
	if len(owners) == 0 && !b.cluster.Complete {
		return nil, validators.Unknown, errNotBuilt
	}
	return owners, validators.Present, nil
}
