package kustomization

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// NullInPatch is the rule kustomization-null-in-patch.
//
// Helm removes a default of the chart where the values have null. A strategic merge patch cannot set null: it removes
// the field, and a field that is not there stays away, so the release never has the null.
var NullInPatch = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS014",
		Name:     "kustomization-null-in-patch",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Null in a patch is lost",
			Why: "In a strategic merge patch null removes a field. It never reaches the values of the HelmRelease, so " +
				"the chart's default, which it should remove, stays in effect.",
			Fix: "Set the null in the HelmRelease itself or in a ConfigMap of its valuesFrom, or give the value that " +
				"the chart should use instead.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.Kustomization},
	},
	Check: func(ctx context.Context, p *validators.Pass) error {
		accept := func(problem validators.Problem) bool { return problem.Kind == validators.ProblemNullInPatch }
		reportProblems(ctx, p, accept, func(f *validators.Finding, problem validators.Problem) { f.Key = problem.Name })
		return nil
	},
}
