// Package conformance_test requires the same findings from every driver of the rules: every case of every rule goes
// through the Suite, through an HTTP AdmissionReview and through the check of a Git tree.
package conformance_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/test/ruletest"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
	"github.com/flux-admission/flux-admission/webhook"
	"github.com/flux-admission/flux-admission/webhook/metrics"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// TestAdmissionReview sends each case to the webhook server. The causes of the response must be the findings of the
// suite.
func TestAdmissionReview(t *testing.T) {
	for _, rule := range allvalidators.Rules() {
		if !rule.Stages.Has(validators.StageAdmission) {
			continue
		}
		for _, c := range cases(t, rule) {
			t.Run(rule.Name+"/"+c.Name, func(t *testing.T) {
				look := c.Lookup(t, resolver)
				request := c.Request
				request.Stage = validators.StageAdmission
				request.Provenance = nil // nobody knows at admission what the object was built from
				found := ruletest.Own(c.Suite(t, rule).Evaluate(t.Context(), request, look), rule)
				var want []string
				for _, f := range found.Findings {
					if !f.Uncertain { // no policy denies it: it is a warning
						want = append(want, f.Path.String()+": "+f.Message)
					}
				}
				// The webhook server reads other objects from informers, which do not keep all of them.
				for _, o := range c.Objects {
					stripped, err := lookup.Strip(o.DeepCopy())
					if err != nil {
						t.Fatal(err)
					}
					look.Add(stripped.(*unstructured.Unstructured))
				}
				response := review(t, compile(t, c, rule), look, c.Request)
				var got []string
				if response.Result != nil && response.Result.Details != nil {
					for _, cause := range response.Result.Details.Causes {
						message, _, _ := strings.Cut(cause.Message, " ("+rule.ID)
						got = append(got, cause.Field+": "+message)
					}
				}
				slices.Sort(want)
				slices.Sort(got)
				// An update that changes no field that a rule reads is not evaluated: the match conditions do not send it to the
				// webhook.
				if c.Request.Old != nil && webhookconfig.Unchanged(c.Request.Object, c.Request.Old) {
					if !response.Allowed {
						t.Errorf("an update without changes is denied: %v", got)
					}
					return
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("findings (-suite +review):\n%s", diff)
				}
				if response.Allowed != (len(want) == 0) {
					t.Errorf("allowed: %t with %d findings", response.Allowed, len(want))
				}
			})
		}
	}
}

func cases(t *testing.T, rule *validators.Rule) []*ruletest.Case {
	t.Helper()
	list, err := ruletest.Load(ruletest.Dir(t, "../..", rule))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// policyText returns a policy with the case's parameters that denies all findings of the rule, those of the stored
// object too. Other rules are off, except for those that supersede the rule.
func policyText(t *testing.T, c *ruletest.Case, rule *validators.Rule) []byte {
	t.Helper()
	rules := map[string]any{}
	for _, other := range allvalidators.Rules() {
		rules[other.Name] = map[string]any{"action": "Off"}
	}
	for _, other := range ruletest.WithSuperseding(rule) {
		rules[other.Name] = map[string]any{"action": "Audit"}
	}
	settings := map[string]any{}
	if err := yaml.Unmarshal(c.Params, &settings); err != nil {
		t.Fatal(err)
	}
	settings["action"] = "Deny"
	rules[rule.Name] = settings
	text, err := json.Marshal(map[string]any{
		"apiVersion": "flux-admission.dev/v1alpha1", "kind": "AdmissionPolicy", "metadata": map[string]any{"name": "default"},
		"spec": map[string]any{"ratchet": "Disabled", "rules": rules},
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// compile returns the compiled policy of policyText.
func compile(t *testing.T, c *ruletest.Case, rule *validators.Rule) *policy.Policy {
	t.Helper()
	parsed, err := policy.Parse(c.Name, policyText(t, c, rule))
	if err != nil {
		t.Fatal(err)
	}
	suite, err := validators.NewSuite(allvalidators.Rules()...)
	if err != nil {
		t.Fatal(err)
	}
	none, err := mutators.NewSet()
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Compile(parsed, suite, none, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// review sends the request as an API server does and returns the response.
func review(t *testing.T, p *policy.Policy, look validators.Lookup, r validators.Request) *admissionv1.AdmissionResponse {
	t.Helper()
	counts := metrics.New(prometheus.NewRegistry())
	inForce := func() webhook.Policy { return p }
	server := httptest.NewServer(webhook.NewServer(
		&webhook.Validator{Policy: inForce, Lookup: look, Metrics: counts, Log: logr.Discard()},
		&webhook.Mutator{Policy: inForce, Lookup: look, Log: logr.Discard()},
		&webhook.PolicyValidator{Check: func([]byte) ([]string, error) { return nil, nil }, Log: logr.Discard()},
		counts, logr.Discard(),
	))
	defer server.Close()
	gvk := r.Object.GroupVersionKind()
	request := &admissionv1.AdmissionRequest{
		UID: "1", Kind: metav1.GroupVersionKind{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind},
		Namespace: r.Object.GetNamespace(), Name: r.Object.GetName(), Operation: admissionv1.Operation(r.Operation),
		Object: raw(t, r.Object),
	}
	if r.Old != nil {
		request.OldObject = raw(t, r.Old)
	}
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: request,
	})
	if err != nil {
		t.Fatal(err)
	}
	httpRequest, err := http.NewRequestWithContext(
		t.Context(), http.MethodPost, server.URL+webhookconfig.ValidatePath+"?timeout=10s", bytes.NewReader(body),
	)
	if err != nil {
		t.Fatal(err)
	}
	httpRequest.Header.Set("Content-Type", "application/json")
	response, err := server.Client().Do(httpRequest)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var out admissionv1.AdmissionReview
	if err := json.NewDecoder(response.Body).Decode(&out); err != nil || out.Response == nil {
		t.Fatal(fmt.Errorf("status %d: %w", response.StatusCode, err))
	}
	return out.Response
}

func raw(t *testing.T, o *unstructured.Unstructured) runtime.RawExtension {
	t.Helper()
	data, err := o.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return runtime.RawExtension{Raw: data}
}
