package kustomization

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// PathMissing is the rule kustomization-path-missing.
//
// kustomize-controller resolves spec.path in the artifact of the source, which contains regular files only: no
// targets of symbolic links, and nothing that .sourceignore excludes.
var PathMissing = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS005",
		Name:     "kustomization-path-missing",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "spec.path does not exist in the source",
			Why: "kustomize-controller finds no directory to build, and reports \"kustomization path not found\" " +
				"at every interval.",
			Fix: "Correct spec.path. It is relative to the root of the source, not to the directory of the " +
				"Kustomization.",
			Since: "v0.1.0",
		},
	},
	Check: checkPath,
}

func checkPath(ctx context.Context, p *validators.Pass) error {
	written, _ := specPath.Lookup(p.Object.Object).(string)
	// A problem of another path belongs to the stored state of the Kustomization.
	accept := func(problem validators.Problem) bool {
		return problem.Kind == validators.ProblemPathMissing && problem.Name == written
	}
	reportProblems(ctx, p, accept, func(f *validators.Finding, problem validators.Problem) {
		f.Value = written
		if problem.Suggestion == "" {
			return
		}
		near := "./" + problem.Suggestion
		f.Fix = "Set spec.path to " + near + " if you meant that directory."
		f.Edits = []validators.Edit{{Op: validators.EditReplace, Path: specPath, Value: near}}
	})
	return nil
}
