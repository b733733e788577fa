package check

import (
	"context"
	"encoding/json"
	"fmt"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/validators"
)

// Amendments are what the policy's mutators make of objects when they are applied, by cluster.
type Amendments map[amended]*unstructured.Unstructured

type amended struct {
	cluster string
	object  validators.ObjectRef
}

// Amend asks the policy's mutators about every rendered object of a kind that they look at, as the gate does when the object is created. Render the tree again
// with Amendments.Of when there are any: what a Kustomization builds may depend on them.
func Amend(ctx context.Context, rendered *kustomization.Result, p *policy.Policy) (Amendments, error) {
	out := Amendments{}
	for _, c := range rendered.Clusters {
		look := c.Lookup(nil)
		for _, o := range c.Objects {
			if o.Origin.Implied || !p.Mutates(o.GroupVersionKind().GroupKind()) {
				continue
			}
			res := p.Mutate(ctx, validators.Request{Operation: validators.Create, Object: o.Unstructured}, look)
			if len(res.Edits) == 0 {
				continue
			}
			changed, err := patched(o.Unstructured, res.Edits)
			if err != nil {
				return nil, fmt.Errorf("applying the policy's mutations to %s: %w", o, err)
			}
			out[amended{c.Name, ref(o.Unstructured)}] = changed
		}
	}
	return out, nil
}

// Of is made for kustomization.Options.Amend.
func (a Amendments) Of(cluster string, o *unstructured.Unstructured) *unstructured.Unstructured {
	return a[amended{cluster, ref(o)}]
}

func ref(o *unstructured.Unstructured) validators.ObjectRef {
	gvk := o.GroupVersionKind()
	return validators.ObjectRef{Group: gvk.Group, Kind: gvk.Kind, Namespace: o.GetNamespace(), Name: o.GetName()}
}

func patched(o *unstructured.Unstructured, edits []validators.Edit) (*unstructured.Unstructured, error) {
	text, err := validators.JSONPatch(edits)
	if err != nil {
		return nil, err
	}
	patch, err := jsonpatch.DecodePatch(text)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(o.Object)
	if err != nil {
		return nil, err
	}
	if data, err = patch.Apply(data); err != nil {
		return nil, err
	}
	out := &unstructured.Unstructured{}
	return out, out.UnmarshalJSON(data)
}
