package kustomization

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// ImageUnmatched is the rule kustomization-image-unmatched.
//
// kustomize changes the images of containers and init containers by their whole name, and nothing else
// (api/internal/builtins/ImageTagTransformer.go). An entry for an image that nothing has is no error. Only entries for an
// image of a similar name are reported, and those for an image in another field: an entry may be there in advance.
var ImageUnmatched = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS019",
		Name:     "kustomization-image-unmatched",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Entry of images changes no image",
			Why: "kustomize builds without an error and leaves the image as it is: the new tag is not deployed. The name " +
				"is misspelled, lacks the registry, or belongs to a HelmRelease, whose values kustomize does not change.",
			Fix: "Write the name of the image as the container has it, with its registry and without its tag, or " +
				"remove the entry.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.Kustomization},
	},
	Check: func(ctx context.Context, p *validators.Pass) error {
		accept := func(problem validators.Problem) bool { return problem.Kind == validators.ProblemImageUnmatched }
		reportProblems(ctx, p, accept, func(f *validators.Finding, problem validators.Problem) { f.Key = problem.Name })
		return nil
	},
}
