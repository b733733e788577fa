// Package file holds the rules on the files of a Git tree.
package file

import (
	"context"

	"github.com/flux-admission/flux-admission/validators"
)

// DuplicateKey is the rule duplicate-key.
//
// YAML 1.2 forbids it (section 3.2.1.1, https://yaml.org/spec/1.2.2/#3211-nodes), and tools disagree: kustomize refuses the file, kubectl takes the last value.
var DuplicateKey = &validators.Rule{
	Meta: validators.Meta{
		ID:       "FI001",
		Name:     "duplicate-key",
		Files:    true,
		Severity: validators.SeverityError,
		Doc: validators.Doc{
			Title: "Key that stands twice in a YAML map",
			Why: "kustomize refuses the file, and with it the whole Kustomization that builds it; kubectl takes the last of the two values without a " +
				"word.",
			Fix:   "Remove one of the two.",
			Since: "v0.1.0",
		},
	},
	Check: func(_ context.Context, p *validators.Pass) error { return report(p, validators.ProblemDuplicateKey) },
}

// report reports a file's problems of one kind, each at its place.
func report(p *validators.Pass, kind validators.ProblemKind) error {
	problems, err := validators.FileProblems(p.Object)
	if err != nil {
		return err
	}
	for i, problem := range problems {
		if problem.Kind == kind {
			f := p.Report(validators.NewPath("problems").Index(i), nil, "%s", problem.Message)
			f.Position, f.Related = problem.Position, problem.Other
		}
	}
	return nil
}
