package kustomization

import (
	"context"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

// NamespaceOverridden is the rule kustomization-namespace-overridden.
//
// `namespace:` of a kustomization and targetNamespace of a Flux Kustomization win over the namespace that a file gives its objects, without a word. For
// what others refer to by namespace, such as a Flux Kustomization, a source or a Secret, the file then misleads everybody who reads it.
var NamespaceOverridden = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS008",
		Name:     "kustomization-namespace-overridden",
		Scope:    validators.Scope{AnyKind: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Object that ends up in another namespace than its file says",
			Why: "A kustomization's `namespace:`, or a Flux Kustomization's targetNamespace, moves the object. What refers to it in the namespace that its file names " +
				"does not find it, and references without a namespace in it mean another one than they seem to.",
			Fix:   "List the object where nothing moves it, or write the namespace that it ends up in.",
			Since: "v0.1.0",
		},
	},
	Check: checkOverridden,
}

func checkOverridden(_ context.Context, p *validators.Pass) error {
	if p.Provenance == nil || p.Provenance.DeclaredNamespace == "" {
		return nil
	}
	at := validators.NewPath("metadata", "namespace")
	if declared, got := p.Provenance.DeclaredNamespace, p.Object.GetNamespace(); declared != got {
		where := "in namespace " + got
		if got == "" {
			where = "without a namespace"
		}
		f := p.Report(at, declared, "the file says namespace %s, and the object ends up %s", declared, where)
		f.Key = declared
	}
	return nil
}
