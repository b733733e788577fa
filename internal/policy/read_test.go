package policy_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/validators"
)

func spec(t testing.TB, text string) any {
	t.Helper()
	var out any
	if err := yaml.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func read(t testing.TB, text string, last map[string]any) policy.Reading {
	t.Helper()
	r, err := policy.Read(spec(t, text), last, suite(t), set(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// evaluate returns the decision on a Kustomization in a namespace that kustomization-namespace does not allow.
func evaluate(t testing.TB, p *policy.Policy) policy.Decision {
	t.Helper()
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
		"metadata": map[string]any{"name": "airflow", "namespace": "team-a"}, "spec": map[string]any{"path": "./apps/airflow"},
	}}
	ns := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "team-a"}}}
	r := validators.Request{Operation: validators.Create, Stage: validators.StageAdmission, Object: o}
	return p.Evaluate(t.Context(), r, lookup.NewMemory(ns))
}

func outcome(d policy.Decision) string {
	has := func(findings []*validators.Finding) bool {
		for _, f := range findings {
			if f.Rule.Name == "kustomization-namespace" {
				return true
			}
		}
		return false
	}
	switch {
	case has(d.Deny):
		return "Deny"
	case has(d.Warn):
		return "Warn"
	case has(d.Audit):
		return "Audit"
	}
	return "none"
}

// A stored policy of which something cannot be used is never stricter than what its author asked for.
func TestRead_NeverStricter(t *testing.T) {
	const deny = "rules: {kustomization-namespace: {action: Deny}}\n"
	for name, tc := range map[string]struct {
		spec, last string
		want       string // what happens with a finding of kustomization-namespace
		problem    string
		note       string
	}{
		"a valid policy":                        {spec: deny, want: "Deny"},
		"audit-only with a bad expression":      {spec: "mode: AuditOnly\nrules: {kustomization-target-namespace: {requiredFor: [{path: '('}]}}\n", want: "Audit", problem: "requiredFor[0].path: not a regular expression"},
		"audit-only with an unknown operator":   {spec: "mode: AuditOnly\noverrides: [{namespaceSelector: {matchExpressions: [{key: a, operator: Is}]}, rules: [kustomization-namespace], action: Deny}]\n", want: "Audit", problem: "spec.overrides[0].namespaceSelector"},
		"an unknown rule":                       {spec: "mode: AuditOnly\nrules: {of-a-newer-version: {action: Deny}}\n", want: "Audit", note: "spec.rules.of-a-newer-version: unknown"},
		"a field of a newer version":            {spec: deny + "newTopLevel: {a: b}\n", want: "Deny", note: "spec.newTopLevel: unknown field"},
		"a parameter of a newer version":        {spec: "rules: {kustomization-namespace: {action: Deny, allowedEverywhere: false}}\n", want: "Deny", note: "spec.rules.kustomization-namespace.allowedEverywhere: unknown field"},
		"a mode of a newer version":             {spec: deny + "mode: Rehearse\n", want: "Audit", problem: "AuditOnly applies"},
		"an action of a newer version":          {spec: "rules: {kustomization-namespace: {action: Quarantine}}\n", want: "none", problem: "the rule is off"},
		"invalid settings of a rule":            {spec: "rules: {kustomization-namespace: {action: Deny, allowedNamespaces: a}}\n", want: "none", problem: "the rule is off"},
		"invalid settings keep the last ones":   {spec: "rules: {kustomization-namespace: {action: Deny, allowedNamespaces: a}}\n", last: deny, want: "Deny", problem: "keeps its last valid settings"},
		"but not a stricter action":             {spec: "rules: {kustomization-namespace: {action: Warn, allowedNamespaces: a}}\n", last: deny, want: "Warn", problem: "with action Warn"},
		"rules that are no map":                 {spec: "rules: [a]\n", want: "none", problem: "spec.rules"},
		"rules that are no map keep the last":   {spec: "rules: [a]\n", last: deny, want: "Deny", problem: "spec.rules"},
		"a spec that is no map":                 {spec: "[a]\n", want: "Audit", problem: "spec: must be an object"},
		"a spec that is no map keeps the last":  {spec: "[a]\n", last: deny, want: "Deny", problem: "spec: must be an object"},
		"an override with an unknown operator":  {spec: deny + "overrides: [{namespaceSelector: {matchExpressions: [{key: a, operator: Is}]}, rules: [kustomization-namespace], action: Warn}]\n", want: "Warn", problem: "the milder of the actions applies"},
		"and it does not make a rule stricter":  {spec: "rules: {kustomization-namespace: {action: Warn}}\noverrides: [{namespaceSelector: {matchExpressions: [{key: a, operator: Is}]}, rules: [kustomization-namespace], action: Deny}]\n", want: "Warn", problem: "the milder of the actions applies"},
		"an override with an unknown action":    {spec: deny + "overrides: [{namespaceSelector: {}, rules: [kustomization-namespace], action: Quarantine}]\n", want: "Audit", problem: "spec.overrides[0].action"},
		"an override that is a string":          {spec: deny + "overrides: [all]\n", want: "Audit", problem: "spec.overrides[0]"},
		"an exemption by an unknown criterion":  {spec: deny + "exemptions: [{rules: [kustomization-namespace], match: {users: [a], names: [airflow]}, reason: x}]\n", want: "Audit", note: "match.users: unknown field"},
		"an exemption with an unknown operator": {spec: deny + "exemptions: [{rules: [kustomization-namespace], match: {namespaceSelector: {matchExpressions: [{key: a, operator: Is}]}}, reason: x}]\n", want: "Audit", problem: "spec.exemptions[0].match.namespaceSelector"},
		"labels of objects exempt nothing now":  {spec: deny + "exemptions: [{rules: [kustomization-namespace], match: {selector: {matchLabels: {a: b}}, names: [other]}, reason: x}]\n", want: "Deny", note: "match.selector: unknown field"},
		"a ruleset that cannot be read":         {spec: "ruleset: [a]\n", want: "Warn", problem: "limited to Warn"},
		"exemptions that are no list":           {spec: deny + "exemptions: all\n", want: "Audit", problem: "spec.exemptions"},
		"an expiry that is no time":             {spec: deny + "exemptions: [{rules: [kustomization-namespace], match: {names: [airflow]}, reason: x, expires: soon}]\n", want: "Audit", problem: "spec.exemptions[0].expires"},
		"a mutation with a bad expression":      {spec: deny + "mutations: {target-namespace: [{match: {path: '('}, targetNamespace: x}]}\n", want: "Deny", problem: "the mutation is off"},
	} {
		t.Run(name, func(t *testing.T) {
			var last map[string]any
			if tc.last != "" {
				last = read(t, tc.last, nil).Spec
			}
			r := read(t, tc.spec, last)
			if got := outcome(evaluate(t, r.Policy)); got != tc.want {
				t.Errorf("outcome %s, want %s", got, tc.want)
			}
			contains(t, "problem", r.Problems, tc.problem)
			contains(t, "note", r.Notes, tc.note)
			// The spec in force survives a restart, with no earlier one to use.
			data, err := json.Marshal(r.Spec)
			if err != nil {
				t.Fatal(err)
			}
			if got := outcome(evaluate(t, read(t, string(data), nil).Policy)); got != tc.want {
				t.Errorf("outcome %s after a restart with %s, want %s", got, data, tc.want)
			}
		})
	}
}

// The status names a rule that is off because of its settings.
func TestRead_InactiveRule(t *testing.T) {
	r := read(t, "rules: {kustomization-namespace: {action: Deny, allowedNamespaces: a}}\n", nil)
	_, inactive := r.Policy.Rules()
	if want := (v1alpha1.InactiveRule{Name: "kustomization-namespace", Reason: "its settings are invalid"}); len(inactive) != 1 || inactive[0] != want {
		t.Errorf("inactive rules %v, want %v", inactive, want)
	}
}

func contains(t *testing.T, what string, got []string, want string) {
	t.Helper()
	if want == "" && len(got) > 0 || want != "" && !strings.Contains(strings.Join(got, "\n"), want) {
		t.Errorf("%ss %q, want %q", what, got, want)
	}
}

func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		"mode: AuditOnly\nrules: {kustomization-namespace: {action: [a]}}", "overrides: [{rules: {}}, [], 1]", "exemptions: {a: b}", "rules: {a: null}", "1", "null",
	} {
		f.Add(seed)
	}
	rules, muts := suite(f), set(f)
	f.Fuzz(func(t *testing.T, text string) {
		var value any
		if yaml.Unmarshal([]byte(text), &value) != nil {
			return
		}
		if fmt.Sprint(value) == "" {
			return
		}
		r, err := policy.Read(value, nil, rules, muts, nil)
		if err != nil {
			t.Fatal(err)
		}
		if m, ok := value.(map[string]any); ok && m["mode"] == "AuditOnly" && !r.Policy.AuditOnly() {
			t.Error("AuditOnly became Enforce")
		}
	})
}
