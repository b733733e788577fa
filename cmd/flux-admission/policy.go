package main

import (
	"fmt"
	"os"

	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/policy/v1alpha1"
	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/validators"
)

// readPolicy reads and binds the policy in the file, or the one that ships when there is no file. The error names what to repair.
func readPolicy(file string, rules *validators.Suite, mutations *mutators.Set) (*policy.Policy, error) {
	parsed, err := parsePolicy(file)
	if err != nil {
		return nil, err
	}
	p, err := policy.Compile(parsed, rules, mutations, nil)
	if err != nil {
		return nil, fmt.Errorf("--policy: %s: %w", file, err)
	}
	return p, nil
}

func parsePolicy(file string) (*v1alpha1.AdmissionPolicy, error) {
	if file == "" {
		return policy.Shipped()
	}
	data, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("--policy: %w", err)
	}
	parsed, err := policy.Parse(file, data)
	if err != nil {
		return nil, fmt.Errorf("--policy: %w", err)
	}
	return parsed, nil
}
