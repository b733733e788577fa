package kustomization

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// DependencyCycle is the rule kustomization-dependency-cycle.
//
// kustomize-controller does not look for cycles: each member says that its dependency is not ready, and none says why. So each is reported, with the whole cycle.
var DependencyCycle = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS004",
		Name:     "kustomization-dependency-cycle",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{
			Admission: v1alpha1.ActionWarn, Offline: v1alpha1.ActionDeny,
			Reason: "Flux dry-runs a commit object by object: one that reverses a dependency looks like a cycle until all of it is stored.",
		},
		Doc: validators.Doc{
			Title: "Flux Kustomizations that depend on each other in a circle",
			Why:   "Each waits for the next one to be ready, so none is ever applied again, nor anything behind them.",
			Fix:   "Remove one of the dependencies of the circle.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.Kustomization},
	},
	Check: func(ctx context.Context, p *validators.Pass) error {
		flux.CheckCycles(ctx, p, flux.Kustomization)
		return nil
	},
}
