package kustomization

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// VariableUnset is the rule kustomization-variable-unset.
//
// Flux 2.9 refuses a variable without a value; earlier releases substitute the empty string, which is worse.
var VariableUnset = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS007",
		Name:     "kustomization-variable-unset",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "Substitution variable has no value",
			Why: "kustomize-controller refuses to apply the Kustomization (StrictPostBuildSubstitutions, the " +
				"default since Flux 2.9), or replaces the variable with the empty string.",
			Fix: "Set the variable in postBuild.substitute or in an object of substituteFrom, or give it a " +
				"default: ${NAME:=default}. Escape text that is no variable as $${NAME}.",
			Since: "v0.1.0",
		},
	},
	Check: func(ctx context.Context, p *validators.Pass) error {
		accept := func(problem validators.Problem) bool { return problem.Kind == validators.ProblemVariableUnset }
		reportProblems(ctx, p, accept, func(f *validators.Finding, problem validators.Problem) {
			if problem.Uncertain {
				f.Key = f.Message
				f.Message += ": Flux 2.9 and later refuse it, and earlier releases leave it empty"
			}
			if problem.Suggestion != "" {
				f.Fix = fmt.Sprintf("Use the variable %s if you meant that one. %s", problem.Suggestion, f.Fix)
			}
		})
		return nil
	},
}
