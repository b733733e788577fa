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
// helm-controller looks for a HelmRelease in the namespace that the dependsOn entry names, or in the HelmRelease's
// own. It does not find a Kustomization of that name, nor a Helm release whose name differs because of
// spec.releaseName.
var DependencyMissing = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR006",
		Name:     "helm-dependency-missing",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{
			Admission: v1alpha1.ActionWarn,
			Offline:   v1alpha1.ActionDeny,
			Reason: "One apply may bring both objects, and its dry-run comes before either exists. " +
				"In a Git tree all objects are there at once.",
		},
		Doc: validators.Doc{
			Title: "Dependency of the HelmRelease does not exist",
			Why: "The HelmRelease waits for its dependency forever, and everything that depends on it waits too. " +
				"Without a namespace, a dependsOn entry names a HelmRelease in the same namespace.",
			Fix:   "Correct the name or the namespace of the dependency, or remove the entry.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.HelmRelease, flux.Kustomization},
	},
	Check: func(ctx context.Context, p *validators.Pass) error {
		flux.CheckDependencies(ctx, p, flux.HelmRelease)
		return nil
	},
}
