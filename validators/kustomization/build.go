package kustomization

import (
	"context"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/validators"
)

var specPath = validators.NewPath("spec", "path")

// reportProblems reports what is wrong with the Kustomization's build, of one kind, where it is written: in a file of its source, or in the Kustomization. About
// tells the problems of the very object from those of another state of it; nil takes all.
func reportProblems(ctx context.Context, p *validators.Pass, kind validators.ProblemKind, about func(validators.BuildProblem) bool,
	each func(*validators.Finding, validators.BuildProblem),
) {
	build, presence, err := p.Lookup.Build(ctx, types.NamespacedName{Namespace: p.Object.GetNamespace(), Name: p.Object.GetName()})
	if presence != validators.Present {
		if presence == validators.Unknown {
			p.Unknown("what the Kustomization builds is not known: %v", err)
		}
		return
	}
	for _, problem := range build.Problems {
		if problem.Kind != kind || about != nil && !about(problem) {
			continue
		}
		at := problem.Path
		if len(at) == 0 {
			at = specPath
		}
		f := p.Report(at, nil, "%s", problem.Message)
		f.Position, f.Related = problem.Position, problem.Other
		if detail := strings.TrimSpace(problem.Detail); detail != "" && !strings.Contains(f.Message, detail) {
			f.Message += " (" + firstLine(detail) + ")"
		}
		each(f, problem)
	}
}

// maxDetail bounds what a message quotes of a tool, in bytes: kustomize repeats a path for every level it goes up.
const maxDetail = 300

func firstLine(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	if len(text) > maxDetail {
		text = "... " + strings.ToValidUTF8(text[len(text)-maxDetail:], "")
	}
	return text
}
