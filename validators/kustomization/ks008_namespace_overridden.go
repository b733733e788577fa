package kustomization

import (
	"context"
	"fmt"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
)

// NamespaceOverridden is the rule kustomization-namespace-overridden.
//
// The `namespace:` of a kustomization.yaml and the targetNamespace of a Flux Kustomization silently override the
// namespace in an object's file. For objects that others reference by namespace, such as a Flux Kustomization, a
// source or a Secret, the file is then misleading.
var NamespaceOverridden = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS008",
		Name:     "kustomization-namespace-overridden",
		Scope:    validators.Scope{AnyKind: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Namespace in the file is overridden",
			Why: "The `namespace:` of a kustomization.yaml, or the targetNamespace of a Flux Kustomization, " +
				"changes the object's namespace. References to the object in the namespace of its file find " +
				"nothing, and its own references without a namespace name other objects than they seem to.",
			Fix: "List the object in a kustomization.yaml that does not change its namespace, or write the " +
				"namespace that it is applied to.",
			Since: "v0.1.0",
		},
	},
	Check: checkOverridden,
}

func checkOverridden(_ context.Context, p *validators.Pass) error {
	if p.Provenance == nil || p.Provenance.DeclaredNamespace == "" || unresolved.HasVariable(p.Provenance.DeclaredNamespace) {
		return nil
	}
	at := validators.NewPath("metadata", "namespace")
	if declared, got := p.Provenance.DeclaredNamespace, p.Object.GetNamespace(); declared != got {
		f := p.Report(at, declared, "namespace %q in the file is overridden with %q", declared, got)
		if got == "" {
			f.Message = fmt.Sprintf("namespace %q in the file is removed", declared)
		}
		f.Key = declared
	}
	return nil
}
