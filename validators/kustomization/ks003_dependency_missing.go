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
// kustomize-controller looks for a dependency in the namespace that dependsOn gives, or in the Kustomization's own, and retries for ever when it is not
// there. The name is right and the namespace wrong more often than not, so the message says where one of that name is.
var DependencyMissing = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS003",
		Name:     "kustomization-dependency-missing",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{
			Admission: v1alpha1.ActionWarn, Offline: v1alpha1.ActionDeny,
			Reason: "One apply may bring both objects, and its dry-run comes before either exists. In a Git tree all objects are there at once.",
		},
		Doc: validators.Doc{
			Title: "Flux Kustomization that depends on one that does not exist",
			Why: "The Kustomization waits for its dependency without an end, and everything behind it waits too. Without a namespace, dependsOn means the " +
				"Kustomization's own namespace.",
			Fix:   "Correct the name or the namespace of the dependency, or remove it.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.Kustomization},
	},
	Check: checkDependencies,
}

func checkDependencies(ctx context.Context, p *validators.Pass) error {
	flux.CheckDependencies(ctx, p, flux.Kustomization)
	return nil
}
