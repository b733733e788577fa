// Package parity_test holds the front ends to the same verdict: every case of every rule goes through the Suite and through an HTTP
// AdmissionReview, and the findings must be the same.
package conformance_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/test/ruletest"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
	"github.com/flux-admission/flux-admission/webhook"
	"github.com/flux-admission/flux-admission/webhook/metrics"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

func TestSuiteAndAdmissionReviewFindTheSame(t *testing.T) {
	for _, rule := range allvalidators.Rules() {
		if !rule.AtAdmission() {
			continue // not asked at admission: the API server has put the object to its schema itself
		}
		for _, c := range cases(t, rule) {
			t.Run(rule.Name+"/"+c.Name, func(t *testing.T) {
				look := c.Lookup(t, resolver)
				request := c.Request
				request.Admission = true // as the webhook asks
				found := c.Suite(t, rule).Evaluate(t.Context(), request, look)
				want := make([]string, 0, len(found.Findings))
				for _, f := range found.Findings {
					want = append(want, f.Path.String()+": "+f.Message)
				}
				answer := review(t, compile(t, c, rule), look, c.Request)
				var got []string
				if answer.Result != nil && answer.Result.Details != nil {
					for _, cause := range answer.Result.Details.Causes {
						message, _, _ := strings.Cut(cause.Message, " ("+rule.ID)
						got = append(got, cause.Field+": "+message)
					}
				}
				slices.Sort(want)
				slices.Sort(got)
				// A write that changes nothing a rule reads is not judged at the door: the API server does not even ask.
				if c.Request.Old != nil && webhookconfig.Unchanged(c.Request.Object, c.Request.Old) {
					if !answer.Allowed {
						t.Errorf("an unchanged update is refused: %v", got)
					}
					return
				}
				if !slices.Equal(got, want) {
					t.Errorf("the review finds\n%s\nthe suite\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				if answer.Allowed != (len(want) == 0) {
					t.Errorf("allowed: %t with %d findings", answer.Allowed, len(want))
				}
			})
		}
	}
}

func cases(t *testing.T, rule *validators.Rule) []*ruletest.Case {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join("..", "..", "validators", "*", "testdata", strings.ToLower(rule.ID)))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("rule %s: want one directory of cases, have %v (%v)", rule.ID, dirs, err)
	}
	list, err := ruletest.Load(dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// compile makes a policy of the case's parameters in which the rule refuses everything it finds, old mistakes too.
func compile(t *testing.T, c *ruletest.Case, rule *validators.Rule) *policy.Policy {
	t.Helper()
	settings := map[string]any{}
	if err := yaml.Unmarshal(c.Params, &settings); err != nil {
		t.Fatal(err)
	}
	settings["action"] = "Deny"
	text, err := json.Marshal(map[string]any{
		"apiVersion": "flux-admission.dev/v1alpha1", "kind": "AdmissionPolicy", "metadata": map[string]any{"name": "default"},
		"spec": map[string]any{"ratchet": "Disabled", "rules": map[string]any{rule.Name: settings}},
	})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := policy.Parse(c.Name, text)
	if err != nil {
		t.Fatal(err)
	}
	suite, err := validators.NewSuite(rule)
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

// review sends the request as an API server does and returns the answer.
func review(t *testing.T, p *policy.Policy, look validators.Lookup, r validators.Request) *admissionv1.AdmissionResponse {
	t.Helper()
	counts := metrics.New(prometheus.NewRegistry())
	gate := func() webhook.Gate { return p }
	server := httptest.NewServer(webhook.NewServer(
		&webhook.Validator{Policy: gate, Lookup: look, Metrics: counts, Log: logr.Discard()},
		&webhook.Mutator{Policy: gate, Lookup: look, Metrics: counts, Log: logr.Discard()},
		&webhook.PolicyValidator{Check: func([]byte) error { return nil }, Log: logr.Discard()},
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
	body, err := json.Marshal(admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: request})
	if err != nil {
		t.Fatal(err)
	}
	httpRequest, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+webhookconfig.ValidatePath+"?timeout=10s", bytes.NewReader(body))
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
