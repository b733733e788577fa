package helmrelease

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// DependencyMissing is the rule helm-dependency-missing.
//
// helm-controller looks for a dependency in the namespace that dependsOn gives, or in the HelmRelease's own. It looks for HelmReleases alone: the name of a
// Kustomization, or that of the Helm release when spec.releaseName makes it another one, is not found.
var DependencyMissing = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR006",
		Name:     "helm-dependency-missing",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{
			Admission: v1alpha1.ActionWarn, Offline: v1alpha1.ActionDeny,
			Reason: "One apply may bring both objects, and its dry-run comes before either exists. In a Git tree all objects are there at once.",
		},
		Doc: validators.Doc{
			Title: "HelmRelease that depends on one that does not exist",
			Why: "The HelmRelease waits for its dependency without an end, and everything behind it waits too. Without a namespace, dependsOn means the " +
				"HelmRelease's own namespace.",
			Fix:   "Correct the name or the namespace of the dependency, or remove it.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.HelmRelease},
	},
	Check: func(ctx context.Context, p *validators.Pass) error {
		flux.CheckDependencies(ctx, p, flux.HelmRelease)
		return nil
	},
}
