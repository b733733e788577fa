package file

import (
	"context"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

// ExemptionExpired is the rule exemption-expired.
var ExemptionExpired = &validators.Rule{
	Meta: validators.Meta{
		ID:       "EX001",
		Name:     "exemption-expired",
		Scope:    validators.Scope{File: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Exemption has expired or soon will",
			Why: "From its time of expiry on, an exemption of the AdmissionPolicy does not apply: what it was for is denied or " +
				"warned about again, at admission too, without a change in Git. It is reported from two weeks before.",
			Fix:   "Repair what the exemption is for and remove it, or set a later expires.",
			Since: "v0.1.0",
		},
	},
	Check: func(_ context.Context, p *validators.Pass) error {
		report(p, validators.ProblemExemptionExpired)
		return nil
	},
}
