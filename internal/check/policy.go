package check

import (
	"fmt"
	"os"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/mutators"
	allmutators "github.com/flux-admission/flux-admission/mutators/all"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// Policy returns the policy of a file; for the file "", the default policy with the default actions of a stage.
func Policy(file string, stage validators.Stage) (*policy.Policy, error) {
	if file != "" {
		p, _, err := choosePolicy(file, &kustomization.Result{})
		return p, err
	}
	parsed, err := policy.DefaultAt(stage, allRules())
	if err != nil {
		return nil, err
	}
	return compile(parsed)
}

// choosePolicy returns the policy to check with: the file's, the tree's own, or the default policy with the default
// actions of a check.
func choosePolicy(file string, built *kustomization.Result) (compiled *policy.Policy, isDefault bool, err error) {
	var parsed *v1alpha1.AdmissionPolicy
	switch own := policyOf(built); {
	case file != "":
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, false, fmt.Errorf("--policy: %w", err)
		}
		if parsed, err = policy.Parse(file, data); err != nil {
			return nil, false, err
		}
	case own != nil:
		data, err := own.MarshalJSON()
		if err != nil {
			return nil, false, fmt.Errorf("reading the tree's AdmissionPolicy: %w", err)
		}
		if parsed, err = policy.ParseObject(data); err != nil {
			return nil, false, fmt.Errorf("%s: %w", own.Origin.File, err)
		}
	default:
		if parsed, err = policy.DefaultAt(validators.StageOffline, allRules()); err != nil {
			return nil, false, err
		}
		isDefault = true
	}
	compiled, err = compile(parsed)
	return compiled, isDefault, err
}

func allRules() []*validators.Meta {
	var out []*validators.Meta
	for _, r := range allvalidators.Rules() {
		out = append(out, &r.Meta)
	}
	return out
}

func compile(parsed *v1alpha1.AdmissionPolicy) (*policy.Policy, error) {
	rules, err := validators.NewSuite(allvalidators.Rules()...)
	if err != nil {
		return nil, fmt.Errorf("building the suite of rules: %w", err)
	}
	mutations, err := mutators.NewSet(allmutators.Mutators()...)
	if err != nil {
		return nil, fmt.Errorf("building the set of mutators: %w", err)
	}
	return policy.Compile(parsed, rules, mutations, nil)
}

// policyOf returns the AdmissionPolicy that the tree applies; nil when it applies none.
func policyOf(built *kustomization.Result) *kustomization.Object {
	for _, c := range built.Clusters {
		for _, o := range c.Objects {
			gvk := o.GroupVersionKind()
			if gvk.Group == v1alpha1.GroupVersion.Group && gvk.Kind == v1alpha1.Kind && o.GetName() == v1alpha1.Name {
				return o
			}
		}
	}
	return nil
}
