package webhook_test

import (
	"encoding/json"

	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/mutators"
	allmutators "github.com/flux-admission/flux-admission/mutators/all"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
	"github.com/flux-admission/flux-admission/webhook"
)

// denyAll returns a policy with the action Deny for every rule, default parameters, and every mutator without settings.
func denyAll() (webhook.Policy, error) { return allRules("Enforce") }

func allRules(mode string) (*policy.Policy, error) {
	rules, err := validators.NewSuite(allvalidators.Rules()...)
	if err != nil {
		return nil, err
	}
	mutations, err := mutators.NewSet(allmutators.Mutators()...)
	if err != nil {
		return nil, err
	}
	settings := map[string]any{}
	for _, m := range rules.Rules() {
		settings[m.Name] = map[string]any{"action": "Deny", "onUnknown": "Deny"}
	}
	text, err := json.Marshal(map[string]any{
		"apiVersion": "flux-admission.dev/v1alpha1", "kind": "AdmissionPolicy", "metadata": map[string]any{"name": "default"},
		"spec": map[string]any{"mode": mode, "onError": "Deny", "rules": settings},
	})
	if err != nil {
		return nil, err
	}
	parsed, err := policy.Parse("all rules", text)
	if err != nil {
		return nil, err
	}
	return policy.Compile(parsed, rules, mutations, nil)
}
