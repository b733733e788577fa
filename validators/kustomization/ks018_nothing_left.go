package kustomization

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// NothingLeft is the rule kustomization-nothing-left.
//
// kustomize builds an empty result without an error, and kustomize-controller prunes everything that is in the inventory
// and not in the result. A Kustomization without prune only stops to do anything.
var NothingLeft = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS018",
		Name:     "kustomization-nothing-left",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Kustomization with prune applies no object",
			Why: "kustomize builds no object, which is no error. With prune: true Flux deletes everything that the " +
				"Kustomization applied before. Usually a patch with $patch: delete selects more than was meant.",
			Fix: "Narrow the target of the patch, list the resources, or remove the Kustomization if it is meant to " +
				"delete everything.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.Kustomization},
	},
	Check: checkNothingLeft,
}

func checkNothingLeft(ctx context.Context, p *validators.Pass) error {
	prune, _ := validators.NewPath("spec", "prune").Lookup(p.Object.Object).(bool)
	suspended, _ := validators.NewPath("spec", "suspend").Lookup(p.Object.Object).(bool)
	if !prune || suspended {
		return nil
	}
	accept := func(problem validators.Problem) bool { return problem.Kind == validators.ProblemNothingLeft }
	reportProblems(ctx, p, accept, func(*validators.Finding, validators.Problem) {})
	return nil
}
