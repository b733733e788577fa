package helmrelease

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// DependencyCycle is the rule helm-dependency-cycle.
//
// A HelmRelease cannot depend on a Kustomization, so a cycle contains HelmReleases only.
var DependencyCycle = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR007",
		Name:     "helm-dependency-cycle",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{
			Admission: v1alpha1.ActionWarn,
			Offline:   v1alpha1.ActionDeny,
			Reason: "Flux dry-runs a commit object by object: " +
				"one that reverses a dependency looks like a cycle until all of it is stored.",
		},
		Doc: validators.Doc{
			Title: "HelmReleases depend on each other in a cycle",
			Why: "Each waits for the next one to be ready, so none of them is installed or upgraded, nor anything " +
				"that depends on them.",
			Fix:   "Remove one of the dependencies of the cycle.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.HelmRelease},
	},
	Check: func(ctx context.Context, p *validators.Pass) error {
		flux.CheckCycles(ctx, p, flux.HelmRelease)
		return nil
	},
}
