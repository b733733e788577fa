package file

import (
	"context"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

// ExemptionUnused is the rule exemption-unused.
//
// It only audits: the exemption may be for an object that is in the cluster and in no tree.
var ExemptionUnused = &validators.Rule{
	Meta: validators.Meta{
		ID:       "EX002",
		Name:     "exemption-unused",
		Scope:    validators.Scope{File: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityInfo,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionAudit},
		Doc: validators.Doc{
			Title: "Exemption applies to no finding",
			Why: "No object of the tree needs the exemption of the AdmissionPolicy: its names have a typo, or what it was for is " +
				"repaired. The next finding that it selects would be exempt unseen.",
			Fix:   "Correct what the exemption selects, or remove it. Leave it if it is for an object that is not in the tree.",
			Since: "v0.1.0",
		},
	},
	Check: func(_ context.Context, p *validators.Pass) error {
		report(p, validators.ProblemExemptionUnused)
		return nil
	},
}
