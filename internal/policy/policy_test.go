package policy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/manifests"
	"github.com/flux-admission/flux-admission/mutators"
	allmutators "github.com/flux-admission/flux-admission/mutators/all"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func suite(t testing.TB) *validators.Suite {
	t.Helper()
	s, err := validators.NewSuite(allvalidators.Rules()...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func set(t testing.TB) *mutators.Set {
	t.Helper()
	s, err := mutators.NewSet(allmutators.Mutators()...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// document returns an AdmissionPolicy with the given spec in flow or block style, indented by two.
func document(spec string) string {
	return "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\nspec:\n" + spec
}

func compile(t testing.TB, spec string) *policy.Policy {
	t.Helper()
	parsed, err := policy.Parse("test", []byte(document(spec)))
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Compile(parsed, suite(t), set(t), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDefault(t *testing.T) {
	parsed, err := policy.Default()
	if err != nil {
		t.Fatal(err)
	}
	stored, err := policy.Parse("default.yaml", manifests.DefaultPolicy)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(stored, parsed); diff != "" {
		t.Errorf("default.json is not what the API server stores for default.yaml; run make generate: %s", diff)
	}
	p, err := policy.Compile(parsed, suite(t), set(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	active, inactive := p.Rules()
	if len(active) != len(allvalidators.Rules()) || len(inactive) > 0 {
		t.Errorf("active %v, inactive %v", active, inactive)
	}
	if warnings := p.Warnings(); len(warnings) > 0 {
		t.Errorf("the default policy has warnings: %q", warnings)
	}
}

// The default policy gives each rule the action at each stage that the rule has without a policy.
func TestParseAt_Default(t *testing.T) {
	var rules []*validators.Meta
	for _, r := range allvalidators.Rules() {
		rules = append(rules, &r.Meta)
	}
	for _, stage := range []validators.Stage{validators.StageAdmission, validators.StageOffline} {
		parsed, err := policy.ParseAt("default.yaml", manifests.DefaultPolicy, stage, rules)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range rules {
			var settings struct{ Action v1alpha1.Action }
			if err := json.Unmarshal(parsed.Spec.Rules[m.Name].Raw, &settings); err != nil {
				t.Fatal(err)
			}
			if want := m.DefaultAt(stage); want != "" && settings.Action != want {
				t.Errorf("stage %v: %s has the action %s, want %s", stage, m.Name, settings.Action, want)
			}
		}
	}
}

// The example in docs/policy.md is valid.
func TestParse_Documentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(text), "```yaml\napiVersion: flux-admission.dev/v1alpha1\n")
	block, _, closed := strings.Cut(after, "```")
	if !ok || !closed {
		t.Fatal("docs/policy.md contains no AdmissionPolicy")
	}
	parsed, err := policy.Parse("policy.md", []byte("apiVersion: flux-admission.dev/v1alpha1\n"+block))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Compile(parsed, suite(t), set(t), nil); err != nil {
		t.Fatal(err)
	}
}

func TestParse_Errors(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"an empty file":                    {"", "p.yaml: file is empty; must contain an AdmissionPolicy"},
		"a list":                           {"- a\n", "p.yaml: document is not a mapping; must be an AdmissionPolicy of flux-admission.dev/v1alpha1"},
		"text that is not YAML":            {"a: [", "p.yaml: invalid YAML: line 1: did not find expected node content"},
		"two documents":                    {document("  mode: Enforce\n") + "---\na: b\n", "p.yaml: file has more than one YAML document; must contain one AdmissionPolicy only"},
		"another kind":                     {"apiVersion: v1\nkind: ConfigMap\n", "p.yaml:1: apiVersion: \"v1\" is not supported; must be \"flux-admission.dev/v1alpha1\"\np.yaml:2: kind: \"ConfigMap\" is not supported; must be \"AdmissionPolicy\""},
		"a duplicate key":                  {document("  mode: Enforce\n  mode: AuditOnly\n"), `key "mode" already set in map`},
		"another name":                     {strings.Replace(document("  mode: Enforce\n"), "default", "mine", 1), "an AdmissionPolicy must be named default"},
		"a misspelled field":               {document("  modes: Enforce\n"), `p.yaml:5: spec.modes: unknown field; did you mean "spec.mode"?`},
		"a misspelled rule":                {document("  rules:\n    kustomisation-namespace: {action: Deny}\n"), `p.yaml:6: spec.rules.kustomisation-namespace: unknown rule; did you mean "spec.rules.kustomization-namespace"?`},
		"a misspelled parameter":           {document("  rules:\n    kustomization-namespace: {allowedNamespace: [a]}\n"), `spec.rules.kustomization-namespace.allowedNamespace: unknown field; did you mean "spec.rules.kustomization-namespace.allowedNamespaces"?`},
		"an unknown mode":                  {document("  mode: Audit\n"), `p.yaml:5: spec.mode: must be one of "Enforce", "AuditOnly"`},
		"Off without quotes":               {document("  rules:\n    kustomization-namespace: {action: Off}\n"), `YAML reads Off without quotes as false, write "Off"`},
		"a parameter of another type":      {document("  rules:\n    kustomization-namespace: {allowedNamespaces: flux-system}\n"), `spec.rules.kustomization-namespace.allowedNamespaces: must be a list, is a string`},
		"an exemption without a reason":    {document("  exemptions: [{rules: [kustomization-namespace], match: {names: [a]}}]\n"), "p.yaml:5: spec.exemptions[0].reason: is required"},
		"an exemption with a blank reason": {document("  exemptions: [{rules: [kustomization-namespace], match: {names: [a]}, reason: ' '}]\n"), "spec.exemptions[0].reason: must match"},
		"an exemption for everything":      {document("  exemptions: [{rules: [kustomization-namespace], match: {}, reason: x}]\n"), "spec.exemptions[0].match: must have at least 1 properties"},
		"an expiry that is not a time":     {document("  exemptions: [{rules: [kustomization-namespace], match: {names: [a]}, reason: x, expires: tomorrow}]\n"), "spec.exemptions[0].expires: must be a time"},
		"two targets of a mutation":        {document("  mutations: {target-namespace: [{targetNamespace: a, targetNamespaceLabel: b}]}\n"), "spec.mutations.target-namespace[0]: is invalid: set exactly one of targetNamespace and targetNamespaceLabel"},
		"a duplicate namespace":            {document("  rules: {kustomization-namespace: {allowedNamespaces: [a, a]}}\n"), `spec.rules.kustomization-namespace.allowedNamespaces[1]: is a duplicate in the list`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := policy.Parse("p.yaml", []byte(tc.text))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v\nwant %s", err, tc.want)
			}
		})
	}
}

func TestParse_Limits(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"ten megabytes of nested YAML": {strings.Repeat("[", 10<<20), "AdmissionPolicy has 10485760 bytes; the limit is 1048576"},
		"a megabyte of nested YAML":    {"spec: " + strings.Repeat("[", 1<<20-100), "invalid YAML"},
		"exponential expansion of anchors": {
			"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n" +
				"e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n", "invalid YAML",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := policy.Parse("p.yaml", []byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) || len(err.Error()) > 2000 {
				t.Errorf("error %.300v\nwant %s", err, tc.want)
			}
		})
	}
}

func TestCompile_Errors(t *testing.T) {
	parsed, err := policy.Parse("p.yaml", []byte(document(`  rules:
    kustomization-target-namespace:
      requiredFor: [{path: '('}]
  mutations:
    target-namespace:
      - {match: {path: '^x'}, targetNamespace: '{ns}'}
      - {targetNamespaceLabel: 'not a label'}
  overrides:
    - {namespaceSelector: {matchExpressions: [{key: a, operator: Nope}]}, rules: [kustomization-namespace], action: Warn}
    - {namespaces: ['Flux System'], rules: [kustomization-namespaces], action: Warn}
  exemptions:
    - {rules: [nope], match: {names: [a]}, reason: x}
    - {rules: [KS001], match: {kinds: [Kustomizatoin]}, reason: x}
    - {rules: [helm-values-schema], match: {kinds: [Kustomization]}, reason: x}
`)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = policy.Compile(parsed, suite(t), set(t), nil)
	for _, want := range []string{
		"spec.rules.kustomization-target-namespace.requiredFor[0].path: not a regular expression",
		"spec.mutations.target-namespace[0].targetNamespace: {ns} is not a named group of match.path",
		"[1].targetNamespaceLabel: \"not a label\" is not a label key",
		`spec.overrides[0].namespaceSelector: "Nope" is not a valid label selector operator`,
		`spec.overrides[1].namespaces[0]: no namespace can be named "Flux System"; must have lower-case letters, digits, - and * only; did you mean "flux-system"?`,
		`spec.overrides[1].rules[0]: unknown rule "kustomization-namespaces"; did you mean "kustomization-namespace"?`,
		`spec.exemptions[0].rules[0]: unknown rule "nope"`,
		`spec.exemptions[1].match.kinds[0]: none of the rules evaluates kind "Kustomizatoin"; did you mean "Kustomization"?`,
		`spec.exemptions[2].match.kinds[0]: none of the rules evaluates kind "Kustomization"; must be one of HelmRelease`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v\nwant %s", err, want)
		}
	}
}

// kustomization returns a Kustomization in a namespace that KS001 reports.
func kustomization(ns string, labels map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
		"metadata": map[string]any{"name": "apps", "namespace": ns, "labels": labels},
		"spec":     map[string]any{"path": "./apps/airflow/app"},
	}}
}

func namespace(name string, labels map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name, "labels": labels}}}
}

func TestPolicy_Evaluate(t *testing.T) {
	readable := lookup.NewMemory(namespace("sandbox", map[string]any{"tier": "sandbox"}), namespace("prod", nil))
	unreadable := lookup.NewMemory()
	unreadable.Hide(schema.GroupKind{Kind: "Namespace"}, types.NamespacedName{Name: "sandbox"}, errors.New("no permission"))
	const warnInSandbox = "  overrides: [{namespaceSelector: {matchLabels: {tier: sandbox}}, rules: [kustomization-namespace], action: Warn}]\n"
	for name, tc := range map[string]struct {
		spec   string
		ns     string
		update bool
		lookup *lookup.Memory
		want   string
	}{
		"Deny denies":                                                    {"  rules: {kustomization-namespace: {action: Deny}}\n", "prod", false, readable, "deny"},
		"the default action of an error is Deny":                         {"  rules: {kustomization-namespace: {}}\n", "prod", false, readable, "deny"},
		"a rule that is not listed has its default action":               {"  mode: Enforce\n", "prod", false, readable, "deny"},
		"an exemption of something else weakens nothing":                 {"  exemptions: [{rules: [source-missing], match: {names: [x]}, reason: x}]\n", "prod", false, readable, "deny"},
		"an exemption by names with *":                                   {"  exemptions: [{rules: [KS001], match: {namespaces: ['*'], names: ['ap*']}, reason: x}]\n", "prod", false, readable, "audit exempted"},
		"an exemption from all rules":                                    {"  exemptions: [{rules: ['*'], match: {names: [apps]}, reason: x}]\n", "prod", false, readable, "audit exempted"},
		"an exemption by the labels of other namespaces":                 {"  exemptions: [{rules: ['*'], match: {namespaceSelector: {matchLabels: {tier: sandbox}}}, reason: x}]\n", "prod", false, readable, "deny"},
		"an override of all rules by name":                               {"  overrides: [{namespaces: ['*'], rules: ['*'], action: Warn}]\n", "prod", false, readable, "warn"},
		"an override of other namespaces":                                {"  overrides: [{namespaces: ['other-*'], rules: ['*'], action: Warn}]\n", "prod", false, readable, "deny"},
		"Warn warns":                                                     {"  rules: {kustomization-namespace: {action: Warn}}\n", "prod", false, readable, "warn"},
		"Audit records":                                                  {"  rules: {kustomization-namespace: {action: Audit}}\n", "prod", false, readable, "audit"},
		"Off is silent":                                                  {"  rules: {kustomization-namespace: {action: \"Off\"}}\n", "prod", false, readable, ""},
		"AuditOnly downgrades Deny to Audit":                             {"  mode: AuditOnly\n  rules: {kustomization-namespace: {action: Deny}}\n", "prod", false, readable, "audit"},
		"an override applies in its namespaces":                          {"  rules: {kustomization-namespace: {action: Deny}}\n" + warnInSandbox, "sandbox", false, readable, "warn"},
		"an override does not apply elsewhere":                           {"  rules: {kustomization-namespace: {action: Deny}}\n" + warnInSandbox, "prod", false, readable, "deny"},
		"an override can enable a rule that is off":                      {"  rules: {kustomization-namespace: {action: \"Off\"}}\n" + strings.Replace(warnInSandbox, "Warn", "Deny", 1), "sandbox", false, readable, "deny"},
		"the last override applies":                                      {"  rules: {kustomization-namespace: {action: Deny}}\n" + warnInSandbox + "    \n", "sandbox", false, readable, "warn"},
		"the mildest applies if labels are unknown":                      {"  rules: {kustomization-namespace: {action: Deny}}\n" + warnInSandbox, "sandbox", false, unreadable, "warn unknown"},
		"with onError Deny, labels that are unknown relax nothing":       {"  onError: Deny\n  rules: {kustomization-namespace: {action: Deny}}\n" + warnInSandbox, "sandbox", false, unreadable, "deny unknown"},
		"with onError Deny, the strictest applies if labels are unknown": {"  onError: Deny\n  rules: {kustomization-namespace: {action: Audit}}\n" + strings.Replace(warnInSandbox, "Warn", "Deny", 1), "sandbox", false, unreadable, "deny unknown"},
		"AuditOnly denies nothing if labels are unknown":                 {"  mode: AuditOnly\n  onError: Deny\n  rules: {kustomization-namespace: {action: Deny}}\n" + warnInSandbox, "sandbox", false, unreadable, "audit unknown"},
		"with onError Deny, unknown labels exempt nothing":               {"  onError: Deny\n  exemptions: [{rules: [KS001], match: {namespaceSelector: {matchLabels: {tier: sandbox}}}, reason: x}]\n", "sandbox", false, unreadable, "deny unknown"},
		"unknown labels exempt":                                          {"  exemptions: [{rules: [KS001], match: {namespaceSelector: {matchLabels: {tier: sandbox}}}, reason: x}]\n", "sandbox", false, unreadable, "audit exempted unknown"},
		"with onError Deny, labels that are known decide as ever":        {"  onError: Deny\n  rules: {kustomization-namespace: {action: Deny}}\n" + warnInSandbox, "sandbox", false, readable, "warn"},
		"a preexisting finding is downgraded to Warn":                    {"  rules: {kustomization-namespace: {action: Deny}}\n", "prod", true, readable, "warn"},
		"without ratchet a preexisting one is denied":                    {"  ratchet: Disabled\n  rules: {kustomization-namespace: {action: Deny}}\n", "prod", true, readable, "deny"},
		"an exemption by name records":                                   {"  rules: {kustomization-namespace: {action: Deny}}\n  exemptions: [{rules: [kustomization-namespace], match: {names: [apps]}, reason: x}]\n", "prod", false, readable, "audit exempted"},
		"an exemption of another namespace does not":                     {"  rules: {kustomization-namespace: {action: Deny}}\n  exemptions: [{rules: [kustomization-namespace], match: {names: [apps], namespaces: [other]}, reason: x}]\n", "prod", false, readable, "deny"},
		"an exemption by labels of the namespace":                        {"  rules: {kustomization-namespace: {action: Deny}}\n  exemptions: [{rules: [kustomization-namespace], match: {namespaceSelector: {matchLabels: {tier: sandbox}}}, reason: x}]\n", "sandbox", false, readable, "audit exempted"},
		"an exemption before its expiry applies":                         {"  rules: {kustomization-namespace: {action: Deny}}\n  exemptions: [{rules: [kustomization-namespace], match: {names: [apps]}, reason: x, expires: '2026-11-23T12:00:01Z'}]\n", "prod", false, readable, "audit exempted"},
		"an exemption at its expiry does not":                            {"  rules: {kustomization-namespace: {action: Deny}}\n  exemptions: [{rules: [kustomization-namespace], match: {names: [apps]}, reason: x, expires: '2026-11-23T12:00:00Z'}]\n", "prod", false, readable, "deny"},
	} {
		t.Run(name, func(t *testing.T) {
			p := compile(t, tc.spec)
			r := validators.Request{Stage: validators.StageAdmission, Operation: validators.Create, Object: kustomization(tc.ns, map[string]any{"legacy": "yes"})}
			if tc.update {
				r.Operation, r.Old = validators.Update, kustomization(tc.ns, nil)
			}
			d := p.Evaluate(t.Context(), r, tc.lookup)
			var got []string
			for word, n := range map[string]int{"deny": len(d.Deny), "warn": len(d.Warn), "audit": len(d.Audit), "exempted": len(d.Exempted), "unknown": len(d.Unknown)} {
				if n > 0 {
					got = append(got, word)
				}
			}
			slices.SortFunc(got, func(a, b string) int {
				return strings.Index("deny warn audit exempted unknown", a) - strings.Index("deny warn audit exempted unknown", b)
			})
			if s := strings.Join(got, " "); s != tc.want {
				t.Errorf("decision %q, want %q", s, tc.want)
			}
			if d.Allowed() != (len(d.Deny) == 0) {
				t.Errorf("Allowed is %t with %d denials", d.Allowed(), len(d.Deny))
			}
		})
	}
}

func TestPolicy_Evaluate_UnknownAndErrors(t *testing.T) {
	meta := func(id, name string) validators.Meta {
		return validators.Meta{
			ID: id, Name: name, Scope: validators.Scope{Kinds: []schema.GroupKind{{Group: "kustomize.toolkit.fluxcd.io", Kind: "Kustomization"}}}, Stages: validators.StageAll, Severity: validators.SeverityError,
			Defaults: validators.Defaults{Admission: v1alpha1.ActionDeny, Offline: v1alpha1.ActionDeny},
			Doc:      validators.Doc{Title: "T", Why: "W.", Fix: "F.", Since: "v0.1.0"},
		}
	}
	// The rules have real names, since the policy's schema validates them.
	unknown := &validators.Rule{Meta: meta("KS001", "kustomization-namespace"), Check: func(_ context.Context, p *validators.Pass) error {
		p.Unknown("the chart is unavailable")
		return nil
	}}
	unknown.Params = allvalidators.Rules()[0].Params
	fails := &validators.Rule{Meta: meta("PG001", "cnpg-monitoring-enabled"), Check: func(context.Context, *validators.Pass) error { panic("boom") }}
	s, err := validators.NewSuite(unknown, fails)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		spec            string
		unknown, failed v1alpha1.Action
	}{
		"by default neither denies":                            {"  rules: {kustomization-namespace: {action: Deny}, cnpg-monitoring-enabled: {action: Deny}}\n", v1alpha1.ActionAudit, v1alpha1.ActionAudit},
		"the policy may deny both":                             {"  onError: Deny\n  rules: {kustomization-namespace: {action: Deny, onUnknown: Deny}, cnpg-monitoring-enabled: {action: Deny}}\n", v1alpha1.ActionDeny, v1alpha1.ActionDeny},
		"an inconclusive rule is limited to the rule's action": {"  onError: Deny\n  rules: {kustomization-namespace: {action: Warn, onUnknown: Deny}, cnpg-monitoring-enabled: {action: Warn}}\n", v1alpha1.ActionWarn, v1alpha1.ActionWarn},
		"AuditOnly limits both to Audit":                       {"  mode: AuditOnly\n  onError: Deny\n  rules: {kustomization-namespace: {action: Deny, onUnknown: Deny}, cnpg-monitoring-enabled: {action: Deny}}\n", v1alpha1.ActionAudit, v1alpha1.ActionAudit},
	} {
		t.Run(name, func(t *testing.T) {
			parsed, err := policy.Parse("test", []byte(document(tc.spec)))
			if err != nil {
				t.Fatal(err)
			}
			p, err := policy.Compile(parsed, s, set(t), nil)
			if err != nil {
				t.Fatal(err)
			}
			d := p.Evaluate(t.Context(), validators.Request{Stage: validators.StageAdmission, Operation: validators.Create, Object: kustomization("prod", nil)}, lookup.NewMemory())
			if len(d.Unknown) != 1 || d.Unknown[0].Action != tc.unknown || len(d.Errors) != 1 || d.Errors[0].Action != tc.failed {
				t.Errorf("unknown %+v, errors %+v; want %s and %s", d.Unknown, d.Errors, tc.unknown, tc.failed)
			}
			if want := tc.unknown != v1alpha1.ActionDeny && tc.failed != v1alpha1.ActionDeny; d.Allowed() != want {
				t.Errorf("Allowed is %t", d.Allowed())
			}
		})
	}
}

// With AuditOnly, everything is allowed and recorded for any result of the rules and any other settings of the policy.
func TestPolicy_Decide_AuditOnly(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(words ...string) string { return words[random.IntN(len(words))] }
	rules := allvalidators.Rules()
	for range 300 {
		spec := "  mode: AuditOnly\n  onError: " + pick("Allow", "Warn", "Deny") + "\n  ratchet: " + pick("Enabled", "Disabled") + "\n  rules:\n"
		for _, r := range rules {
			spec += fmt.Sprintf("    %s: {action: %s, onUnknown: %s}\n", r.Name, pick("Audit", "Warn", "Deny"), pick("Allow", "Warn", "Deny"))
		}
		p := compile(t, spec)
		res := validators.Result{Object: kustomization("prod", nil)}
		for range random.IntN(6) {
			r := &rules[random.IntN(len(rules))].Meta
			switch random.IntN(3) {
			case 0:
				res.Findings = append(res.Findings, &validators.Finding{Rule: r, Preexisting: random.IntN(2) == 0})
			case 1:
				res.Skipped = append(res.Skipped, validators.Skipped{Rule: r, Unknown: random.IntN(2) == 0})
			case 2:
				res.Errors = append(res.Errors, validators.RuleError{Rule: r, Err: errors.New("x")})
			}
		}
		d := p.Decide(res, nil)
		if !d.Allowed() || len(d.Deny)+len(d.Warn) > 0 || !d.AuditOnly {
			t.Fatalf("denies or warns: %+v\n%s", d, spec)
		}
		if len(d.Audit) != len(res.Findings) || len(d.Unknown)+len(d.Skipped) != len(res.Skipped) || len(d.Errors) != len(res.Errors) {
			t.Fatalf("does not record everything: %+v of %+v\n%s", d, res, spec)
		}
	}
}

func TestPolicy_Mutate(t *testing.T) {
	const mutation = "  mutations: {target-namespace: [{match: {path: '^\\./apps/(?P<ns>[^/]+)/'}, targetNamespace: '{ns}'}]}\n"
	readable := lookup.NewMemory(namespace("airflow", nil))
	request := validators.Request{Stage: validators.StageAdmission, Operation: validators.Create, Object: kustomization("flux-system", nil)}
	if res := compile(t, mutation).Mutate(t.Context(), request, readable); len(res.Edits) != 1 {
		t.Errorf("edits %v, want one", res.Edits)
	}
	res := compile(t, "  mode: AuditOnly\n"+mutation).Mutate(t.Context(), request, readable)
	if len(res.Edits) != 0 || len(res.Skipped) != 1 || !strings.Contains(res.Skipped[0], "AuditOnly: would add spec.targetNamespace: the policy maps this Kustomization to namespace airflow") {
		t.Errorf("AuditOnly: %+v, want no edit and a record of it", res)
	}
	if res := compile(t, "  mode: Enforce\n").Mutate(t.Context(), request, readable); len(res.Edits)+len(res.Skipped) != 0 {
		t.Errorf("without settings: %+v, want nothing", res)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(document("  mode: AuditOnly\n")))
	f.Add([]byte(document("  rules: {kustomization-namespace: {action: \"Off\"}}\n")))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("{\"apiVersion\": \"flux-admission.dev/v1alpha1\", \"kind\": \"AdmissionPolicy\", \"spec\": {\"exemptions\": [{}]}}"))
	s, m := suite(f), set(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := policy.Parse("fuzz", data)
		if err != nil {
			return
		}
		// Compile does not panic for any policy that Parse accepts.
		_, _ = policy.Compile(p, s, m, nil)
	})
}

// The ID of a rule is not its key, and a namespace that cannot exist is no allowed one.
func TestCompile_Suggestions(t *testing.T) {
	for text, want := range map[string]string{
		"  rules: {KS001: {action: Warn}}\n":                                                `spec.rules.KS001: unknown rule; did you mean "kustomization-namespace"?`,
		"  rules: {kustomization-namespace: {allowedNamespaces: ['Flux System']}}\n":        `allowedNamespaces[0]: no namespace can be named "Flux System"`,
		"  rules: {kustomization-target-namespace: {requiredFor: [{namespaces: [A_B]}]}}\n": `requiredFor[0].namespaces[0]: no namespace can be named "A_B"`,
	} {
		parsed, err := policy.Parse("p.yaml", []byte(document(text)))
		if err == nil {
			_, err = policy.Compile(parsed, suite(t), set(t), nil)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v\nwant %s", text, err, want)
		}
	}
}

// The errors of Compile and ParseObject name the line of their field, as those of Parse do.
func TestLocate_Lines(t *testing.T) {
	text := document("  rules:\n    KS001: {action: Warn}\n  overrides:\n  - namespaces: [a]\n    rules: [nope]\n    action: Warn\n")
	parsed, err := policy.Parse("p.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "p.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	position := func(at validators.Path) validators.Position { return policy.PositionIn(file, at) }
	_, err = policy.Compile(parsed, suite(t), set(t), nil)
	want := file + `:6: spec.rules.KS001: unknown rule; did you mean "kustomization-namespace"?` + "\n" +
		file + `:9: spec.overrides[0].rules[0]: unknown rule "nope"`
	if got := policy.Locate(err, position); got == nil || got.Error() != want {
		t.Errorf("Compile: %v\nwant %s", got, want)
	}
	_, err = policy.ParseObject([]byte(`{"apiVersion": "flux-admission.dev/v1alpha1", "kind": "AdmissionPolicy", "metadata": {"name": "default"}, "spec": {"overides": []}}`))
	want = file + `:4: spec.overides: unknown field; did you mean "spec.overrides"?`
	if got := policy.Locate(err, position); got == nil || got.Error() != want {
		t.Errorf("ParseObject: %v\nwant %s", got, want)
	}
	if other := errors.New("x"); !errors.Is(policy.Locate(other, position), other) {
		t.Error("another error is lost")
	}
	if policy.Locate(nil, position) != nil {
		t.Error("no error becomes one")
	}
}

// Rules that are newer than the ruleset of the policy warn until the policy lists them or its ruleset is raised.
func TestCompile_Ruleset(t *testing.T) {
	rules := allvalidators.Rules()
	newer := *rules[0]
	newer.Doc.Since = "v0.9.0"
	s, err := validators.NewSuite(append([]*validators.Rule{&newer}, rules[1:]...)...)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]v1alpha1.Action{
		"  ruleset: v0.1.0\n": v1alpha1.ActionWarn,
		"  mode: Enforce\n":   v1alpha1.ActionWarn, // the ruleset of the CRD
		"  ruleset: v0.9.0\n": v1alpha1.ActionDeny,
		"  ruleset: v0.1.0\n  rules: {kustomization-namespace: {}}\n": v1alpha1.ActionDeny,
	} {
		parsed, err := policy.Parse("p.yaml", []byte(document(text)))
		if err != nil {
			t.Fatal(err)
		}
		p, err := policy.Compile(parsed, s, set(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		active, _ := p.Rules()
		if active[0].Name != newer.Name || active[0].Action != want {
			t.Errorf("%s: %v, want %s", text, active[0], want)
		}
		if warned := strings.Contains(strings.Join(p.Warnings(), ""), newer.Name); warned != (want == v1alpha1.ActionWarn) {
			t.Errorf("%s: warnings %q", text, p.Warnings())
		}
	}
}

// The default of spec.ruleset in the CRD is the release of the newest rule.
func TestRuleset(t *testing.T) {
	parsed, err := policy.Parse("p.yaml", []byte(document("  mode: Enforce\n")))
	if err != nil {
		t.Fatal(err)
	}
	var all []*validators.Meta
	for _, r := range allvalidators.Rules() {
		all = append(all, &r.Meta)
	}
	if want := policy.Ruleset(all); parsed.Spec.Ruleset != want {
		t.Errorf("the default is %s, want %s", parsed.Spec.Ruleset, want)
	}
}

// An exemption by path or cluster applies to what comes from a tree, and the author is warned that it does not at admission.
func TestPolicy_ExemptionsOfATree(t *testing.T) {
	from := policy.Origin{Cluster: "clusters/prod", Files: func(*validators.Finding) []string { return []string{"apps/web/ks.yaml"} }}
	for match, want := range map[string]bool{
		"paths: [apps/web/ks.yaml]":               true,
		"paths: ['apps/*']":                       true,
		"paths: [apps]":                           false,
		"paths: ['apps/*'], names: [other]":       false,
		"clusters: [prod]":                        true,
		"clusters: [clusters/prod]":               true,
		"clusters: [rod]":                         false,
		"clusters: ['*'], paths: ['apps/db/*']":   false,
		"clusters: ['cl*'], paths: ['*/ks.yaml']": true,
	} {
		p := compile(t, "  exemptions: [{rules: [KS001], match: {"+match+"}, reason: x}]\n")
		r := validators.Request{Stage: validators.StageOffline, Operation: validators.Create, Object: kustomization("prod", nil)}
		look := lookup.NewMemory(namespace("prod", nil))
		if got := len(p.EvaluateFrom(t.Context(), r, look, from).Exempted) == 1; got != want {
			t.Errorf("%s: exempt is %t, want %t", match, got, want)
		}
		r.Stage = validators.StageAdmission
		if d := p.Evaluate(t.Context(), r, look); len(d.Exempted) > 0 || len(d.Deny) == 0 {
			t.Errorf("%s: exempt at admission", match)
		}
		if text := strings.Join(p.Warnings(), "\n"); !strings.Contains(text, "spec.exemptions[0] has paths or clusters") {
			t.Errorf("%s: warnings are %q", match, text)
		}
	}
}

// What a limited finding would have been is told apart from what was done, and a finding that Enforce would not deny is none that
// AuditOnly spared.
func TestPolicy_Limited(t *testing.T) {
	const preexisting, deny = "preexisting", "would deny"
	for spec, want := range map[string]string{
		"  mode: Enforce\n":   "[]",
		"  mode: AuditOnly\n": "[Deny Audit AuditOnly would deny]",
		"  exemptions: [{rules: [KS001], match: {names: [apps]}, reason: x}]\n":                 "[Deny Audit exempt at spec.exemptions[0]]",
		"  mode: AuditOnly\n  rules: {kustomization-namespace: {action: Warn}}\n":               "[Warn Audit AuditOnly]",
		"  mode: AuditOnly\n  exemptions: [{rules: ['*'], match: {names: ['*']}, reason: x}]\n": "[Deny Audit exempt at spec.exemptions[0]]",
		"  mode: AuditOnly\n  overrides: [{namespaces: ['*'], rules: ['*'], action: Audit}]\n":  "[]",
		"  mode: AuditOnly\n# " + preexisting:                                                   "[Deny Warn ratchet Warn Audit AuditOnly]",
		"  mode: AuditOnly\n  ratchet: Disabled\n# " + preexisting:                              "[Deny Audit AuditOnly would deny]",
	} {
		r := validators.Request{Stage: validators.StageAdmission, Operation: validators.Create, Object: kustomization("prod", nil)}
		if strings.HasSuffix(spec, preexisting) {
			r.Operation, r.Old = validators.Update, kustomization("prod", nil)
		}
		d := compile(t, spec).Evaluate(t.Context(), r, lookup.NewMemory(namespace("prod", nil)))
		var got []string
		for _, l := range d.Limited {
			got = append(got, string(l.Action), string(l.Taken), l.Reason)
		}
		for _, e := range d.Exempted {
			got = append(got, "at", e.At)
		}
		if d.WouldDeny {
			got = append(got, deny)
		}
		if fmt.Sprint(got) != want {
			t.Errorf("%s: limited %v, want %s", spec, got, want)
		}
	}
}
