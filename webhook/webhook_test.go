package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	ssaerrors "github.com/fluxcd/pkg/ssa/errors"
	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
	"github.com/flux-admission/flux-admission/webhook"
	"github.com/flux-admission/flux-admission/webhook/metrics"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// fakePolicy is a policy with a given decision and result.
type fakePolicy struct {
	decision policy.Decision
	result   mutators.Result
	review   func(context.Context, validators.Request) // called by Evaluate and Mutate
	onError  v1alpha1.Action
	mutates  bool
}

func (g *fakePolicy) OnError() v1alpha1.Action { return g.onError }

func (g *fakePolicy) Handles(gk schema.GroupKind) bool { return gk == flux.Kustomization }

func (g *fakePolicy) Mutates(gk schema.GroupKind) bool { return g.mutates && gk == flux.Kustomization }

func (g *fakePolicy) Evaluate(ctx context.Context, r validators.Request, _ validators.Lookup) policy.Decision {
	if g.review != nil {
		g.review(ctx, r)
	}
	return g.decision
}

func (g *fakePolicy) Mutate(ctx context.Context, r validators.Request, _ validators.Lookup) mutators.Result {
	if g.review != nil {
		g.review(ctx, r)
	}
	return g.result
}

// testServer is a server without TLS, and its metrics.
type testServer struct {
	handler  http.Handler
	registry *prometheus.Registry
}

func newTestServer(g webhook.Policy, log logr.Logger) testServer {
	return newTestServerWith(g, lookup.NewMemory(), log)
}

func newTestServerWith(g webhook.Policy, objects validators.Lookup, log logr.Logger) testServer {
	b := testServer{registry: prometheus.NewRegistry()}
	counts := metrics.New(b.registry, flux.Kustomization)
	inForce := func() webhook.Policy { return g }
	b.handler = webhook.NewServer(
		&webhook.Validator{Policy: inForce, Lookup: objects, Metrics: counts, Log: log},
		&webhook.Mutator{Policy: inForce, Lookup: objects, Log: log},
		&webhook.PolicyValidator{Check: func(data []byte) ([]string, error) {
			if bytes.Contains(data, []byte("wrong")) {
				return nil, errors.New("spec.mode: Unsupported value: use Enforce or AuditOnly")
			}
			return nil, nil
		}, Log: log},
		counts, log,
	)
	return b
}

// post sends a body and returns the response. The timeout is the longest one unless the path has another, so that no result
// depends on the speed of the machine.
func (b testServer) post(t *testing.T, path, body string) *admissionv1.AdmissionResponse {
	t.Helper()
	if !strings.Contains(path, "?") {
		path += "?timeout=30s"
	}
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body)))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(w.Body.Bytes(), &review); err != nil {
		t.Fatalf("the response is not an AdmissionReview: %v\n%s", err, w.Body)
	}
	if review.Kind != "AdmissionReview" || review.APIVersion != "admission.k8s.io/v1" || review.Response == nil {
		t.Fatalf("the response is not an AdmissionReview of v1: %s", w.Body)
	}
	return review.Response
}

// outcome returns the outcome of the only review that was counted.
func (b testServer) outcome(t *testing.T) string {
	t.Helper()
	families, err := b.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		if f.GetName() != "flux_admission_reviews_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "outcome" {
					out = append(out, l.GetValue())
				}
			}
		}
	}
	return strings.Join(out, ",")
}

// write describes an admission request.
type write struct {
	operation   admissionv1.Operation
	object, old string
	subresource string
	kind        string
}

const kustomization = `{"apiVersion":"kustomize.toolkit.fluxcd.io/v1","kind":"Kustomization","metadata":{"name":"x","namespace":"apps"},"spec":{"path":"./x"}}`

func (w write) body(t testing.TB) string {
	t.Helper()
	kind := metav1.GroupVersionKind{Group: flux.Kustomization.Group, Version: "v1", Kind: "Kustomization"}
	if w.kind != "" {
		kind.Kind = w.kind
	}
	request := admissionv1.AdmissionRequest{UID: "u-1", Kind: kind, Name: "x", Namespace: "apps", Operation: w.operation, SubResource: w.subresource}
	if w.object != "" {
		request.Object.Raw = []byte(w.object)
	}
	if w.old != "" {
		request.OldObject.Raw = []byte(w.old)
	}
	data, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: &request,
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func rule(id, name string, s validators.Severity) *validators.Meta {
	return &validators.Meta{ID: id, Name: name, Severity: s, Scope: validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}}}
}

var (
	bad  = rule("XX001", "bad-thing", validators.SeverityError)
	odd  = rule("XX002", "odd-thing", validators.SeverityWarning)
	path = validators.NewPath("spec", "path")
)

func finding(m *validators.Meta, at validators.Path, message string) *validators.Finding {
	return &validators.Finding{Diagnostic: validators.Diagnostic{Message: message, Fix: "Write something else."}, Rule: m, Path: at}
}

func TestValidator_SkipsWrites(t *testing.T) {
	with := func(meta string) string {
		return strings.Replace(kustomization, `"name":"x"`, `"name":"x",`+meta, 1)
	}
	for name, tc := range map[string]struct {
		write
		evaluated bool
	}{
		"a create is evaluated":                                   {write{operation: admissionv1.Create, object: kustomization}, true},
		"an update of the spec is evaluated":                      {write{operation: admissionv1.Update, object: kustomization, old: strings.Replace(kustomization, "./x", "./y", 1)}, true},
		"an update of a label is evaluated":                       {write{operation: admissionv1.Update, object: with(`"labels":{"a":"b"}`), old: kustomization}, true},
		"an update of the last-applied manifest is evaluated":     {write{operation: admissionv1.Update, object: with(`"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}"}`), old: kustomization}, true},
		"a deletion passes":                                       {write{operation: admissionv1.Delete, old: kustomization}, false},
		"a connect is skipped":                                    {write{operation: admissionv1.Connect, object: kustomization}, false},
		"an unknown operation is skipped":                         {write{operation: "PATCH", object: kustomization}, false},
		"a write of the status is skipped":                        {write{operation: admissionv1.Update, subresource: "status", object: kustomization, old: kustomization}, false},
		"an object that is being deleted is skipped":              {write{operation: admissionv1.Update, object: with(`"deletionTimestamp":"2026-11-23T10:00:00Z"`), old: strings.Replace(kustomization, "./x", "./y", 1)}, false},
		"a change of finalizers only is skipped":                  {write{operation: admissionv1.Update, object: with(`"finalizers":["a"],"resourceVersion":"2"`), old: kustomization}, false},
		"a change of an annotation that no rule reads is skipped": {write{operation: admissionv1.Update, object: with(`"annotations":{"reconcile.fluxcd.io/requestedAt":"now"}`), old: kustomization}, false},
		"a change of managed fields and status only is skipped":   {write{operation: admissionv1.Update, object: strings.Replace(with(`"managedFields":[{}],"generation":2`), `"spec"`, `"status":{"a":1},"spec"`, 1), old: kustomization}, false},
		"a kind without rules is skipped":                         {write{operation: admissionv1.Create, kind: "Other", object: `{"kind":"Other"}`}, false},
		"an object of a kind without rules is not decoded":        {write{operation: admissionv1.Create, kind: "Other", object: `[1]`}, false},
	} {
		t.Run(name, func(t *testing.T) {
			evaluated := false
			g := &fakePolicy{
				decision: policy.Decision{Deny: []*validators.Finding{finding(bad, path, "it is bad")}},
				review:   func(context.Context, validators.Request) { evaluated = true },
			}
			b := newTestServer(g, logr.Discard())
			response := b.post(t, webhookconfig.ValidatePath, tc.body(t))
			if evaluated != tc.evaluated || response.Allowed == tc.evaluated {
				t.Errorf("evaluated %v, allowed %v; want evaluated %v", evaluated, response.Allowed, tc.evaluated)
			}
			if response.UID != "u-1" {
				t.Errorf("UID %q, want u-1", response.UID)
			}
			if !tc.evaluated && (b.outcome(t) != "skipped" || len(response.Warnings)+len(response.AuditAnnotations) > 0) {
				t.Errorf("outcome %s with %v; want skipped without warnings and annotations", b.outcome(t), response)
			}
		})
	}
}

func TestValidator_DenialHasAllFindings(t *testing.T) {
	findings := []*validators.Finding{
		finding(odd, validators.NewPath("spec", "missing"), "it is odd"),
		finding(bad, path, "it is bad"),
		finding(bad, path.Index(1), "it is bad too"),
	}
	b := newTestServer(&fakePolicy{decision: policy.Decision{Deny: findings}}, logr.Discard())
	response := b.post(t, webhookconfig.ValidatePath, write{operation: admissionv1.Create, object: kustomization}.body(t))
	if response.Allowed {
		t.Fatal("allowed")
	}
	const want = `3 problems:
- spec.path: it is bad (XX001 bad-thing)
- spec.path[1]: it is bad too. Write something else. (XX001 bad-thing)
- spec.missing: it is odd. Write something else. (XX002 odd-thing)`
	if response.Result.Message != want {
		t.Errorf("message (-want +got):\n%s", cmp.Diff(want, response.Result.Message))
	}
	if response.Result.Code != http.StatusUnprocessableEntity || response.Result.Reason != metav1.StatusReasonForbidden {
		t.Errorf("code %d, reason %s; want 422, Forbidden", response.Result.Code, response.Result.Reason)
	}
	wantCauses := []metav1.StatusCause{
		{Type: metav1.CauseTypeFieldValueInvalid, Field: "spec.path", Message: "it is bad (XX001 bad-thing)"},
		{Type: metav1.CauseTypeFieldValueRequired, Field: "spec.path[1]", Message: "it is bad too (XX001 bad-thing)"},
		{Type: metav1.CauseTypeFieldValueRequired, Field: "spec.missing", Message: "it is odd (XX002 odd-thing)"},
	}
	if diff := cmp.Diff(wantCauses, response.Result.Details.Causes); diff != "" {
		t.Errorf("causes (-want +got):\n%s", diff)
	}
	if got := response.AuditAnnotations["enforce-violations"]; !strings.Contains(got, "XX001 bad-thing spec.path: it is bad\n") {
		t.Errorf("audit annotation %q does not name the finding", got)
	}
	if got := sum(t, b, "flux_admission_findings_total"); got != 3 {
		t.Errorf("%v findings counted, want 3", got)
	}
}

// sum returns the sum of a counter over all its labels.
func sum(t *testing.T, b testServer, name string) float64 {
	t.Helper()
	families, err := b.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	total := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				total += m.GetCounter().GetValue()
			}
		}
	}
	return total
}

// TestValidator_DenialIsNotImmutableError calls the functions by which Flux and kubectl decide to delete an object.
func TestValidator_DenialIsNotImmutableError(t *testing.T) {
	for _, text := range []string{
		"the key is immutable", "is\timmutable", "an immutable field", "the immutable\nfield is immutable", "this is immutable field is immutable field",
		"field is\u00a0immutable", "is\x00 immutable",
	} {
		t.Run(text, func(t *testing.T) {
			f := finding(bad, validators.NewPath("spec", text), text)
			f.Fix = "The " + text + "."
			b := newTestServer(&fakePolicy{decision: policy.Decision{Deny: []*validators.Finding{f, f}}}, logr.Discard())
			response := b.post(t, webhookconfig.ValidatePath, write{operation: admissionv1.Create, object: kustomization}.body(t))
			// The API server makes this error of the response.
			result := *response.Result
			result.Message = `admission webhook "validate.flux-admission.dev" denied the request: ` + result.Message
			err := &apierrors.StatusError{ErrStatus: result}
			if ssaerrors.IsImmutableError(fmt.Errorf("Kustomization/apps/x dry-run failed (Forbidden): %w", err)) {
				t.Errorf("Flux takes this for a change of an immutable field: %s", err)
			}
			if apierrors.IsInvalid(err) || apierrors.IsConflict(err) {
				t.Errorf("kubectl apply --force deletes the object for %s", result.Reason)
			}
			if !strings.Contains(result.Message, "immutable") {
				t.Errorf("the message lacks the word: %s", result.Message)
			}
		})
	}
}

func TestValidator_Warnings(t *testing.T) {
	findings := []*validators.Finding{finding(odd, path, "it is odd"), finding(bad, path, strings.Repeat("ä", 300)+"\x1b[31m")}
	for i := range 100 {
		findings = append(findings, finding(odd, path.Index(i), strings.Repeat("x", 200)))
	}
	b := newTestServer(&fakePolicy{decision: policy.Decision{Warn: findings}}, logr.Discard())
	response := b.post(t, webhookconfig.ValidatePath, write{operation: admissionv1.Create, object: kustomization}.body(t))
	if !response.Allowed || b.outcome(t) != "warned" {
		t.Errorf("allowed %v, outcome %s; want a warning", response.Allowed, b.outcome(t))
	}
	if !strings.HasPrefix(response.Warnings[0], "XX001 spec.path: ää") || response.Warnings[1] != "XX002 spec.path: it is odd" {
		t.Errorf("first warnings %q; want the highest severity first", response.Warnings[:2])
	}
	total := 0
	for _, w := range response.Warnings {
		if len(w) > 256 || !utf8.ValidString(w) {
			t.Errorf("a warning of %d bytes: %q", len(w), w)
		}
		if _, err := utilnet.NewWarningHeader(299, "", w); err != nil {
			t.Errorf("the API server drops %q: %v", w, err)
		}
		total += utf8.RuneCountInString(w)
	}
	if total > 4096 {
		t.Errorf("%d characters of warnings; the API server cuts all of them above 4096", total)
	}
	if last := response.Warnings[len(response.Warnings)-1]; !strings.HasSuffix(last, " more") {
		t.Errorf("the last warning is %q; want how many more there are", last)
	}
}

func TestValidator_ResponseIsLimited(t *testing.T) {
	var findings []*validators.Finding
	for i := range 5000 {
		f := finding(bad, path.Child(strings.Repeat("k", 500)).Index(i), strings.Repeat("m", 500))
		f.Fix = strings.Repeat("f", 500)
		findings = append(findings, f)
	}
	b := newTestServer(&fakePolicy{decision: policy.Decision{Deny: findings, Audit: findings}}, logr.Discard())
	response := b.post(t, webhookconfig.ValidatePath+"?timeout=1h", write{operation: admissionv1.Create, object: kustomization}.body(t))
	if n := len(response.Result.Message); n > 17<<10 {
		t.Errorf("a message of %d bytes", n)
	}
	if !strings.HasPrefix(response.Result.Message, "5000 problems:\n") || !strings.HasSuffix(response.Result.Message, " more") {
		t.Errorf("the message lacks the number of findings: %.60s", response.Result.Message)
	}
	if n := len(response.Result.Details.Causes); n > 200 {
		t.Errorf("%d causes", n)
	}
	for key, value := range response.AuditAnnotations {
		if len(value) > 4<<10 {
			t.Errorf("audit annotation %s has %d bytes", key, len(value))
		}
	}
}

func TestHandler_AllowsWhatItCannotEvaluate(t *testing.T) {
	create := write{operation: admissionv1.Create, object: kustomization}
	deny := policy.Decision{Deny: []*validators.Finding{finding(bad, path, "it is bad")}}
	for name, tc := range map[string]struct {
		policy  webhook.Policy
		body    string
		query   string
		uid     string
		outcome string
		error   string
	}{
		"a panic":              {&fakePolicy{review: func(context.Context, validators.Request) { panic("secret-value") }}, create.body(t), "", "u-1", "failed", "internal error"},
		"no policy yet":        {nil, create.body(t), "", "u-1", "failed", "no policy is loaded yet"},
		"a timeout":            {&fakePolicy{decision: deny}, create.body(t), "?timeout=500ms", "u-1", "timeout", "the evaluation timed out"},
		"an empty body":        {&fakePolicy{decision: deny}, "", "", "", "failed", "the request is not an AdmissionReview"},
		"garbage":              {&fakePolicy{decision: deny}, "\x00\xff{]", "", "", "failed", "the request is not an AdmissionReview"},
		"another kind of JSON": {&fakePolicy{decision: deny}, `{"kind":"Pod"}`, "", "", "failed", "the request is not an AdmissionReview of admission.k8s.io/v1"},
		"a truncated review":   {&fakePolicy{decision: deny}, create.body(t)[:200], "", "u-1", "failed", "the request is not an AdmissionReview"},
		"a review of v1beta1":  {&fakePolicy{decision: deny}, strings.Replace(create.body(t), "admission.k8s.io/v1", "admission.k8s.io/v1beta1", 1), "", "u-1", "failed", "the request is not an AdmissionReview of admission.k8s.io/v1"},
		"an object that is a list": {&fakePolicy{decision: deny}, write{operation: admissionv1.Create, object: `[1]`}.body(t), "", "u-1", "failed",
			"the request's object is not a JSON object"},
		"no object": {&fakePolicy{decision: deny}, write{operation: admissionv1.Create}.body(t), "", "u-1", "failed", "the request's object is not a JSON object"},
		"an update without the stored object": {&fakePolicy{decision: deny}, write{operation: admissionv1.Update, object: kustomization}.body(t), "", "u-1", "failed",
			"the stored object: the request's object is not a JSON object"},
		"a body larger than any object that can be stored": {&fakePolicy{decision: deny},
			write{operation: admissionv1.Create, object: strings.Replace(kustomization, "./x", strings.Repeat("x", 8<<20), 1)}.body(t), "", "u-1", "failed",
			"the request is larger than 7340032 bytes"},
		"an object that takes far more memory than its text": {&fakePolicy{decision: deny},
			write{operation: admissionv1.Create, object: strings.Replace(kustomization, `"namespace"`, `"labels":[`+strings.Repeat(`{"a":0},`, 500_000)+`0],"namespace"`, 1)}.body(t), "", "u-1", "overloaded",
			"the object is too complex"},
		"deeply nested JSON": {&fakePolicy{decision: deny}, strings.Replace(create.body(t), `"./x"`, strings.Repeat("[", 1<<18), 1), "", "u-1", "failed",
			"the request is not an AdmissionReview"},
	} {
		for _, endpoint := range []string{webhookconfig.ValidatePath, webhookconfig.MutatePath} {
			t.Run(name+" at "+endpoint, func(t *testing.T) {
				var log strings.Builder
				logged := make(chan struct{})
				var once sync.Once
				g := tc.policy
				if tc.outcome == "timeout" {
					// The evaluation ends after the response to the timeout has begun, which the log shows.
					g = &fakePolicy{decision: deny, review: func(context.Context, validators.Request) { <-logged }}
				}
				b := newTestServer(g, logTo(io.MultiWriter(&log, writerFunc(func() { once.Do(func() { close(logged) }) }))))
				response := b.post(t, endpoint+tc.query, tc.body)
				if !response.Allowed {
					t.Fatalf("refused: %v", response.Result)
				}
				if string(response.UID) != tc.uid {
					t.Errorf("UID %q, want %q", response.UID, tc.uid)
				}
				if got := b.outcome(t); got != tc.outcome {
					t.Errorf("outcome %s; want %s", got, tc.outcome)
				}
				if got := response.AuditAnnotations["error"]; got != tc.error {
					t.Errorf("audit annotation %q, want %q", got, tc.error)
				}
				if want := "flux-admission did not evaluate this object: " + tc.error; len(response.Warnings) != 1 || response.Warnings[0] != want {
					t.Errorf("warnings %q, want %q", response.Warnings, want)
				}
				if strings.Contains(log.String(), "secret-value") {
					t.Errorf("the log quotes the value of a panic:\n%s", log.String())
				}
				if !strings.Contains(log.String(), tc.error) {
					t.Errorf("the log does not contain %q:\n%s", tc.error, log.String())
				}
			})
		}
	}
}

func TestHandler_OnErrorDeny(t *testing.T) {
	panics := func(context.Context, validators.Request) { panic("boom") }
	for name, tc := range map[string]struct {
		onError v1alpha1.Action
		path    string
		body    string
		denied  bool
	}{
		"a panic is denied if onError is Deny":       {v1alpha1.ActionDeny, webhookconfig.ValidatePath, write{operation: admissionv1.Create, object: kustomization}.body(t), true},
		"a panic is allowed if onError is Warn":      {v1alpha1.ActionWarn, webhookconfig.ValidatePath, write{operation: admissionv1.Create, object: kustomization}.body(t), false},
		"the mutating webhook never denies":          {v1alpha1.ActionDeny, webhookconfig.MutatePath, write{operation: admissionv1.Create, object: kustomization}.body(t), false},
		"an object that cannot be decoded is denied": {v1alpha1.ActionDeny, webhookconfig.ValidatePath, write{operation: admissionv1.Create, object: "[]"}.body(t), true},
		"a deletion is allowed":                      {v1alpha1.ActionDeny, webhookconfig.ValidatePath, write{operation: admissionv1.Delete, object: "[]"}.body(t), false},
		"a status is allowed":                        {v1alpha1.ActionDeny, webhookconfig.ValidatePath, write{operation: admissionv1.Update, subresource: "status", object: "[]"}.body(t), false},
		"a kind without rules is allowed":            {v1alpha1.ActionDeny, webhookconfig.ValidatePath, write{operation: admissionv1.Create, kind: "Other", object: "[]"}.body(t), false},
		"a request that is not a review is denied":   {v1alpha1.ActionDeny, webhookconfig.ValidatePath, "garbage", true},
		"an unchanged update is allowed":             {v1alpha1.ActionDeny, webhookconfig.ValidatePath, write{operation: admissionv1.Update, object: kustomization, old: kustomization}.body(t), false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newTestServer(&fakePolicy{review: panics, onError: tc.onError}, logr.Discard())
			response := b.post(t, tc.path, tc.body)
			if response.Allowed == tc.denied {
				t.Fatalf("allowed %v, want %v", response.Allowed, !tc.denied)
			}
			if tc.denied && (response.Result.Reason != metav1.StatusReasonForbidden || !strings.HasPrefix(response.Result.Message, "flux-admission could not evaluate this object, and the policy's onError is Deny: ")) {
				t.Errorf("result %v", response.Result)
			}
		})
	}
}

func TestHandler_RejectsOtherMethods(t *testing.T) {
	b := newTestServer(&fakePolicy{}, logr.Discard())
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, webhookconfig.ValidatePath, nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("status %d, want 405", w.Code)
	}
}

// TestHandler_Overload occupies the server with large requests that do not end: one more is refused with the reason, and an
// ordinary request is evaluated.
func TestHandler_Overload(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan struct{}, 16)
	g := &fakePolicy{
		decision: policy.Decision{Deny: []*validators.Finding{finding(bad, path, "it is bad")}},
		review: func(_ context.Context, r validators.Request) {
			if spec, _ := r.Object.Object["spec"].(map[string]any); len(spec["path"].(string)) > 1<<20 {
				started <- struct{}{}
				<-ctx.Done()
			}
		},
	}
	b := newTestServer(g, logr.Discard())
	large := write{operation: admissionv1.Create, object: strings.Replace(kustomization, "./x", strings.Repeat("x", 6<<20), 1)}.body(t)
	var running sync.WaitGroup
	for range 3 {
		running.Go(func() {
			w := httptest.NewRecorder()
			b.handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, webhookconfig.ValidatePath+"?timeout=30s", strings.NewReader(large)))
		})
		<-started
	}
	response := b.post(t, webhookconfig.ValidatePath+"?timeout=1s", strings.Replace(large, "u-1", "u-2", 1))
	if !response.Allowed || response.UID != "u-2" || response.AuditAnnotations["error"] != "too many concurrent requests" {
		t.Errorf("allowed %v, UID %s, %v; want it allowed with the reason", response.Allowed, response.UID, response.AuditAnnotations)
	}
	if got := b.outcome(t); got != "overloaded" {
		t.Errorf("outcome %s; want overloaded", got)
	}
	if response := b.post(t, webhookconfig.ValidatePath, write{operation: admissionv1.Create, object: kustomization}.body(t)); response.Allowed {
		t.Errorf("an ordinary request was not evaluated: %v", response.AuditAnnotations)
	}
	cancel()
	running.Wait()
	// The memory was given back.
	if response := b.post(t, webhookconfig.ValidatePath, large); response.Allowed {
		t.Error("allowed after the other requests ended; want a denial")
	}
}

// What the policy sets in a new object is there when the validating webhook is called, unless the mutating one was not.
func TestValidator_MissedMutations(t *testing.T) {
	missing := mutators.Result{Edits: []validators.Edit{{Op: validators.EditAdd, Path: validators.NewPath("spec", "targetNamespace"), Value: "a"}}}
	const text = "spec.targetNamespace was not set to a as the policy has it: the mutating webhook was not called, or failed; " +
		"set the field, or create the object anew"
	for name, tc := range map[string]struct {
		policy    fakePolicy
		operation admissionv1.Operation
		want      bool
	}{
		"a create without what the policy sets": {fakePolicy{mutates: true, result: missing}, admissionv1.Create, true},
		"a create with it":                      {fakePolicy{mutates: true}, admissionv1.Create, false},
		"an update, which sets nothing":         {fakePolicy{mutates: true, result: missing}, admissionv1.Update, false},
		"a policy without mutations":            {fakePolicy{result: missing}, admissionv1.Create, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newTestServer(&tc.policy, logr.Discard())
			sent := write{operation: tc.operation, object: kustomization}
			if tc.operation == admissionv1.Update {
				sent.old = strings.Replace(kustomization, "./x", "./y", 1)
			}
			response := b.post(t, webhookconfig.ValidatePath, sent.body(t))
			var warnings []string
			var annotations map[string]string
			outcome := "allowed"
			if tc.want {
				warnings, annotations, outcome = []string{text}, map[string]string{"missed-mutations": text}, "warned"
			}
			if diff := cmp.Diff(warnings, response.Warnings); diff != "" || !response.Allowed {
				t.Errorf("allowed %v, warnings (-want +got):\n%s", response.Allowed, diff)
			}
			if diff := cmp.Diff(annotations, response.AuditAnnotations); diff != "" {
				t.Errorf("audit annotations (-want +got):\n%s", diff)
			}
			if got := b.outcome(t); got != outcome {
				t.Errorf("outcome %s; want %s", got, outcome)
			}
		})
	}
}

func TestMutator(t *testing.T) {
	target := validators.NewPath("spec", "targetNamespace")
	for name, tc := range map[string]struct {
		result      mutators.Result
		patch       string
		warnings    []string
		annotations map[string]string
		outcome     string
	}{
		"an edit becomes a patch": {
			mutators.Result{Edits: []validators.Edit{{Op: validators.EditAdd, Path: target, Value: "a"}}, Reasons: []string{"policy maps it to a"}},
			`[{"op":"add","path":"/spec/targetNamespace","value":"a"}]`, nil, map[string]string{"mutations": "policy maps it to a"}, "mutated",
		},
		"no edit leaves no trace": {mutators.Result{}, "", nil, nil, "allowed"},
		"a warning reaches the user": {
			mutators.Result{Warnings: []string{"it changes"}}, "", []string{"it changes"}, map[string]string{"warn-violations": "it changes"}, "warned",
		},
		"a skipped mutation is recorded": {mutators.Result{Skipped: []string{"no such namespace"}}, "", nil, map[string]string{"skipped-mutations": "no such namespace"}, "recorded"},
		"a mutator that fails leaves the object as it is": {
			mutators.Result{Errors: []error{errors.New("mutator x: panic: boom\nstack")}}, "", nil, map[string]string{"error": "mutator x: panic: boom"}, "failed",
		},
		"an edit that cannot be encoded leaves the object as it is": {
			mutators.Result{Edits: []validators.Edit{{Op: validators.EditAdd, Path: target, Value: func() {}}}, Reasons: []string{""}},
			"", []string{"flux-admission did not evaluate this object: the JSON patch could not be encoded"}, map[string]string{"error": "the JSON patch could not be encoded"}, "failed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newTestServer(&fakePolicy{result: tc.result}, logr.Discard())
			response := b.post(t, webhookconfig.MutatePath, write{operation: admissionv1.Create, object: kustomization}.body(t))
			if !response.Allowed || string(response.Patch) != tc.patch || (response.PatchType != nil) != (tc.patch != "") {
				t.Errorf("allowed %v, patch %s; want %s", response.Allowed, response.Patch, tc.patch)
			}
			if diff := cmp.Diff(tc.warnings, response.Warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.annotations, response.AuditAnnotations); diff != "" {
				t.Errorf("audit annotations (-want +got):\n%s", diff)
			}
			if got := b.outcome(t); got != tc.outcome {
				t.Errorf("outcome %s; want %s", got, tc.outcome)
			}
		})
	}
}

func TestPolicyValidator(t *testing.T) {
	const object = `{"apiVersion":"flux-admission.dev/v1alpha1","kind":"AdmissionPolicy","metadata":{"name":"default"},"spec":{"mode":"Enforce"}}`
	b := newTestServer(&fakePolicy{}, logr.Discard())
	if response := b.post(t, webhookconfig.PolicyPath, write{operation: admissionv1.Create, kind: "AdmissionPolicy", object: object}.body(t)); !response.Allowed {
		t.Errorf("a valid policy is denied: %v", response.Result)
	}
	response := b.post(t, webhookconfig.PolicyPath, write{operation: admissionv1.Create, kind: "AdmissionPolicy", object: strings.Replace(object, "Enforce", "wrong", 1)}.body(t))
	if response.Allowed || response.Result.Message != "spec.mode: Unsupported value: use Enforce or AuditOnly" || response.Result.Reason != metav1.StatusReasonForbidden {
		t.Errorf("allowed %v, %v; want a denial that names the field", response.Allowed, response.Result)
	}
}

func TestServer_Drain(t *testing.T) {
	counts := metrics.New(prometheus.NewRegistry())
	g := func() webhook.Policy { return &fakePolicy{} }
	s := webhook.NewServer(&webhook.Validator{Policy: g, Metrics: counts}, &webhook.Mutator{Policy: g}, &webhook.PolicyValidator{}, counts, logr.Discard())
	body := write{operation: admissionv1.Delete}.body(t)
	header := func() string {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, webhookconfig.ValidatePath, strings.NewReader(body)))
		if _, err := io.Copy(io.Discard, w.Body); err != nil || w.Code != http.StatusOK {
			t.Fatalf("status %d, %v", w.Code, err)
		}
		return w.Header().Get("Connection")
	}
	if err := s.Ready(); err != nil || header() != "" {
		t.Errorf("before: ready %v, Connection %q", err, header())
	}
	s.Drain()
	if err := s.Ready(); err == nil || header() != "close" {
		t.Errorf("while draining: ready %v, Connection %q; want not ready, close", err, header())
	}
}
