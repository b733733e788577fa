package policy

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/validators"
)

// Reading is what can be used of a stored AdmissionPolicy.
type Reading struct {
	Policy *Policy
	// Spec is the spec with every part that was replaced: Read returns the same policy for it. It shares no memory with the argument of Read.
	Spec map[string]any
	// Problems are the parts that cannot be used, with what applies instead. Notes are unknown names and fields, which change nothing.
	Problems, Notes []string
}

// Read reads the spec of an AdmissionPolicy that is stored in a cluster. Unlike Parse and Compile, which validate what an author writes, it never
// fails because of the spec: another version of the program, or a time without the webhook, may have let in what this version refuses.
//
// What can be used is used; nothing becomes stricter by what cannot. A rule or a mutation with unusable settings keeps those of last, the Spec of the
// previous Reading (nil for none), or else is off. A mode that cannot be read is AuditOnly. An override or exemption relaxes as much as the readable
// part of it allows.
func Read(spec any, last map[string]any, suite *validators.Suite, muts *mutators.Set, clock func() time.Time) (Reading, error) {
	return ReadWith(spec, last, nil, suite, muts, clock)
}

// ReadWith is Read with actions that rules have in every namespace, by the rule's name, whatever the policy has for them.
func ReadWith(
	spec any, last map[string]any, actions map[string]v1alpha1.Action, suite *validators.Suite, muts *mutators.Set, clock func() time.Time,
) (Reading, error) {
	s, err := policySchema()
	if err != nil {
		return Reading{}, err
	}
	r := &reader{builder: newBuilder(suite, clock)}
	r.actions = actions
	r.unusable = map[string]string{}
	r.last = func(section, name string) (apiextensionsv1.JSON, bool) {
		settings, ok := nested(last, section)[name]
		return apiextensionsv1.JSON{Raw: marshal(settings)}, ok
	}
	r.spec = r.object(spec, last)
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": v1alpha1.Kind, "metadata": map[string]any{"name": v1alpha1.Name}, "spec": r.spec,
	}}
	for _, f := range s.UnknownFields(o) {
		r.note(f.Path, "%s: unknown field, ignored", f.Path)
		remove(o.Object, f.Path)
	}
	s.Default(o)
	ctx, cancel := context.WithTimeout(context.Background(), celTimeout)
	defer cancel()
	for _, v := range s.InvalidValues(ctx, o) {
		part := partOf(v.Path)
		if r.unusable[part] == "" {
			r.unusable[part] = fmt.Sprintf("%s: %s", v.Path, v.Message)
		}
	}
	r.build(r.typed(muts), muts)
	r.replace()
	out := Reading{Policy: r.out, Spec: r.spec}
	for _, i := range r.issues {
		if i.harmless {
			out.Notes = append(out.Notes, i.text)
		} else {
			out.Problems = append(out.Problems, i.text+"; "+i.effect)
		}
	}
	return out, nil
}

// reader is the builder of a stored policy.
type reader struct {
	*builder
	spec map[string]any
}

// object returns a copy of the spec, which may be anything.
func (r *reader) object(spec any, last map[string]any) map[string]any {
	if spec == nil {
		return map[string]any{}
	}
	if m, ok := spec.(map[string]any); ok {
		return runtime.DeepCopyJSON(m)
	}
	if last != nil {
		r.problem(validators.NewPath("spec"), "the last valid policy stays in force", "spec: must be an object")
		return runtime.DeepCopyJSON(last)
	}
	r.problem(validators.NewPath("spec"), "the mode is AuditOnly", "spec: must be an object")
	return map[string]any{"mode": string(v1alpha1.ModeAuditOnly)}
}

// typed decodes the spec part by part, so that one part that cannot be decoded costs no other.
func (r *reader) typed(muts *mutators.Set) v1alpha1.AdmissionPolicySpec {
	out := v1alpha1.AdmissionPolicySpec{
		Mode:    v1alpha1.Mode(r.mildest("mode", string(v1alpha1.ModeAuditOnly))),
		OnError: v1alpha1.FailureAction(r.mildest("onError", string(v1alpha1.FailureActionAllow))),
		Ruleset: r.ruleset(),
		Ratchet: v1alpha1.RatchetMode(r.mildest("ratchet", string(v1alpha1.RatchetEnabled))),
	}
	var mutations []string
	for _, m := range muts.Mutators() {
		mutations = append(mutations, m.Name)
	}
	out.Rules = r.section("rules", r.out.ruleNames())
	out.Mutations = r.section("mutations", mutations)
	for i, item := range r.list("overrides") {
		out.Overrides = append(out.Overrides, r.override(i, item))
	}
	for i, item := range r.list("exemptions") {
		out.Exemptions = append(out.Exemptions, r.exemption(i, item))
	}
	return out
}

// mildest returns a field of the spec, and replaces one that cannot be used.
func (r *reader) mildest(name, mildest string) string {
	if reason := r.unusable[name]; reason != "" {
		r.problem(validators.NewPath("spec", name), mildest+" applies", "%s", reason)
		r.spec[name] = mildest
	}
	value, _ := r.spec[name].(string)
	return value
}

// ruleset returns the ruleset as it is: build limits rules if it cannot be used.
func (r *reader) ruleset() string {
	switch value := r.spec["ruleset"].(type) {
	case nil:
		return ""
	case string:
		return value
	default:
		return fmt.Sprint(value)
	}
}

// section returns the settings of rules or mutations. If the section cannot be read, those of all names are unusable.
func (r *reader) section(section string, names []string) map[string]apiextensionsv1.JSON {
	out := map[string]apiextensionsv1.JSON{}
	value, ok := r.spec[section]
	if !ok {
		return out
	}
	settings, isMap := value.(map[string]any)
	if !isMap {
		for _, name := range names {
			r.unusable[section+"."+name] = fmt.Sprintf("spec.%s: must be an object", section)
		}
		return out
	}
	for name, s := range settings {
		out[name] = apiextensionsv1.JSON{Raw: marshal(s)}
	}
	return out
}

// list returns the items of overrides or exemptions. One that is not a list may relax everything.
func (r *reader) list(name string) []any {
	switch value := r.spec[name].(type) {
	case nil:
		return nil
	case []any:
		if reason := r.unusable[name]; reason != "" {
			r.note(validators.NewPath("spec", name), "%s", reason)
		}
		return value
	}
	r.unusable[name+"[0]"] = fmt.Sprintf("spec.%s: must be a list", name)
	return []any{nil}
}

func (r *reader) override(i int, item any) v1alpha1.Override {
	reason := r.unusable["overrides["+strconv.Itoa(i)+"]"]
	var out v1alpha1.Override
	if decode(item, &out) && reason == "" {
		return out
	}
	fields, _ := item.(map[string]any)
	out = v1alpha1.Override{Rules: r.rules(fields), Action: v1alpha1.ActionAudit}
	if action, ok := fields["action"].(string); ok && slices.Contains(actions, v1alpha1.Action(action)) {
		out.Action = v1alpha1.Action(action)
	}
	_ = decode(fields["namespaces"], &out.Namespaces) // names that cannot be read exclude no namespace
	if _, set := fields["namespaceSelector"]; set && !decode(fields["namespaceSelector"], &out.NamespaceSelector) || out.NamespaceSelector == nil && len(out.Namespaces) == 0 {
		out.NamespaceSelector = unusableSelector()
	}
	at := validators.NewPath("spec", "overrides").Index(i)
	if reason == "" {
		reason = at.String() + ": not an override"
	}
	r.problem(at, "the readable part of the override applies, with action "+string(out.Action), "%s", reason)
	return out
}

func (r *reader) exemption(i int, item any) v1alpha1.Exemption {
	reason := r.unusable["exemptions["+strconv.Itoa(i)+"]"]
	var out v1alpha1.Exemption
	if decode(item, &out) && reason == "" {
		return out
	}
	fields, _ := item.(map[string]any)
	match, _ := fields["match"].(map[string]any)
	out = v1alpha1.Exemption{Rules: r.rules(fields)}
	for name, field := range map[string]any{
		"kinds": &out.Match.Kinds, "namespaces": &out.Match.Namespaces, "names": &out.Match.Names,
		"paths": &out.Match.Paths, "clusters": &out.Match.Clusters,
		"namespaceSelector": &out.Match.NamespaceSelector,
	} {
		_ = decode(match[name], field) // a condition that cannot be read excludes no object
	}
	_ = decode(fields["expires"], &out.Expires)
	out.Reason, _ = fields["reason"].(string)
	if out.Reason == "" {
		out.Reason = "(no reason)"
	}
	at := validators.NewPath("spec", "exemptions").Index(i)
	if reason == "" {
		reason = at.String() + ": not an exemption"
	}
	r.problem(at, "the exemption applies to all objects that its readable part selects", "%s", reason)
	return out
}

// rules returns the names of rules in an override or exemption; all rules if there are none.
func (r *reader) rules(item map[string]any) []string {
	var names []string
	if !decode(item["rules"], &names) || len(names) == 0 {
		return []string{AllRules}
	}
	return names
}

// replace writes the settings that are in force into the spec, in place of unusable ones.
func (r *reader) replace() {
	for part, kept := range r.replaced {
		section, name, _ := strings.Cut(part, ".")
		settings, ok := r.spec[section].(map[string]any)
		if !ok {
			settings = map[string]any{}
			r.spec[section] = settings
		}
		delete(settings, name)
		last, _ := r.last(section, name)
		var value any
		if kept && json.Unmarshal(last.Raw, &value) == nil {
			settings[name] = value
		}
		if section == "rules" {
			rule, ok := settings[name].(map[string]any)
			if !ok {
				rule = map[string]any{}
				settings[name] = rule
			}
			rule["action"] = string(r.out.rules[name].action)
		}
	}
}

// unusableSelector returns a selector that cannot be compiled.
func unusableSelector() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "?"}}}
}

// partOf returns the part of the policy that a path belongs to: "mode", "rules.NAME", "overrides[1]".
func partOf(p validators.Path) string {
	if len(p) < 2 || p[0].Key != "spec" {
		return ""
	}
	if len(p) == 2 {
		return p[1].Key
	}
	switch section := p[1].Key; section {
	case "rules", "mutations":
		return section + "." + p[2].Key
	default:
		return strings.TrimPrefix(p[1:3].String(), ".")
	}
}

// decode decodes a JSON value; an unknown field is no error.
func decode(value, into any) bool {
	return json.Unmarshal(marshal(value), into) == nil
}

// marshal encodes a JSON value, which cannot fail.
func marshal(value any) []byte {
	data, err := json.Marshal(value)
	if err != nil {
		return []byte("null")
	}
	return data
}

func nested(m map[string]any, key string) map[string]any {
	out, _ := m[key].(map[string]any)
	return out
}

// remove deletes the map key at a path.
func remove(root any, p validators.Path) {
	for _, step := range p[:len(p)-1] {
		switch container := root.(type) {
		case map[string]any:
			root = container[step.Key]
		case []any:
			if step.Index < 0 || step.Index >= len(container) {
				return
			}
			root = container[step.Index]
		}
	}
	if m, ok := root.(map[string]any); ok {
		delete(m, p[len(p)-1].Key)
	}
}
