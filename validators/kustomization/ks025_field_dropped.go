package kustomization

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// FieldDropped is the rule kustomization-file-unknown-field.
//
// kustomize-controller decodes the kustomization.yaml at spec.path without strictness and writes it anew (fluxcd/pkg/kustomize,
// kustomize_generator.go), so a misspelled field is lost. Files that it includes are read by kustomize, which refuses them:
// rule kustomization-build-failed.
var FieldDropped = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS025",
		Name:     "kustomization-file-unknown-field",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "kustomization.yaml has an unknown field",
			Why: "Flux drops the field without a message and applies what is left. With prune, it then deletes what the field " +
				"used to add.",
			Fix:   "Correct the name of the field, or remove it.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.Kustomization},
	},
	Check: func(ctx context.Context, p *validators.Pass) error {
		accept := func(problem validators.Problem) bool { return problem.Kind == validators.ProblemFieldDropped }
		reportProblems(ctx, p, accept, func(f *validators.Finding, problem validators.Problem) { f.Key = problem.Name })
		return nil
	},
}
