package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/suggest"
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
	return compile(parsed)
}

// choosePolicy returns the policy to check with: the file's, the tree's own, or the default policy with the default
// actions of a check. The actions are set in it, by the rule's name.
func choosePolicy(
	file string, actions map[string]v1alpha1.Action, built *kustomization.Result,
) (compiled *policy.Policy, isDefault bool, err error) {
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
	policy.SetActions(parsed, validators.StageOffline, allRules())
	if err := setActions(parsed, actions); err != nil {
		return nil, false, err
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

// actionsOf returns the actions of rules that the input sets itself, by the rule's name.
func actionsOf(in Input) (map[string]v1alpha1.Action, error) {
	actions := map[string]v1alpha1.Action{}
	set := func(flag string, names []string, action v1alpha1.Action) error {
		for _, name := range names {
			rule, err := ruleNamed(name)
			if err != nil {
				return fmt.Errorf("--%s: %w", flag, err)
			}
			if other, ok := actions[rule]; ok && other != action {
				return fmt.Errorf("--%s %s: another flag makes its action %s", flag, name, other)
			}
			actions[rule] = action
		}
		return nil
	}
	if err := errors.Join(
		set("skip", in.Skip, v1alpha1.ActionOff), set("deny", in.Deny, v1alpha1.ActionDeny), set("warn", in.Warn, v1alpha1.ActionWarn),
	); err != nil {
		return nil, err
	}
	if len(in.Only) == 0 {
		return actions, nil
	}
	only := map[string]bool{}
	for _, name := range in.Only {
		rule, err := ruleNamed(name)
		if err != nil {
			return nil, fmt.Errorf("--only: %w", err)
		}
		only[rule] = true
	}
	for _, m := range allRules() {
		switch _, set := actions[m.Name]; {
		case only[m.Name]:
		case set:
			return nil, fmt.Errorf("--only leaves out the rule %s, which another flag names", m.Name)
		default:
			actions[m.Name] = v1alpha1.ActionOff
		}
	}
	return actions, nil
}

// setActions sets the actions of rules in a policy, everywhere in the cluster.
func setActions(p *v1alpha1.AdmissionPolicy, actions map[string]v1alpha1.Action) error {
	for rule, action := range actions {
		settings := map[string]any{}
		if raw, ok := p.Spec.Rules[rule]; ok {
			if err := json.Unmarshal(raw.Raw, &settings); err != nil {
				return fmt.Errorf("the policy's settings of rule %s: %w", rule, err)
			}
		}
		settings["action"] = action
		raw, err := json.Marshal(settings)
		if err != nil {
			return fmt.Errorf("the policy's settings of rule %s: %w", rule, err)
		}
		if p.Spec.Rules == nil {
			p.Spec.Rules = map[string]apiextensionsv1.JSON{}
		}
		p.Spec.Rules[rule] = apiextensionsv1.JSON{Raw: raw}
	}
	for i := range p.Spec.Overrides {
		o := &p.Spec.Overrides[i]
		o.Rules = slices.DeleteFunc(slices.Clone(o.Rules), func(rule string) bool { _, set := actions[rule]; return set })
	}
	p.Spec.Overrides = slices.DeleteFunc(p.Spec.Overrides, func(o v1alpha1.Override) bool { return len(o.Rules) == 0 })
	return nil
}

// ruleNamed returns the name of the rule with a name or ID.
func ruleNamed(name string) (string, error) {
	var known []string
	for _, m := range allRules() {
		if m.Name == name || strings.EqualFold(m.ID, name) {
			return m.Name, nil
		}
		known = append(known, m.Name, m.ID)
	}
	if near := suggest.Nearest(name, known); near != "" {
		return "", fmt.Errorf("unknown rule %q; did you mean %s?", name, near)
	}
	return "", fmt.Errorf("unknown rule %q; `flux-admission rules` lists them", name)
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
