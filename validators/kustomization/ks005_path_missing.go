package kustomization

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// PathMissing is the rule kustomization-path-missing.
//
// kustomize-controller takes spec.path from the root of the source's artifact, which holds regular files only: what is behind a symbolic link is not in
// it, nor what .sourceignore leaves out.
var PathMissing = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS005",
		Name:     "kustomization-path-missing",
		Kinds:    []schema.GroupKind{flux.Kustomization},
		Offline:  true,
		Severity: validators.SeverityError,
		Doc: validators.Doc{
			Title: "Flux Kustomization with a path that is not in its source",
			Why:   "kustomize-controller finds no directory to build, and reports \"kustomization path not found\" at every interval.",
			Fix:   "Correct spec.path. It starts at the root of the source, whatever directory the Kustomization itself is in.",
			Since: "v0.1.0",
		},
	},
	Check: checkPath,
}

func checkPath(ctx context.Context, p *validators.Pass) error {
	written, _ := specPath.Lookup(p.Object.Object).(string)
	reportProblems(ctx, p, validators.ProblemPath, func(problem validators.BuildProblem) bool { return problem.Name == written }, func(f *validators.Finding, problem validators.BuildProblem) {
		f.Value = written
		if problem.Near == "" {
			return
		}
		near := "./" + problem.Near
		f.Fix = "Write path: " + near + ", if that is what was meant."
		f.Edits = []validators.Edit{{Op: validators.EditReplace, Path: specPath, Value: near}}
	})
	return nil
}
