package kustomization

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// BuildFailed is the rule kustomization-build-failed.
//
// One bad entry prevents everything that the Kustomization applies from being applied, and with it every
// Kustomization that it applies.
var BuildFailed = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS006",
		Name:     "kustomization-build-failed",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "kustomize cannot build the Kustomization",
			Why: "kustomize-controller applies nothing of a Kustomization whose build fails, and leaves what it " +
				"applied before as it is. Kustomizations that it applies no longer follow Git either.",
			Fix:   "Correct what the message names at the position; \"kustomize build\" of the directory fails in the same way.",
			Since: "v0.1.0",
		},
	},
	Check: func(ctx context.Context, p *validators.Pass) error {
		accept := func(problem validators.Problem) bool {
			if problem.Kind == validators.ProblemSpecInvalid {
				// The rules on schemas report the field.
				p.Skip("a field of spec has a wrong type; what the Kustomization builds was evaluated without the field")
			}
			return problem.Kind == validators.ProblemBuildFailed
		}
		reportProblems(ctx, p, accept, func(f *validators.Finding, problem validators.Problem) {
			if problem.Suggestion != "" {
				f.Fix = "Change the entry to " + problem.Suggestion + ", or add what it names."
			}
		})
		return nil
	},
}
