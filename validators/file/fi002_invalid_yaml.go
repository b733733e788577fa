package file

import (
	"context"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

// InvalidYAML is the rule invalid-yaml.
//
// It also reports a file that exceeds a limit (size, nesting, aliases): its content is not known.
var InvalidYAML = &validators.Rule{
	Meta: validators.Meta{
		ID:       "FI002",
		Name:     "invalid-yaml",
		Scope:    validators.Scope{File: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "File is not valid YAML",
			Why: "Every tool that reads the file fails; if a Kustomization builds it, nothing of that " +
				"Kustomization is applied.",
			Fix:   "Correct the text at the position.",
			Since: "v0.1.0",
		},
	},
	Check: func(_ context.Context, p *validators.Pass) error {
		report(p, validators.ProblemNotYAML, validators.ProblemFileRefused)
		return nil
	},
}
