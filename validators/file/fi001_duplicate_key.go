// Package file holds the rules on the files of a Git tree.
package file

import (
	"context"
	"slices"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

// DuplicateKey is the rule duplicate-key.
//
// YAML 1.2 forbids duplicate keys (section 3.2.1.1, https://yaml.org/spec/1.2.2/#3211-nodes), and tools disagree:
// kustomize refuses the file, kubectl uses the last value.
var DuplicateKey = &validators.Rule{
	Meta: validators.Meta{
		ID:       "FI001",
		Name:     "duplicate-key",
		Scope:    validators.Scope{File: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "Duplicate key in a YAML mapping",
			Why: "kustomize refuses the file, and with it the whole Kustomization that builds it; kubectl silently " +
				"uses the last value.",
			Fix:   "Remove one of the duplicate keys.",
			Since: "v0.1.0",
		},
	},
	Check: func(_ context.Context, p *validators.Pass) error {
		report(p, validators.ProblemDuplicateKey)
		return nil
	},
}

// report reports the file's problems of the kinds, each at its position.
func report(p *validators.Pass, kinds ...validators.ProblemKind) {
	for _, problem := range p.File.Problems {
		if slices.Contains(kinds, problem.Kind) {
			f := p.Report(nil, nil, "%s", problem.Message)
			f.Position, f.Related = problem.Position, problem.Related
			if problem.Fix != "" {
				f.Fix = problem.Fix
			}
		}
	}
}
