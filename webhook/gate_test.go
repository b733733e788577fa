package webhook_test

import (
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/mutators"
	allmutators "github.com/flux-admission/flux-admission/mutators/all"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
	"github.com/flux-admission/flux-admission/webhook"
)

// defaultGate is the policy that ships, with every rule and mutator.
func defaultGate() (webhook.Gate, error) {
	rules, err := validators.NewSuite(allvalidators.Rules()...)
	if err != nil {
		return nil, err
	}
	mutations, err := mutators.NewSet(allmutators.Mutators()...)
	if err != nil {
		return nil, err
	}
	shipped, err := policy.Shipped()
	if err != nil {
		return nil, err
	}
	return policy.Compile(shipped, rules, mutations, nil)
}
