package policy

import (
	"fmt"
	"slices"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

// Flags are the flags of a command that set the actions of rules, each with IDs of rules.
type Flags struct {
	// Only are the rules to evaluate; all if there are none. Skip are those not to evaluate.
	Only, Skip []string
	// Deny and Warn are the rules whose findings have that action, whatever the policy has.
	Deny, Warn []string
}

// Actions returns the actions that the flags set, by the rule's name. The error names the flags that contradict each other.
func (f Flags) Actions(rules []*validators.Meta) (map[string]v1alpha1.Action, error) {
	names := map[string]string{}
	for _, m := range rules {
		names[m.ID] = m.Name
	}
	out := map[string]v1alpha1.Action{}
	for _, set := range []struct {
		flag   string
		ids    []string
		action v1alpha1.Action
	}{{"skip", f.Skip, v1alpha1.ActionOff}, {"deny", f.Deny, v1alpha1.ActionDeny}, {"warn", f.Warn, v1alpha1.ActionWarn}} {
		for _, id := range set.ids {
			if other, ok := out[names[id]]; ok && other != set.action {
				return nil, fmt.Errorf("--%s %s: another flag makes its action %s", set.flag, id, other)
			}
			out[names[id]] = set.action
		}
	}
	if len(f.Only) == 0 {
		return out, nil
	}
	for _, m := range rules {
		switch _, set := out[m.Name]; {
		case slices.Contains(f.Only, m.ID):
		case set:
			return nil, fmt.Errorf("--only leaves out the rule %s, which another flag names", m.Name)
		default:
			out[m.Name] = v1alpha1.ActionOff
		}
	}
	return out, nil
}
