package kustomization

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// ImageTagNumber is the rule kustomization-image-tag-number.
//
// YAML reads 12345e7, 1.20 and 0123 as numbers, and kustomize writes the number into the image: 1.2345e+11, 1.2, 83.
// Only tags that change are reported.
var ImageTagNumber = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS015",
		Name:     "kustomization-image-tag-number",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Image tag is read as a number",
			Why: "Without quotes YAML reads the tag as a number, and kustomize writes that number into the image. The " +
				"image does not exist, or is another one.",
			Fix:   "Put the tag in quotes.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.Kustomization},
	},
	Check: func(ctx context.Context, p *validators.Pass) error {
		accept := func(problem validators.Problem) bool { return problem.Kind == validators.ProblemTagNumber }
		reportProblems(ctx, p, accept, func(f *validators.Finding, problem validators.Problem) { f.Key = problem.Name })
		return nil
	},
}
