package kustomization

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// DependencyMissing is the rule kustomization-dependency-missing.
//
// kustomize-controller looks for a dependency in the namespace that the dependsOn entry names, or in the
// Kustomization's own, and retries forever while it does not exist. Often only the namespace is wrong, so the message
// names the namespaces that have a Kustomization of that name.
var DependencyMissing = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS003",
		Name:     "kustomization-dependency-missing",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{
			Admission: v1alpha1.ActionWarn,
			Offline:   v1alpha1.ActionDeny,
			Reason: "One apply may bring both objects, and its dry-run comes before either exists. " +
				"In a Git tree all objects are there at once.",
		},
		Doc: validators.Doc{
			Title: "Dependency of the Kustomization does not exist",
			Why: "The Kustomization waits for its dependency forever, and everything that depends on it waits too. " +
				"Without a namespace, a dependsOn entry names a Kustomization in the same namespace.",
			Fix:   "Correct the name or the namespace of the dependency, or remove the entry.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.Kustomization, flux.HelmRelease},
	},
	Check: checkDependencies,
}

func checkDependencies(ctx context.Context, p *validators.Pass) error {
	flux.CheckDependencies(ctx, p, flux.Kustomization)
	return nil
}
