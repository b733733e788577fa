package reference

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// NamespaceUnset is the rule object-namespace-unset.
//
// kubectl takes the namespace of its context for an object without one; Flux has no such default
// (fluxcd/pkg/ssa/errors: "namespace not specified"). It is in spec.targetNamespace of the Kustomization, in the
// namespace of a kustomization.yaml, or in the object. The rule reports objects of kinds that are certainly
// namespaced, and proposes the namespace that all others of the Kustomization have.
var NamespaceUnset = &validators.Rule{
	Meta: validators.Meta{
		ID:       "NS002",
		Name:     "object-namespace-unset",
		Scope:    validators.Scope{AnyKind: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "Namespaced object has no namespace",
			Why: "kustomize-controller fails with \"namespace not specified\" and applies nothing of the " +
				"Kustomization: unlike kubectl it has no default namespace.",
			Fix: "Set metadata.namespace, the namespace of the kustomization.yaml, or spec.targetNamespace of the " +
				"Kustomization.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.Kustomization},
	},
	Check: checkNamespaceUnset,
}

func checkNamespaceUnset(ctx context.Context, p *validators.Pass) error {
	if p.Provenance == nil || p.Provenance.Kustomization.Name == "" || p.Object.GetNamespace() != "" || p.Object.GetName() == "" {
		return nil
	}
	gvk := p.Object.GroupVersionKind()
	kind, _, _ := p.Lookup.Kind(ctx, gvk.GroupKind())
	if kind == nil || kind.Scope != validators.ScopeNamespaced || !slices.Contains(kind.Served, gvk.Version) {
		return nil
	}
	build, presence, _ := p.Lookup.Build(ctx, p.Provenance.Kustomization)
	self := validators.ObjectRef{Group: gvk.Group, Kind: gvk.Kind, Name: p.Object.GetName()}
	if presence != validators.Present || !slices.Contains(build.Applies, self) {
		return nil // something else than Flux creates it
	}
	at := validators.NewPath("metadata", "namespace")
	f := p.Report(at, nil, "%s %s has no namespace", gvk.Kind, p.Object.GetName())
	f.Key = gvk.Kind + " " + p.Object.GetName()
	if others := namespacesApplied(build); len(others) == 1 {
		f.Message += "; the other objects of the Kustomization are in " + others[0]
		f.Edits = []validators.Edit{flux.Set(p.Object.Object, at, others[0])}
	}
	return nil
}

// namespacesApplied returns the namespaces of the objects that a Kustomization applies.
func namespacesApplied(build *validators.Build) []string {
	var out []string
	for _, r := range build.Applies {
		if r.Namespace != "" && !slices.Contains(out, r.Namespace) {
			out = append(out, r.Namespace)
		}
	}
	return out
}
