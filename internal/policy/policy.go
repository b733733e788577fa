// Package policy parses an AdmissionPolicy, binds it to rules and mutators, and turns findings into decisions. It depends on no driver.
package policy

import (
	"bytes"
	_ "embed" // the default policy
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	sigsjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/match"
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

// atLeast returns the stricter one of two actions.
func atLeast(a, b v1alpha1.Action) v1alpha1.Action {
	if strictness(a) < strictness(b) {
		return b
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
	// byLabel reports whether an override or exemption selects namespaces by label.
	byLabel  bool
	suite    *validators.Suite
	mutators *mutators.Set
	mutated  map[schema.GroupKind]bool
	all      []*validators.Meta
	// newer are the rules that are limited to Warn, because neither the rules nor the ruleset of the policy include them.
	newer []string
	// invalid are the reasons why rules are off that the policy does not turn off, by rule.
	invalid map[string]string
	clock   func() time.Time
}

type ruleSettings struct {
	action, onUnknown v1alpha1.Action
}

type override struct {
	selector   labels.Selector // nil: unusable, so that it may select every namespace
	namespaces []string        // patterns; empty: every namespace
	rules      map[string]bool
	action     v1alpha1.Action
}

type exemption struct {
	rules                    map[string]bool
	kinds, namespaces, names []string
	selector                 labels.Selector // of the labels of the namespace; nil for none
	paths, clusters          []string        // of a Git tree
	at, reason               string
	expires                  time.Time // zero: never
}

// defaultPolicy is manifests.DefaultPolicy with the defaults of the CRD, as JSON.
//
//go:embed default.json
var defaultPolicy []byte

// Default returns the default policy, which is built into the program: what Parse returns for manifests.DefaultPolicy,
// without compiling the CRD.
func Default() (*v1alpha1.AdmissionPolicy, error) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, defaultPolicy); err != nil {
		return nil, fmt.Errorf("the default policy: %w", err)
	}
	p := &v1alpha1.AdmissionPolicy{}
	if err := json.Unmarshal(compact.Bytes(), p); err != nil {
		return nil, fmt.Errorf("the default policy: %w", err)
	}
	return p, nil
}

// DefaultSpec returns the spec of the default policy, for Read.
func DefaultSpec() (map[string]any, error) {
	var object struct {
		Spec map[string]any `json:"spec"`
	}
	if err := yaml.Unmarshal(manifests.DefaultPolicy, &object); err != nil {
		return nil, fmt.Errorf("the default policy: %w", err)
	}
	return object.Spec, nil
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

// SetActions sets the action of each rule that the policy does not list to the rule's default action at a stage.
func SetActions(p *v1alpha1.AdmissionPolicy, stage validators.Stage, rules []*validators.Meta) {
	for _, m := range rules {
		_, listed := p.Spec.Rules[m.Name]
		if action := m.DefaultAt(stage); !listed && action != "" {
			if p.Spec.Rules == nil {
				p.Spec.Rules = map[string]apiextensionsv1.JSON{}
			}
			p.Spec.Rules[m.Name] = apiextensionsv1.JSON{Raw: []byte(`{"action":"` + string(action) + `"}`)}
		}
	}
}

// Compile binds a policy that Parse returned to rules and mutators. The clock decides whether an exemption has expired; nil is the system's
// clock. The error names every invalid field.
func Compile(p *v1alpha1.AdmissionPolicy, suite *validators.Suite, muts *mutators.Set, clock func() time.Time) (*Policy, error) {
	return CompileWith(p, nil, suite, muts, clock)
}

// CompileWith is Compile with actions that rules have in every namespace, by the rule's name, whatever the policy has for them. The
// mode still limits them.
func CompileWith(
	p *v1alpha1.AdmissionPolicy, actions map[string]v1alpha1.Action, suite *validators.Suite, muts *mutators.Set, clock func() time.Time,
) (*Policy, error) {
	b := newBuilder(suite, clock)
	b.actions = actions
	b.build(p.Spec, muts)
	if len(b.issues) > 0 {
		errs := make([]error, 0, len(b.issues))
		for _, i := range b.issues {
			errs = append(errs, &fieldError{path: i.at, text: i.text})
		}
		return nil, errors.Join(errs...)
	}
	return b.out, nil
}

// issue is a part of a policy that cannot be used as it is.
type issue struct {
	// at is the field that the text is about; empty for the policy as a whole.
	at   validators.Path
	text string
	// effect is what applies instead.
	effect string
	// harmless issues change nothing that another version of the program or a valid policy would do: names and fields that are not known.
	harmless bool
}

// builder binds the parts of a policy, and collects the issues of all of them. A part with an issue gets the mildest settings that its author may
// have meant.
type builder struct {
	out    *Policy
	issues []issue
	// actions are those of CompileWith.
	actions map[string]v1alpha1.Action
	// unusable are the reasons why parts cannot be bound, found before binding, by part: "rules.kustomization-namespace".
	unusable map[string]string
	// last returns the settings of a rule or mutation that were last in force, to use in place of unusable ones; nil for none.
	last func(section, name string) (raw apiextensionsv1.JSON, ok bool)
	// replaced are the parts whose settings cannot be used, and whether the last ones are in force instead.
	replaced map[string]bool
}

func newBuilder(suite *validators.Suite, clock func() time.Time) *builder {
	if clock == nil {
		clock = time.Now
	}
	return &builder{out: &Policy{
		rules: map[string]ruleSettings{}, invalid: map[string]string{}, mutated: map[schema.GroupKind]bool{}, suite: suite, all: suite.Rules(), clock: clock,
	}, replaced: map[string]bool{}}
}

// problem records what cannot be used, and what applies instead.
func (b *builder) problem(at validators.Path, effect, format string, args ...any) {
	b.issues = append(b.issues, issue{at: at, text: fmt.Sprintf(format, args...), effect: effect})
}

func (b *builder) note(at validators.Path, format string, args ...any) {
	b.issues = append(b.issues, issue{at: at, text: fmt.Sprintf(format, args...), harmless: true})
}

func (b *builder) build(spec v1alpha1.AdmissionPolicySpec, muts *mutators.Set) {
	p := b.out
	p.auditOnly = spec.Mode == v1alpha1.ModeAuditOnly
	p.ratchet = spec.Ratchet != v1alpha1.RatchetDisabled
	p.onError = failureAction(spec.OnError)
	params := b.bindRules(spec.Rules)
	b.limitNewer(spec)
	for i, o := range spec.Overrides {
		b.bindOverride(validators.NewPath("spec", "overrides").Index(i), o)
	}
	for i, e := range spec.Exemptions {
		b.bindExemption(validators.NewPath("spec", "exemptions").Index(i), e)
	}
	b.setActions()
	settings := b.bindMutations(spec.Mutations, muts)
	p.suite = p.suite.Bind(params, func(m *validators.Meta) bool { return p.strictest(m.Name) != v1alpha1.ActionOff })
	p.mutators = muts.Bind(settings)
	for _, m := range p.mutators.Mutators() {
		for _, gk := range m.Kinds {
			p.mutated[gk] = true
		}
	}
}

// setActions sets the actions of CompileWith, and takes the rules out of all overrides.
func (b *builder) setActions() {
	for name, action := range b.actions {
		s := b.out.rules[name]
		s.action = action
		b.out.rules[name] = s
		for _, o := range b.out.overrides {
			delete(o.rules, name)
		}
	}
}

func (b *builder) bindRules(rules map[string]apiextensionsv1.JSON) (params map[string]any) {
	params = map[string]any{}
	for _, m := range b.out.all {
		raw, listed := rules[m.Name]
		s, typed, err := b.bindRule(m, raw, listed)
		if err != nil {
			s, typed = b.replaceRule(m, raw, err)
		}
		b.out.rules[m.Name] = s
		if typed != nil {
			params[m.Name] = typed
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		if _, known := b.out.rules[name]; !known {
			at := validators.NewPath("spec", "rules", name)
			b.note(at, "%s: unknown rule%s", at, b.suggestRule(name))
		}
	}
	return params
}

func (b *builder) bindRule(m *validators.Meta, raw apiextensionsv1.JSON, listed bool) (ruleSettings, any, error) {
	if reason := b.unusable["rules."+m.Name]; reason != "" {
		return ruleSettings{}, nil, errors.New(reason)
	}
	s, typed, err := bindRule(m, raw, listed)
	if err != nil {
		err = fmt.Errorf("spec.rules.%s.%w", m.Name, err)
	}
	return s, typed, err
}

// replaceRule returns settings in place of those that cannot be used: the rule's last ones, but never a stricter action than the policy has for it,
// or else the rule is off.
func (b *builder) replaceRule(m *validators.Meta, raw apiextensionsv1.JSON, cause error) (ruleSettings, any) {
	var common struct {
		Action v1alpha1.Action `json:"action"`
	}
	_ = json.Unmarshal(raw.Raw, &common) // an action that cannot be read limits nothing
	at := validators.NewPath("spec", "rules", m.Name)
	if b.last != nil {
		if lastRaw, ok := b.last("rules", m.Name); ok {
			if s, typed, err := bindRule(m, lastRaw, true); err == nil {
				if slices.Contains(actions, common.Action) {
					s.action = atMost(s.action, common.Action)
				}
				b.problem(at, "the rule keeps its last valid settings, with action "+string(s.action), "%v", cause)
				b.replaced["rules."+m.Name] = true
				return s, typed
			}
		}
	}
	b.problem(at, "the rule is off", "%v", cause)
	b.replaced["rules."+m.Name] = false
	b.out.invalid[m.Name] = "its settings are invalid"
	return ruleSettings{action: v1alpha1.ActionOff, onUnknown: v1alpha1.ActionAudit}, nil
}

// limitNewer limits the rules to Warn that the policy does not list and that came after its ruleset: its author may not know them.
func (b *builder) limitNewer(spec v1alpha1.AdmissionPolicySpec) {
	if spec.Ruleset == "" {
		return
	}
	ruleset, err := semver.NewVersion(spec.Ruleset)
	if err != nil {
		ruleset = semver.New(0, 0, 0, "", "")
		at := validators.NewPath("spec", "ruleset")
		b.problem(at, "rules that the policy does not list are limited to Warn", "%s: %q is not a release such as %s", at, spec.Ruleset, Ruleset(b.out.all))
	}
	for _, m := range b.out.all {
		if _, listed := spec.Rules[m.Name]; listed {
			continue
		}
		since, err := semver.NewVersion(m.Doc.Since)
		s := b.out.rules[m.Name]
		if err != nil || !since.GreaterThan(ruleset) || strictness(s.action) <= strictness(v1alpha1.ActionWarn) {
			continue
		}
		s.action = v1alpha1.ActionWarn
		b.out.rules[m.Name] = s
		b.out.newer = append(b.out.newer, m.Name)
	}
}

// Newer returns the rules that are limited to Warn, because the policy neither lists them nor has a ruleset that includes them.
func (p *Policy) Newer() []string { return p.newer }

// LimitNew limits the rules to Warn, in the spec of a policy without overrides, that are evaluated at admission and whose names are not known. It
// returns their names.
func LimitNew(spec map[string]any, known []string, rules []*validators.Meta) (limited []string, err error) {
	settings := map[string]any{}
	if spec["rules"] != nil {
		var ok bool
		if settings, ok = spec["rules"].(map[string]any); !ok {
			return nil, errors.New("spec.rules: must be an object")
		}
	}
	spec["rules"] = settings
	for _, m := range rules {
		rule, _ := settings[m.Name].(map[string]any)
		action, ok := rule["action"].(string)
		if !ok {
			action = string(m.DefaultAction())
		}
		if !m.Stages.Has(validators.StageAdmission) || slices.Contains(known, m.Name) || strictness(v1alpha1.Action(action)) <= strictness(v1alpha1.ActionWarn) {
			continue
		}
		if rule == nil {
			rule = map[string]any{}
			settings[m.Name] = rule
		}
		rule["action"] = string(v1alpha1.ActionWarn)
		limited = append(limited, m.Name)
	}
	return limited, nil
}

// Ruleset returns the release of the newest of the rules.
func Ruleset(rules []*validators.Meta) string {
	newest := semver.New(0, 0, 0, "", "")
	for _, m := range rules {
		if since, err := semver.NewVersion(m.Doc.Since); err == nil && since.GreaterThan(newest) {
			newest = since
		}
	}
	return "v" + newest.String()
}

// actions are the actions of rules, mildest first.
var actions = []v1alpha1.Action{v1alpha1.ActionOff, v1alpha1.ActionAudit, v1alpha1.ActionWarn, v1alpha1.ActionDeny}

func bindRule(m *validators.Meta, raw apiextensionsv1.JSON, listed bool) (ruleSettings, any, error) {
	s := ruleSettings{action: m.DefaultAction(), onUnknown: v1alpha1.ActionAudit}
	var typed any
	if m.Params != nil {
		typed = m.Params()
	}
	if listed {
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

func (b *builder) bindMutations(mutations map[string]apiextensionsv1.JSON, muts *mutators.Set) (settings map[string]any) {
	settings = map[string]any{}
	var names []string
	for _, m := range muts.Mutators() {
		names = append(names, m.Name)
		raw, ok := mutations[m.Name]
		reason := b.unusable["mutations."+m.Name]
		if !ok && reason == "" {
			continue
		}
		typed, err := bindMutation(m, raw)
		if reason != "" {
			err = errors.New(reason)
		}
		if err != nil {
			typed = b.replaceMutation(m, err)
		}
		if typed != nil {
			settings[m.Name] = typed
		}
	}
	for _, name := range slices.Sorted(maps.Keys(mutations)) {
		if !slices.Contains(names, name) {
			at := validators.NewPath("spec", "mutations", name)
			b.note(at, "%s: unknown mutation%s", at, suggestion(name, names))
		}
	}
	return settings
}

func bindMutation(m *mutators.Mutator, raw apiextensionsv1.JSON) (any, error) {
	typed := m.Settings()
	if strict, err := sigsjson.UnmarshalStrict(raw.Raw, typed); err != nil || len(strict) > 0 {
		return nil, fmt.Errorf("spec.mutations.%s: %w", m.Name, errors.Join(append(strict, err)...))
	}
	if err := compileSettings(typed); err != nil {
		return nil, fmt.Errorf("spec.mutations.%s%w", m.Name, err)
	}
	return typed, nil
}

func (b *builder) replaceMutation(m *mutators.Mutator, cause error) any {
	at := validators.NewPath("spec", "mutations", m.Name)
	if b.last != nil {
		if raw, ok := b.last("mutations", m.Name); ok {
			if typed, err := bindMutation(m, raw); err == nil {
				b.problem(at, "the mutation keeps its last valid settings", "%v", cause)
				b.replaced["mutations."+m.Name] = true
				return typed
			}
		}
	}
	b.problem(at, "the mutation is off", "%v", cause)
	b.replaced["mutations."+m.Name] = false
	return nil
}

func (b *builder) bindOverride(at validators.Path, o v1alpha1.Override) {
	b.namespaces(at.Child("namespaces"), o.Namespaces)
	selector := labels.Everything()
	switch {
	case o.NamespaceSelector != nil:
		b.out.byLabel = true
		var err error
		if selector, err = metav1.LabelSelectorAsSelector(o.NamespaceSelector); err != nil {
			at := at.Child("namespaceSelector")
			b.problem(at, "in every namespace, the milder of the actions applies", "%s: %v", at, err)
			selector = nil
		}
	case len(o.Namespaces) == 0:
		b.problem(at, "in every namespace, the milder of the actions applies", "%s: must set namespaces, namespaceSelector or both", at)
		selector = nil
	}
	set, _ := b.ruleSet(at.Child("rules"), o.Rules)
	b.out.overrides = append(b.out.overrides, override{selector, o.Namespaces, set, o.Action})
}

func (b *builder) bindExemption(at validators.Path, e v1alpha1.Exemption) {
	x := exemption{kinds: e.Match.Kinds, namespaces: e.Match.Namespaces, names: e.Match.Names, at: at.String(), reason: e.Reason}
	x.paths, x.clusters = e.Match.Paths, e.Match.Clusters
	if strings.TrimSpace(e.Reason) == "" {
		at := at.Child("reason")
		b.problem(at, "the exemption applies", "%s: must not be blank", at)
	}
	if len(x.kinds)+len(x.namespaces)+len(x.names)+len(x.paths)+len(x.clusters) == 0 && e.Match.NamespaceSelector == nil {
		at := at.Child("match")
		b.problem(at, "every object is exempt", "%s: must set at least one of kinds, namespaces, namespaceSelector, names, paths, clusters", at)
	}
	b.namespaces(at.Child("match", "namespaces"), e.Match.Namespaces)
	if e.Match.NamespaceSelector != nil {
		selector, err := metav1.LabelSelectorAsSelector(e.Match.NamespaceSelector)
		if err != nil {
			at := at.Child("match", "namespaceSelector")
			b.problem(at, "objects are exempt whatever the labels of their namespaces", "%s: %v", at, err)
			selector = nil
		}
		x.selector = selector
		b.out.byLabel = true
	}
	if e.Expires != nil {
		x.expires = e.Expires.Time
	}
	var rules []*validators.Meta
	x.rules, rules = b.ruleSet(at.Child("rules"), e.Rules)
	b.kinds(at.Child("match", "kinds"), x.kinds, rules)
	b.out.exemptions = append(b.out.exemptions, x)
}

// AllRules means all rules in overrides and exemptions.
const AllRules = "*"

// ruleSet returns the rules with the names or IDs.
func (b *builder) ruleSet(at validators.Path, names []string) (set map[string]bool, rules []*validators.Meta) {
	set = map[string]bool{}
	for i, n := range names {
		found := false
		for _, m := range b.out.all {
			if n == AllRules || n == m.Name || n == m.ID {
				found = true
				if !set[m.Name] {
					set[m.Name] = true
					rules = append(rules, m)
				}
			}
		}
		if !found {
			b.note(at.Index(i), "%s: unknown rule %q%s", at.Index(i), n, b.suggestRule(n))
		}
	}
	return set, rules
}

// suggestRule returns the end of a message about an unknown rule.
func (b *builder) suggestRule(name string) string {
	for _, m := range b.out.all {
		if strings.EqualFold(name, m.ID) {
			return fmt.Sprintf("; did you mean %q?", m.Name)
		}
	}
	return suggestion(name, b.out.ruleNames())
}

// namespaces notes patterns that match no namespace.
func (b *builder) namespaces(at validators.Path, patterns []string) {
	for i, p := range patterns {
		if err := match.NamespacePattern(p); err != nil && p != "" { // "" selects cluster-scoped objects
			b.note(at.Index(i), "%s: %v", at.Index(i), err)
		}
	}
}

// kinds notes kinds that none of the rules evaluates.
func (b *builder) kinds(at validators.Path, kinds []string, rules []*validators.Meta) {
	known := map[string]bool{}
	for _, m := range rules {
		switch {
		case m.Scope.File:
			known[FileKind] = true
		case len(m.Scope.Kinds) == 0:
			return // any kind
		}
		for _, gk := range m.Scope.Kinds {
			known[gk.Kind] = true
		}
	}
	for i, kind := range kinds {
		if len(rules) > 0 && !known[kind] {
			b.note(at.Index(i), "%s: none of the rules evaluates kind %q%s", at.Index(i), kind, suggestion(kind, slices.Collect(maps.Keys(known))))
		}
	}
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
		if o.rules[rule] {
			a = atLeast(a, o.action)
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

// Mutations returns what the enabled mutators may change.
func (p *Policy) Mutations() []mutators.Selection { return p.mutators.Selections() }

// OnError returns the action for an object that no rule could evaluate.
func (p *Policy) OnError() v1alpha1.Action { return p.capped(p.onError) }

// AuditOnly reports whether the policy only records findings.
func (p *Policy) AuditOnly() bool { return p.auditOnly }

// Rules returns the active rules with their actions and the inactive ones with the reasons, both in the order of the suite.
func (p *Policy) Rules() (active []v1alpha1.ActiveRule, inactive []v1alpha1.InactiveRule) {
	for _, m := range p.all {
		s := p.rules[m.Name]
		if p.strictest(m.Name) == v1alpha1.ActionOff {
			reason := "its action is Off"
			if invalid := p.invalid[m.Name]; invalid != "" {
				reason = invalid
			}
			inactive = append(inactive, v1alpha1.InactiveRule{Name: m.Name, Reason: reason})
			continue
		}
		active = append(active, v1alpha1.ActiveRule{Name: m.Name, Action: p.capped(s.action)})
	}
	return active, inactive
}

// Warnings returns what the author of the policy may want to change: expired exemptions, those that do not apply at admission, and rules that
// are newer than the policy.
func (p *Policy) Warnings() []string {
	var warnings []string
	for i := range p.exemptions {
		e := &p.exemptions[i]
		if e.expired(p.clock()) {
			warnings = append(warnings, fmt.Sprintf("spec.exemptions[%d] expired at %s", i, e.expires.UTC().Format(time.RFC3339)))
		}
		if len(e.paths)+len(e.clusters) > 0 {
			warnings = append(warnings, fmt.Sprintf("spec.exemptions[%d] has paths or clusters, so it applies in checks of a Git tree only, not at admission", i))
		}
	}
	if len(p.newer) > 0 {
		warnings = append(warnings, fmt.Sprintf("rules that are newer than spec.ruleset are limited to Warn: %s; set spec.ruleset to %s for their default actions",
			strings.Join(p.newer, ", "), Ruleset(p.all)))
	}
	return warnings
}

// Evaluated returns the metadata of the active rules, in the order of the suite.
func (p *Policy) Evaluated() []*validators.Meta { return p.suite.Rules() }
