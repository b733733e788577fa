package kustomization

import (
	"context"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/validators"
)

var specPath = validators.NewPath("spec", "path")

// reportProblems reports the problems of the Kustomization's build that accept accepts, each at its position: in a file
// of the source, or in the Kustomization. Each is called with the finding of each problem.
func reportProblems(
	ctx context.Context,
	p *validators.Pass,
	accept func(validators.Problem) bool,
	each func(*validators.Finding, validators.Problem),
) {
	build, presence, err := p.Lookup.Build(
		ctx,
		types.NamespacedName{Namespace: p.Object.GetNamespace(), Name: p.Object.GetName()},
	)
	if presence != validators.Present {
		if presence == validators.Unknown {
			p.Unknown("cannot determine what the Kustomization builds: %v", err)
		}
		return
	}
	for _, problem := range build.Problems {
		if !accept(problem) {
			continue
		}
		at := problem.Path
		if len(at) == 0 {
			at = specPath
		}
		f := p.Report(at, nil, "%s", problem.Message)
		f.Uncertain = f.Uncertain || problem.Uncertain
		f.Position, f.Related = problem.Position, problem.Related
		if problem.Fix != "" {
			f.Fix = problem.Fix
		}
		if detail := strings.TrimSpace(problem.Detail); detail != "" && !strings.Contains(f.Message, detail) {
			f.Message += " (" + firstLine(detail) + ")"
		}
		each(f, problem)
	}
}

// maxDetail limits how much of another tool's message is quoted, in bytes: kustomize repeats a path for every level.
const maxDetail = 300

func firstLine(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	if len(text) > maxDetail {
		text = "... " + strings.ToValidUTF8(text[len(text)-maxDetail:], "")
	}
	return text
}
