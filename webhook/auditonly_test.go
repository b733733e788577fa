package webhook_test

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/test/ruletest"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// blind is a lookup in which everything is Unknown.
type blind struct{}

var errBlind = errors.New("the API server does not respond")

func (blind) Get(context.Context, schema.GroupKind, types.NamespacedName) (*unstructured.Unstructured, validators.Presence, error) {
	return nil, validators.Unknown, errBlind
}

func (blind) List(context.Context, schema.GroupKind, string) ([]*unstructured.Unstructured, validators.Presence, error) {
	return nil, validators.Unknown, errBlind
}

func (blind) Namespace(context.Context, string) (*unstructured.Unstructured, validators.Presence, error) {
	return nil, validators.Unknown, errBlind
}

func (blind) Chart(context.Context, validators.ChartRef) (validators.Chart, validators.Presence, error) {
	return nil, validators.Unknown, errBlind
}

func (blind) Build(context.Context, types.NamespacedName) (*validators.Build, validators.Presence, error) {
	return nil, validators.Unknown, errBlind
}

func (blind) Owners(context.Context, schema.GroupKind, types.NamespacedName) ([]types.NamespacedName, validators.Presence, error) {
	return nil, validators.Unknown, errBlind
}

func (blind) Kind(context.Context, schema.GroupKind) (*validators.Kind, validators.Presence, error) {
	return nil, validators.Unknown, errBlind
}

// auditOnly returns a policy with the action Deny in mode AuditOnly.
func auditOnly(t *testing.T, rule *validators.Rule, params []byte) *policy.Policy {
	t.Helper()
	settings := map[string]any{}
	if err := yaml.Unmarshal(params, &settings); err != nil {
		t.Fatal(err)
	}
	settings["action"], settings["onUnknown"] = "Deny", "Deny"
	text, err := json.Marshal(map[string]any{
		"apiVersion": "flux-admission.dev/v1alpha1", "kind": "AdmissionPolicy", "metadata": map[string]any{"name": "default"},
		"spec": map[string]any{"mode": "AuditOnly", "ratchet": "Disabled", "onError": "Deny", "rules": map[string]any{rule.Name: settings}},
	})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := policy.Parse("audit-only", text)
	if err != nil {
		t.Fatal(err)
	}
	suite, err := validators.NewSuite(rule)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Compile(parsed, suite, &mutators.Set{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestAuditOnly_AllowsAndRecordsEverything evaluates every case of every rule in mode AuditOnly: as it is, with a panic
// in the rule, and with a lookup in which everything is Unknown.
func TestAuditOnly_AllowsAndRecordsEverything(t *testing.T) {
	for _, rule := range allvalidators.Rules() {
		if !rule.Stages.Has(validators.StageAdmission) {
			continue // not evaluated at admission
		}
		dirs, err := filepath.Glob(filepath.Join("..", "validators", "*", "testdata", strings.ToLower(rule.ID)))
		if err != nil || len(dirs) != 1 {
			t.Fatalf("the cases of rule %s: %v, %v", rule.ID, dirs, err)
		}
		cases, err := ruletest.Load(dirs[0])
		if err != nil {
			t.Fatal(err)
		}
		panics := *rule
		panics.Check = func(context.Context, *validators.Pass) error { panic("boom") }
		for _, c := range cases {
			c.Request.Stage = validators.StageAdmission
			c.Request.Provenance = nil // no review has it
			for _, variant := range []struct {
				name   string
				rule   *validators.Rule
				lookup validators.Lookup
			}{
				{"as it is", rule, c.Lookup(t, nil)},
				{"with a panic", &panics, c.Lookup(t, nil)},
				{"with a lookup that fails", rule, blind{}},
			} {
				t.Run(rule.Name+"/"+c.Name+"/"+variant.name, func(t *testing.T) {
					checkAuditOnly(t, auditOnly(t, variant.rule, c.Params), c, variant.lookup)
				})
			}
		}
	}
}

func checkAuditOnly(t *testing.T, p *policy.Policy, c *ruletest.Case, l validators.Lookup) {
	t.Helper()
	// The decision that is to be recorded.
	d := p.Evaluate(t.Context(), c.Request, l)
	if !d.Allowed() || len(d.Deny)+len(d.Warn) > 0 {
		t.Fatalf("the decision denies or warns: %+v", d)
	}
	b := newTestServerWith(p, l, logr.Discard())
	gvk := c.Request.Object.GroupVersionKind()
	request := &admissionv1.AdmissionRequest{
		UID: "u-1", Kind: metav1.GroupVersionKind{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind},
		Namespace: c.Request.Object.GetNamespace(), Name: c.Request.Object.GetName(), Operation: admissionv1.Operation(c.Request.Operation),
	}
	dry := true
	request.DryRun = &dry
	var err error
	if request.Object.Raw, err = c.Request.Object.MarshalJSON(); err != nil {
		t.Fatal(err)
	}
	if c.Request.Old != nil {
		if request.OldObject.Raw, err = c.Request.Old.MarshalJSON(); err != nil {
			t.Fatal(err)
		}
	}
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: request,
	})
	if err != nil {
		t.Fatal(err)
	}
	response := b.post(t, webhookconfig.ValidatePath, string(body))
	if !response.Allowed || len(response.Warnings) > 0 {
		t.Errorf("allowed %v, warnings %q; want it allowed without warnings", response.Allowed, response.Warnings)
	}
	if c.Request.Old != nil && webhookconfig.Unchanged(c.Request.Object, c.Request.Old) {
		return // skipped
	}
	if got, want := sum(t, b, "flux_admission_findings_total"), float64(len(d.Audit)); got != want {
		t.Errorf("%v findings counted, want %v", got, want)
	}
	if got, want := sum(t, b, "flux_admission_rule_errors_total"), float64(len(d.Errors)); got != want {
		t.Errorf("%v rule errors counted, want %v", got, want)
	}
	if got, want := sum(t, b, "flux_admission_unknown_evaluations_total"), float64(len(d.Unknown)); got != want {
		t.Errorf("%v unknowns counted, want %v", got, want)
	}
	if got := sum(t, b, "flux_admission_audited_denials_total") > 0; got != d.WouldDeny {
		t.Errorf("counted as a denial by Enforce: %t, want %t", got, d.WouldDeny)
	}
	for key, n := range map[string]int{"audit-violations": len(d.Audit), "error": len(d.Errors), "unknown": len(d.Unknown)} {
		if got := response.AuditAnnotations[key]; (got != "") != (n > 0) {
			t.Errorf("audit annotation %s is %q with %d to record", key, got, n)
		}
	}
	if len(d.Audit)+len(d.Errors)+len(d.Unknown) > 0 && response.AuditAnnotations["enforce-policy"] != "AuditOnly" {
		t.Errorf("the audit annotations %v do not name the mode", response.AuditAnnotations)
	}
}
