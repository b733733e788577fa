package treediff

import (
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// addAdmission adds what the admission webhook would report about each object that is added or changed.
func (c *comparison) addAdmission(head *check.Tree) error {
	admission, err := head.Admission(c.Policy, c.head.Cluster)
	if err != nil {
		return err
	}
	for _, ch := range c.changes {
		if ch.after == nil || ch.after.built == nil || ch.after.remote != "" {
			continue
		}
		if err := c.ctx.Err(); err != nil {
			return err
		}
		var old *unstructured.Unstructured
		if ch.before != nil && ch.before.key == ch.after.key {
			if len(ch.fields) == 0 {
				continue // only another Kustomization applies it
			}
			old = c.stored(ch.before)
		}
		c.diff.Admission = append(c.diff.Admission, admission.Review(c.ctx, ch.after.built, old)...)
	}
	return nil
}

// stored returns an object of the base as it is in the cluster after Flux has applied the base: with the status from which
// rules conclude what a change does. Its values are those of the tree, nothing else of the status is known.
func (c *comparison) stored(e *entry) *unstructured.Unstructured {
	if e.live != nil {
		return e.live
	}
	gk := e.object.GroupVersionKind().GroupKind()
	if gk != flux.Kustomization && gk != flux.HelmRelease {
		return e.object
	}
	o := e.object.DeepCopy()
	if gk == flux.HelmRelease {
		// A release that was never installed has no history.
		o.Object["status"] = map[string]any{"history": []any{map[string]any{}}}
		return o
	}
	var entries []any
	for _, k := range c.base.Kustomizations {
		if k.Key.Namespace != e.namespace || k.Key.Name != e.name || refused(k) {
			continue
		}
		for _, applied := range k.Objects {
			gvk := applied.GroupVersionKind()
			id := strings.Join([]string{applied.GetNamespace(), applied.GetName(), gvk.Group, gvk.Kind}, "_")
			entries = append(entries, map[string]any{"id": id, "v": gvk.Version})
		}
	}
	o.Object["status"] = map[string]any{"inventory": map[string]any{"entries": entries}}
	return o
}

// ids returns the objects of changes as "Kind namespace/name".
func ids(list []*entry) []string {
	out := make([]string, 0, len(list))
	for _, e := range list {
		out = append(out, e.id())
	}
	return out
}
