package check

import (
	"fmt"
	"os"
	"slices"

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
		p, _, err := choosePolicy(file, nil, &kustomization.Result{})
		return p, err
	}
	parsed, err := policy.DefaultAt(stage, allRules())
	if err != nil {
		return nil, err
	}
	return compile(parsed, nil)
}

// choosePolicy returns the policy to check with: the file's, the tree's own, or the default policy with the default
// actions of a check. The actions are set in it, by the rule's name. Listed are the names of the rules that the file or
// the tree's policy lists.
func choosePolicy(
	file string, actions map[string]v1alpha1.Action, built *kustomization.Result,
) (compiled *policy.Policy, listed map[string]bool, err error) {
	var parsed *v1alpha1.AdmissionPolicy
	listed = map[string]bool{}
	switch own := policyOf(built); {
	case file != "":
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, nil, fmt.Errorf("--policy: %w", err)
		}
		if parsed, err = policy.Parse(file, data); err != nil {
			return nil, nil, err
		}
	case own != nil:
		data, err := own.MarshalJSON()
		if err != nil {
			return nil, nil, fmt.Errorf("reading the tree's AdmissionPolicy: %w", err)
		}
		if parsed, err = policy.ParseObject(data); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", own.Origin.File, err)
		}
	default:
		if parsed, err = policy.DefaultAt(validators.StageOffline, allRules()); err != nil {
			return nil, nil, err
		}
		compiled, err = compile(parsed, actions)
		return compiled, listed, err
	}
	for name := range parsed.Spec.Rules {
		listed[name] = true
	}
	policy.SetActions(parsed, validators.StageOffline, allRules())
	compiled, err = compile(parsed, actions)
	return compiled, listed, err
}

func allRules() []*validators.Meta {
	var out []*validators.Meta
	for _, r := range allvalidators.Rules() {
		out = append(out, &r.Meta)
	}
	return out
}

// actionsOf returns the actions of rules that the input sets itself, by the rule's name.
func actionsOf(in Input) (map[string]v1alpha1.Action, error) {
	names := map[string]string{}
	for _, m := range allRules() {
		names[m.ID] = m.Name
	}
	actions := map[string]v1alpha1.Action{}
	for _, set := range []struct {
		flag   string
		ids    []string
		action v1alpha1.Action
	}{{"skip", in.Skip, v1alpha1.ActionOff}, {"deny", in.Deny, v1alpha1.ActionDeny}, {"warn", in.Warn, v1alpha1.ActionWarn}} {
		for _, id := range set.ids {
			if other, ok := actions[names[id]]; ok && other != set.action {
				return nil, fmt.Errorf("--%s %s: another flag makes its action %s", set.flag, id, other)
			}
			actions[names[id]] = set.action
		}
	}
	if len(in.Only) == 0 {
		return actions, nil
	}
	for _, m := range allRules() {
		switch _, set := actions[m.Name]; {
		case slices.Contains(in.Only, m.ID):
		case set:
			return nil, fmt.Errorf("--only leaves out the rule %s, which another flag names", m.Name)
		default:
			actions[m.Name] = v1alpha1.ActionOff
		}
	}
	return actions, nil
}

func compile(parsed *v1alpha1.AdmissionPolicy, actions map[string]v1alpha1.Action) (*policy.Policy, error) {
	rules, err := validators.NewSuite(allvalidators.Rules()...)
	if err != nil {
		return nil, fmt.Errorf("building the suite of rules: %w", err)
	}
	mutations, err := mutators.NewSet(allmutators.Mutators()...)
	if err != nil {
		return nil, fmt.Errorf("building the set of mutators: %w", err)
	}
	return policy.CompileWith(parsed, actions, rules, mutations, nil)
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
