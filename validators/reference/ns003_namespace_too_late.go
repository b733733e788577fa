package reference

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// NamespaceTooLate is the rule namespace-applied-too-late.
//
// kustomize-controller dry-runs all objects of a Kustomization before it applies the first of them, except for Namespaces and
// CustomResourceDefinitions. An object in a namespace that only a later Kustomization applies keeps that one from
// starting. A running cluster does not show it.
var NamespaceTooLate = &validators.Rule{
	Meta: validators.Meta{
		ID:       "NS003",
		Name:     "namespace-applied-too-late",
		Scope:    validators.Scope{AnyKind: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Namespace is applied after its objects",
			Why: "The Kustomization fails with \"namespace not found\" until the namespace exists, and the one that " +
				"applies the namespace waits for it: a new cluster never starts.",
			Fix:   "Move the Namespace to this Kustomization, or to one that this Kustomization names in spec.dependsOn.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{namespaceKind, flux.HelmRelease, flux.Kustomization},
	},
	Check: checkNamespaceTooLate,
}

func checkNamespaceTooLate(ctx context.Context, p *validators.Pass) error {
	name := p.Object.GetNamespace()
	if p.Provenance == nil || p.Provenance.Kustomization.Name == "" || name == "" || unresolved.String(name) || builtIn(name) {
		return nil
	}
	me := p.Provenance.Kustomization
	build, presence, _ := p.Lookup.Build(ctx, me)
	if presence != validators.Present || !build.Complete || slices.Contains(build.Applies, validators.ObjectRef{Kind: namespaceKind.Kind, Name: name}) {
		return nil
	}
	owners, presence, _ := p.Lookup.Owners(ctx, namespaceKind, types.NamespacedName{Name: name})
	if presence != validators.Present || len(owners) == 0 {
		return nil
	}
	var names []string
	for _, o := range owners {
		if o == me || !build.Dependents[o] {
			return nil
		}
		names = append(names, o.String())
	}
	if createdByRelease(ctx, p.Lookup, name) { // reads all releases, which few objects need
		return nil
	}
	f := p.Report(
		validators.NewPath("metadata", "namespace"), name, "namespace %q is applied by Kustomization %s, which waits for %s, which applies this object",
		name, strings.Join(names, ", "), me,
	)
	f.Key = name
	return nil
}
