package policy_test

import (
	"testing"

	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// A finding on uncertain evidence is at most a warning, and a rule that only audits does not warn because of it.
func TestPolicy_Decide_Uncertain(t *testing.T) {
	rule := &allvalidators.Rules()[0].Meta
	for action, warns := range map[string]bool{"Deny": true, "Warn": true, "Audit": false} {
		t.Run(action, func(t *testing.T) {
			p := compile(t, "  rules: {"+rule.Name+": {action: "+action+"}}\n")
			d := p.Decide(validators.Result{
				Object: kustomization("prod", nil), Findings: []*validators.Finding{{Rule: rule, Uncertain: true}},
			}, nil)
			if len(d.Deny) > 0 || (len(d.Warn) > 0) != warns || !d.Allowed() {
				t.Errorf("%d denied, %d warned", len(d.Deny), len(d.Warn))
			}
		})
	}
}
