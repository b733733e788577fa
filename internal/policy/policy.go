// Package policy parses an AdmissionPolicy, binds it to rules and mutators, and turns findings into decisions. It depends on no driver.
package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	sigsjson "sigs.k8s.io/json"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/manifests"
	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/validators"
)

// strictness orders the actions, mildest first.
func strictness(a v1alpha1.Action) int {
	switch a {
	case v1alpha1.ActionOff:
		return 0
	case v1alpha1.ActionAudit:
		return 1
	case v1alpha1.ActionWarn:
		return 2
	case v1alpha1.ActionDeny:
		return 3
	}
	return 0
}

// atMost returns the milder of two actions.
func atMost(a, limit v1alpha1.Action) v1alpha1.Action {
	if strictness(a) > strictness(limit) {
		return limit
	}
	return a
}

// Policy is an AdmissionPolicy bound to rules and mutators. It is immutable and safe for concurrent use.
type Policy struct {
	auditOnly  bool
	ratchet    bool
	onError    v1alpha1.Action
	rules      map[string]ruleSettings
	overrides  []override
	exemptions []exemption
	suite      *validators.Suite
	mutators   *mutators.Set
	mutated    map[schema.GroupKind]bool
	all        []*validators.Meta
	clock      func() time.Time
}

type ruleSettings struct {
	action, onUnknown v1alpha1.Action
	listed            bool
}

type override struct {
	selector labels.Selector
	rules    map[string]bool
	action   v1alpha1.Action
}

type exemption struct {
	rules                    map[string]bool
	kinds, namespaces, names []string
	selector                 labels.Selector
	reason                   string
	expires                  time.Time // zero: never
}

// Default returns the default policy, which is built into the program.
func Default() (*v1alpha1.AdmissionPolicy, error) {
	return Parse("the default policy", manifests.DefaultPolicy)
}

// DefaultAt returns the default policy with the actions that the rules have by default at a stage.
func DefaultAt(stage validators.Stage, rules []*validators.Meta) (*v1alpha1.AdmissionPolicy, error) {
	p, err := Default()
	if err != nil {
		return nil, err
	}
	for _, m := range rules {
		action := m.DefaultAt(stage)
		if action == "" {
			continue
		}
		settings := map[string]any{}
		if raw, ok := p.Spec.Rules[m.Name]; ok {
			if err := json.Unmarshal(raw.Raw, &settings); err != nil {
				return nil, fmt.Errorf("the default policy's settings of rule %s: %w", m.Name, err)
			}
		}
		settings["action"] = action
		raw, err := json.Marshal(settings)
		if err != nil {
			return nil, fmt.Errorf("the default policy's settings of rule %s: %w", m.Name, err)
		}
		p.Spec.Rules[m.Name] = apiextensionsv1.JSON{Raw: raw}
	}
	return p, nil
}

// Compile binds a policy that Parse returned to rules and mutators. The clock decides whether an exemption has expired; nil is the system's
// clock. The error names every invalid field.
func Compile(p *v1alpha1.AdmissionPolicy, suite *validators.Suite, muts *mutators.Set, clock func() time.Time) (*Policy, error) {
	if clock == nil {
		clock = time.Now
	}
	out := &Policy{
		auditOnly: p.Spec.Mode == v1alpha1.ModeAuditOnly,
		ratchet:   p.Spec.Ratchet != v1alpha1.RatchetDisabled,
		onError:   failureAction(p.Spec.OnError),
		rules:     map[string]ruleSettings{},
		mutated:   map[schema.GroupKind]bool{},
		all:       suite.Rules(),
		clock:     clock,
	}
	params, errs := out.bindRules(p.Spec.Rules)
	errs = append(errs, out.bindOverrides(p.Spec.Overrides)...)
	errs = append(errs, out.bindExemptions(p.Spec.Exemptions)...)
	settings, mutationErrs := bindMutations(p.Spec.Mutations, muts)
	errs = append(errs, mutationErrs...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	out.suite = suite.Bind(params, func(m *validators.Meta) bool { return out.strictest(m.Name) != v1alpha1.ActionOff })
	out.mutators = muts.Bind(settings)
	for _, m := range out.mutators.Mutators() {
		for _, gk := range m.Kinds {
			out.mutated[gk] = true
		}
	}
	return out, nil
}

func (p *Policy) bindRules(rules map[string]apiextensionsv1.JSON) (params map[string]any, errs []error) {
	params = map[string]any{}
	for _, m := range p.all {
		raw, listed := rules[m.Name]
		s, typed, err := bindRule(m, raw, listed)
		if err != nil {
			errs = append(errs, fmt.Errorf("spec.rules.%s.%w", m.Name, err))
			continue
		}
		p.rules[m.Name] = s
		if typed != nil {
			params[m.Name] = typed
		}
	}
	for name := range rules {
		if _, known := p.rules[name]; !known && !slices.ContainsFunc(p.all, func(m *validators.Meta) bool { return m.Name == name }) {
			errs = append(errs, fmt.Errorf("spec.rules.%s: unknown rule%s", name, suggestion(name, p.ruleNames())))
		}
	}
	return params, errs
}

func bindRule(m *validators.Meta, raw apiextensionsv1.JSON, listed bool) (ruleSettings, any, error) {
	s := ruleSettings{action: m.DefaultAction(), onUnknown: v1alpha1.ActionAudit, listed: listed}
	var typed any
	if m.Params != nil {
		typed = m.Params()
	}
	if !listed {
		// A rule that the policy's author may not know yet must not start to deny.
		s.action = atMost(s.action, v1alpha1.ActionWarn)
	} else {
		fields := map[string]json.RawMessage{}
		if err := json.Unmarshal(raw.Raw, &fields); err != nil {
			return s, nil, fmt.Errorf("settings: must be an object: %w", err)
		}
		var common v1alpha1.RuleSettings
		if err := json.Unmarshal(raw.Raw, &common); err != nil {
			return s, nil, fmt.Errorf("action: %w", err)
		}
		if common.Action != "" {
			s.action = common.Action
		}
		s.onUnknown = failureAction(common.OnUnknown)
		delete(fields, "action")
		delete(fields, "onUnknown")
		if err := decodeParams(fields, typed); err != nil {
			return s, nil, err
		}
	}
	return s, typed, compileSettings(typed)
}

func decodeParams(fields map[string]json.RawMessage, typed any) error {
	if typed == nil {
		typed = &struct{}{}
	}
	rest, err := json.Marshal(fields)
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	strict, err := sigsjson.UnmarshalStrict(rest, typed)
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	if len(strict) > 0 {
		return fmt.Errorf("settings: %w", errors.Join(strict...))
	}
	return nil
}

func compileSettings(typed any) error {
	if c, ok := typed.(validators.Compiler); ok {
		return c.Compile()
	}
	return nil
}

func bindMutations(mutations map[string]apiextensionsv1.JSON, muts *mutators.Set) (settings map[string]any, errs []error) {
	settings = map[string]any{}
	var names []string
	for _, m := range muts.Mutators() {
		names = append(names, m.Name)
		raw, ok := mutations[m.Name]
		if !ok {
			continue
		}
		typed := m.Settings()
		if strict, err := sigsjson.UnmarshalStrict(raw.Raw, typed); err != nil || len(strict) > 0 {
			errs = append(errs, fmt.Errorf("spec.mutations.%s: %w", m.Name, errors.Join(append(strict, err)...)))
			continue
		}
		if err := compileSettings(typed); err != nil {
			errs = append(errs, fmt.Errorf("spec.mutations.%s%w", m.Name, err))
			continue
		}
		settings[m.Name] = typed
	}
	for name := range mutations {
		if !slices.Contains(names, name) {
			errs = append(errs, fmt.Errorf("spec.mutations.%s: unknown mutation%s", name, suggestion(name, names)))
		}
	}
	return settings, errs
}

func (p *Policy) bindOverrides(list []v1alpha1.Override) (errs []error) {
	for i, o := range list {
		selector, err := metav1.LabelSelectorAsSelector(&o.NamespaceSelector)
		if err != nil {
			errs = append(errs, fmt.Errorf("spec.overrides[%d].namespaceSelector: %w", i, err))
			continue
		}
		set, setErrs := p.ruleSet(fmt.Sprintf("spec.overrides[%d].rules", i), o.Rules)
		errs = append(errs, setErrs...)
		p.overrides = append(p.overrides, override{selector, set, o.Action})
	}
	return errs
}

func (p *Policy) bindExemptions(list []v1alpha1.Exemption) (errs []error) {
	for i, e := range list {
		at := fmt.Sprintf("spec.exemptions[%d]", i)
		x := exemption{kinds: e.Match.Kinds, namespaces: e.Match.Namespaces, names: e.Match.Names, reason: e.Reason}
		if strings.TrimSpace(e.Reason) == "" {
			errs = append(errs, fmt.Errorf("%s.reason: must not be blank", at))
		}
		if len(x.kinds)+len(x.namespaces)+len(x.names) == 0 && e.Match.Selector == nil {
			errs = append(errs, fmt.Errorf("%s.match: must set at least one of kinds, namespaces, names, selector", at))
		}
		if e.Match.Selector != nil {
			selector, err := metav1.LabelSelectorAsSelector(e.Match.Selector)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s.match.selector: %w", at, err))
			}
			x.selector = selector
		}
		if e.Expires != nil {
			x.expires = e.Expires.Time
		}
		set, setErrs := p.ruleSet(at+".rules", e.Rules)
		x.rules = set
		errs = append(errs, setErrs...)
		p.exemptions = append(p.exemptions, x)
	}
	return errs
}

func (p *Policy) ruleSet(at string, names []string) (set map[string]bool, errs []error) {
	set = map[string]bool{}
	for i, n := range names {
		if !slices.Contains(p.ruleNames(), n) {
			errs = append(errs, fmt.Errorf("%s[%d]: unknown rule %q%s", at, i, n, suggestion(n, p.ruleNames())))
		}
		set[n] = true
	}
	return set, errs
}

func (p *Policy) ruleNames() []string {
	names := make([]string, 0, len(p.all))
	for _, m := range p.all {
		names = append(names, m.Name)
	}
	return names
}

// strictest returns the strictest action that the rule has in any namespace.
func (p *Policy) strictest(rule string) v1alpha1.Action {
	a := p.rules[rule].action
	for _, o := range p.overrides {
		if o.rules[rule] && strictness(o.action) > strictness(a) {
			a = o.action
		}
	}
	return a
}

// failureAction returns the action with the same effect; Allow still records the failure.
func failureAction(a v1alpha1.FailureAction) v1alpha1.Action {
	switch a {
	case v1alpha1.FailureActionDeny:
		return v1alpha1.ActionDeny
	case v1alpha1.FailureActionWarn:
		return v1alpha1.ActionWarn
	case v1alpha1.FailureActionAllow:
		return v1alpha1.ActionAudit
	}
	return v1alpha1.ActionAudit
}

// Handles reports whether an enabled rule or mutator applies to the kind.
func (p *Policy) Handles(gk schema.GroupKind) bool { return p.suite.Handles(gk) || p.mutated[gk] }

// Mutates reports whether an enabled mutator applies to the kind.
func (p *Policy) Mutates(gk schema.GroupKind) bool { return p.mutated[gk] }

// OnError returns the action for an object that no rule could evaluate.
func (p *Policy) OnError() v1alpha1.Action { return p.capped(p.onError) }

// AuditOnly reports whether the policy only records findings.
func (p *Policy) AuditOnly() bool { return p.auditOnly }

// Rules returns the active rules with their actions and the inactive ones with the reasons, both in the order of the suite.
func (p *Policy) Rules() (active []v1alpha1.ActiveRule, inactive []v1alpha1.InactiveRule) {
	for _, m := range p.all {
		s := p.rules[m.Name]
		if p.strictest(m.Name) == v1alpha1.ActionOff {
			inactive = append(inactive, v1alpha1.InactiveRule{Name: m.Name, Reason: "its action is Off"})
			continue
		}
		active = append(active, v1alpha1.ActiveRule{Name: m.Name, Action: p.capped(s.action)})
	}
	return active, inactive
}

// Warnings returns what the author of the policy may want to change: expired exemptions, and rules that the policy does not list.
func (p *Policy) Warnings() []string {
	var warnings []string
	for i, e := range p.exemptions {
		if !e.expires.IsZero() && !p.clock().Before(e.expires) {
			warnings = append(warnings, fmt.Sprintf("spec.exemptions[%d] expired at %s", i, e.expires.UTC().Format(time.RFC3339)))
		}
	}
	var unlisted []string
	for _, m := range p.all {
		if s := p.rules[m.Name]; !s.listed && strictness(m.DefaultAction()) > strictness(s.action) {
			unlisted = append(unlisted, m.Name)
		}
	}
	if len(unlisted) > 0 {
		warnings = append(warnings, "rules not listed in spec.rules are limited to Warn: "+strings.Join(unlisted, ", "))
	}
	return warnings
}

// Evaluated returns the metadata of the active rules, in the order of the suite.
func (p *Policy) Evaluated() []*validators.Meta { return p.suite.Rules() }
