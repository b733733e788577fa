// Package policy says what is done about what rules find: it reads an AdmissionPolicy, binds it to rules and mutators, and turns findings
// into decisions. It knows no front end.
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

// Action is what is done about a finding; Off < Audit < Warn < Deny.
type Action = validators.Action

// The actions, mildest first.
const (
	Off   = validators.ActionOff
	Audit = validators.ActionAudit
	Warn  = validators.ActionWarn
	Deny  = validators.ActionDeny
)

// weight orders the actions.
func weight(a Action) int {
	switch a {
	case Off:
		return 0
	case Audit:
		return 1
	case Warn:
		return 2
	case Deny:
		return 3
	}
	return 0
}

// atMost returns the milder of two actions.
func atMost(a, limit Action) Action {
	if weight(a) > weight(limit) {
		return limit
	}
	return a
}

// Policy is an AdmissionPolicy bound to rules and mutators. It is immutable and safe for concurrent use.
type Policy struct {
	auditOnly  bool
	ratchet    bool
	onError    Action
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
	action, onUnknown Action
	listed            bool
}

type override struct {
	selector labels.Selector
	rules    map[string]bool
	action   Action
}

type exemption struct {
	rules                    map[string]bool
	kinds, namespaces, names []string
	selector                 labels.Selector
	reason                   string
	expires                  time.Time // zero: never
}

// Shipped returns the policy that ships with the program.
func Shipped() (*v1alpha1.AdmissionPolicy, error) {
	return Parse("the policy that ships", manifests.DefaultPolicy)
}

// Compile binds a policy that Parse returned to rules and mutators. Clock tells the time, for exemptions that expire; nil is the system's. The
// error names every field that cannot be used.
func Compile(p *v1alpha1.AdmissionPolicy, suite *validators.Suite, muts *mutators.Set, clock func() time.Time) (*Policy, error) {
	if clock == nil {
		clock = time.Now
	}
	out := &Policy{
		auditOnly: p.Spec.Mode == v1alpha1.AuditOnly,
		ratchet:   p.Spec.Ratchet != v1alpha1.Disabled,
		onError:   answerAction(p.Spec.OnError),
		rules:     map[string]ruleSettings{},
		mutated:   map[schema.GroupKind]bool{},
		all:       suite.Rules(),
		clock:     clock,
	}
	params, errs := out.bindRules(p.Spec.Rules)
	errs = append(errs, out.bindOverrides(p.Spec.Overrides)...)
	errs = append(errs, out.bindExceptions(p.Spec.Exemptions)...)
	settings, mutationErrs := bindMutations(p.Spec.Mutations, muts)
	errs = append(errs, mutationErrs...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	out.suite = suite.Bind(params, func(m *validators.Meta) bool { return out.loudest(m.Name) != Off })
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
			errs = append(errs, fmt.Errorf("spec.rules.%s: no such rule%s", name, suggestion(name, p.names())))
		}
	}
	return params, errs
}

func bindRule(m *validators.Meta, raw apiextensionsv1.JSON, listed bool) (ruleSettings, any, error) {
	s := ruleSettings{action: m.DefaultAction(), onUnknown: Audit, listed: listed}
	var typed any
	if m.Params != nil {
		typed = m.Params()
	}
	if !listed {
		// A rule that the policy's author has not heard of must not begin to refuse by itself.
		s.action = atMost(s.action, Warn)
	} else {
		fields := map[string]json.RawMessage{}
		if err := json.Unmarshal(raw.Raw, &fields); err != nil {
			return s, nil, fmt.Errorf("settings: not an object: %w", err)
		}
		var common v1alpha1.RuleSettings
		if err := json.Unmarshal(raw.Raw, &common); err != nil {
			return s, nil, fmt.Errorf("action: %w", err)
		}
		if common.Action != "" {
			s.action = Action(common.Action)
		}
		s.onUnknown = answerAction(common.OnUnknown)
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
			errs = append(errs, fmt.Errorf("spec.mutations.%s: no such mutation%s", name, suggestion(name, names)))
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
		p.overrides = append(p.overrides, override{selector, set, Action(o.Action)})
	}
	return errs
}

func (p *Policy) bindExceptions(list []v1alpha1.Exemption) (errs []error) {
	for i, e := range list {
		at := fmt.Sprintf("spec.exemptions[%d]", i)
		x := exemption{kinds: e.Match.Kinds, namespaces: e.Match.Namespaces, names: e.Match.Names, reason: e.Reason}
		if strings.TrimSpace(e.Reason) == "" {
			errs = append(errs, fmt.Errorf("%s.reason: must say why", at))
		}
		if len(x.kinds)+len(x.namespaces)+len(x.names) == 0 && e.Match.Selector == nil {
			errs = append(errs, fmt.Errorf("%s.match: must select by at least one of kinds, namespaces, names, selector", at))
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
		if !slices.Contains(p.names(), n) {
			errs = append(errs, fmt.Errorf("%s[%d]: no such rule: %q%s", at, i, n, suggestion(n, p.names())))
		}
		set[n] = true
	}
	return set, errs
}

func (p *Policy) names() []string {
	names := make([]string, 0, len(p.all))
	for _, m := range p.all {
		names = append(names, m.Name)
	}
	return names
}

// loudest is the strongest action that the rule has anywhere.
func (p *Policy) loudest(rule string) Action {
	a := p.rules[rule].action
	for _, o := range p.overrides {
		if o.rules[rule] && weight(o.action) > weight(a) {
			a = o.action
		}
	}
	return a
}

func answerAction(a v1alpha1.Answer) Action {
	switch a {
	case v1alpha1.AnswerDeny:
		return Deny
	case v1alpha1.AnswerWarn:
		return Warn
	case v1alpha1.AnswerAllow:
		return Audit
	}
	return Audit
}

// Handles tells whether any rule or mutator that the policy has switched on looks at the kind.
func (p *Policy) Handles(gk schema.GroupKind) bool { return p.suite.Handles(gk) || p.mutated[gk] }

// Mutates tells whether a mutator that the policy has settings for looks at the kind.
func (p *Policy) Mutates(gk schema.GroupKind) bool { return p.mutated[gk] }

// OnError is what to do about an object that could not be evaluated at all, by any rule.
func (p *Policy) OnError() Action { return p.cap(p.onError) }

// AuditOnly tells whether the policy refuses nothing, whatever is found.
func (p *Policy) AuditOnly() bool { return p.auditOnly }

// Rules returns which rules run, with their actions, and which do not, and why; both in the order of the suite.
func (p *Policy) Rules() (active []v1alpha1.ActiveRule, inactive []v1alpha1.InactiveRule) {
	for _, m := range p.all {
		s := p.rules[m.Name]
		if p.loudest(m.Name) == Off {
			inactive = append(inactive, v1alpha1.InactiveRule{Name: m.Name, Reason: "its action is Off"})
			continue
		}
		action := s.action
		if p.auditOnly {
			action = atMost(action, Audit)
		}
		active = append(active, v1alpha1.ActiveRule{Name: m.Name, Action: v1alpha1.Action(action)})
	}
	return active, inactive
}

// Notes are things about the policy that its author may want to know: exemptions that have expired, rules that it does not name.
func (p *Policy) Notes() []string {
	var notes []string
	for i, e := range p.exemptions {
		if !e.expires.IsZero() && !p.clock().Before(e.expires) {
			notes = append(notes, fmt.Sprintf("spec.exemptions[%d] expired at %s", i, e.expires.UTC().Format(time.RFC3339)))
		}
	}
	var unlisted []string
	for _, m := range p.all {
		if s := p.rules[m.Name]; !s.listed && weight(m.DefaultAction()) > weight(s.action) {
			unlisted = append(unlisted, m.Name)
		}
	}
	if len(unlisted) > 0 {
		notes = append(notes, "not named in spec.rules, so they only warn: "+strings.Join(unlisted, ", "))
	}
	return notes
}

// Evaluated returns the declarations of the rules that run, in the order of the suite.
func (p *Policy) Evaluated() []*validators.Meta { return p.suite.Rules() }
