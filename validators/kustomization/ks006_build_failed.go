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
// One bad entry keeps everything that the Kustomization applies from being applied, and with it every Kustomization below.
var BuildFailed = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS006",
		Name:     "kustomization-build-failed",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "Flux Kustomization that kustomize refuses to build",
			Why: "kustomize-controller applies nothing of a Kustomization whose build fails, and what is applied already stays as it is. When the Kustomization " +
				"applies others, none of them follows Git any more.",
			Fix:   "Correct the file that is named: add what it lists, or remove the entry.",
			Since: "v0.1.0",
		},
	},
	Check: func(ctx context.Context, p *validators.Pass) error {
		accept := func(problem validators.Problem) bool {
			return problem.Kind == validators.ProblemBuildFailed || problem.Kind == validators.ProblemSpecInvalid
		}
		reportProblems(ctx, p, accept, func(f *validators.Finding, problem validators.Problem) {
			if problem.Suggestion != "" {
				f.Fix = "Write " + problem.Suggestion + ", if that is what was meant, or add what is listed."
			}
		})
		return nil
	},
}
