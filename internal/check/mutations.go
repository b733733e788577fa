package check

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/validators"
)

// mutations are objects as the policy's mutators change them, by cluster.
type mutations map[mutationKey]*unstructured.Unstructured

type mutationKey struct {
	cluster string
	object  validators.ObjectRef
}

// mutate runs the mutators of each cluster's policy on every built object of their kinds, as the admission webhook does when the object
// is created.
func mutate(ctx context.Context, built *kustomization.Result, policies map[string]*clusterPolicy) (mutations, error) {
	out := mutations{}
	for _, c := range built.Clusters {
		look, p := c.Lookup(nil), policies[c.Name]
		for _, o := range c.Objects {
			if o.Origin.Synthesized || !p.Mutates(o.GroupVersionKind().GroupKind()) {
				continue
			}
			res := p.Mutate(ctx, validators.Request{Operation: validators.Create, Object: o.Unstructured}, look)
			if len(res.Edits) == 0 {
				continue
			}
			changed, err := validators.PatchObject(o.Unstructured, res.Edits)
			if err != nil {
				return nil, fmt.Errorf("applying the policy's mutations to %s: %w", o, err)
			}
			out[mutationKey{c.Name, refOf(o.Unstructured)}] = changed
		}
	}
	return out, nil
}

// of returns the mutated object; nil for one that no mutator changes.
func (m mutations) of(cluster string, o *unstructured.Unstructured) *unstructured.Unstructured {
	return m[mutationKey{cluster, refOf(o)}]
}

func refOf(o *unstructured.Unstructured) validators.ObjectRef {
	gvk := o.GroupVersionKind()
	return validators.ObjectRef{Group: gvk.Group, Kind: gvk.Kind, Namespace: o.GetNamespace(), Name: o.GetName()}
}
