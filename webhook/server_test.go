package webhook_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/webhook"
	"github.com/flux-admission/flux-admission/webhook/metrics"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// tlsServer is a server as serve starts it.
type tlsServer struct {
	webhooks *webhook.Server
	http     *http.Server
	registry *prometheus.Registry
	url      string // of the validating webhook
}

func serveTLS(t *testing.T, p webhook.Policy) tlsServer {
	t.Helper()
	certificate, err := throwaway()
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	counts := metrics.New(registry)
	inForce := func() webhook.Policy { return p }
	webhooks := webhook.NewServer(
		&webhook.Validator{Policy: inForce, Lookup: lookup.NewMemory(), Metrics: counts, Log: logr.Discard()},
		&webhook.Mutator{Policy: inForce, Lookup: lookup.NewMemory(), Log: logr.Discard()}, &webhook.PolicyValidator{}, counts, logr.Discard(),
	)
	server := webhooks.HTTP(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil })
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server.ErrorLog = log.New(io.Discard, "", 0)
	go func() { _ = server.Serve(webhooks.Listener(listener, server)) }()
	t.Cleanup(func() { _ = server.Close() })
	return tlsServer{webhooks, server, registry, "https://" + listener.Addr().String() + webhookconfig.ValidatePath}
}

func (s tlsServer) address() string {
	return strings.TrimSuffix(strings.TrimPrefix(s.url, "https://"), webhookconfig.ValidatePath)
}

// dial opens a connection from a local address.
func (s tlsServer) dial(t *testing.T, from string) net.Conn {
	t.Helper()
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.DialContext(t.Context(), "tcp", s.address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// dialTLS opens a TLS connection from a local address.
func (s tlsServer) dialTLS(t *testing.T, from string, protocols ...string) *tls.Conn {
	t.Helper()
	conn := tls.Client(s.dial(t, from), &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}) //nolint:gosec // a throwaway certificate
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return conn
}

// review sends a review over a connection and reads the response to its end.
func review(t *testing.T, conn net.Conn, query, body string) *admissionv1.AdmissionResponse {
	t.Helper()
	if _, err := fmt.Fprintf(conn, "POST %s%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", webhookconfig.ValidatePath, query, len(body), body); err != nil {
		t.Fatal(err)
	}
	return response(t, conn)
}

func response(t *testing.T, conn net.Conn) *admissionv1.AdmissionResponse {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out admissionv1.AdmissionReview
	if err := json.Unmarshal(data, &out); err != nil || out.Response == nil {
		t.Fatalf("%v: %s", err, data)
	}
	return out.Response
}

// gauge returns the value of a metric without labels.
func gauge(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// TestServer_SpeaksHTTP11Only offers HTTP/2, over which a response at the deadline would only end with the evaluation.
func TestServer_SpeaksHTTP11Only(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	s := serveTLS(t, &fakePolicy{review: func(context.Context, validators.Request) { <-block }})
	conn := s.dialTLS(t, "127.0.0.1", "h2", "http/1.1")
	if got := conn.ConnectionState().NegotiatedProtocol; got != "http/1.1" {
		t.Fatalf("negotiated %q", got)
	}
	got := review(t, conn, "?timeout=100ms", write{operation: admissionv1.Create, object: kustomization}.body(t))
	if !got.Allowed || got.AuditAnnotations["error"] != "the evaluation timed out" {
		t.Errorf("%v; want the response of the deadline, to its end", got)
	}
}

// TestServer_LimitsConnections opens connections from one address without sending anything: it holds no more than the limit
// of them, and a client at another address is served on an old connection and on new ones.
func TestServer_LimitsConnections(t *testing.T) {
	s := serveTLS(t, &fakePolicy{})
	body := write{operation: admissionv1.Create, object: kustomization}.body(t)
	old := s.dialTLS(t, "127.0.0.2")
	review(t, old, "", body)
	for range 1500 {
		s.dial(t, "127.0.0.1")
	}
	// The connections are accepted in order: after this one, all others are open or closed.
	if got := review(t, s.dialTLS(t, "127.0.0.2"), "", body); !got.Allowed {
		t.Error(got)
	}
	if got := review(t, old, "", body); !got.Allowed {
		t.Error(got)
	}
	if n := gauge(t, s.registry, "flux_admission_connections"); n < 2 || n > 512 {
		t.Errorf("%v connections are open; want at most 512", n)
	}
}

// TestServer_EvaluatesLongerThanABodyMayTake has an evaluation that takes longer than the deadline of the body: the server
// reads on while it evaluates, to notice that the client has gone.
func TestServer_EvaluatesLongerThanABodyMayTake(t *testing.T) {
	ended := make(chan error, 1)
	s := serveTLS(t, &fakePolicy{review: func(ctx context.Context, _ validators.Request) {
		select {
		case <-time.After(2500 * time.Millisecond):
		case <-ctx.Done():
		}
		ended <- context.Cause(ctx)
	}})
	got := review(t, s.dialTLS(t, "127.0.0.1"), "?timeout=30s", write{operation: admissionv1.Create, object: kustomization}.body(t))
	if cause := <-ended; !got.Allowed || len(got.Warnings) > 0 || cause != nil {
		t.Errorf("%v, ended by %v", got, cause)
	}
}

// TestServer_AnnouncedBodiesTakeNoMemory has clients that announce large bodies and send two bytes.
func TestServer_AnnouncedBodiesTakeNoMemory(t *testing.T) {
	s := serveTLS(t, &fakePolicy{decision: policy.Decision{Deny: []*validators.Finding{finding(bad, path, "it is bad")}}})
	for _, size := range []int{7 << 20, 1 << 20, 7 << 20, 7 << 20} {
		conn := s.dialTLS(t, "127.0.0.1")
		if _, err := fmt.Fprintf(conn, "POST %s?timeout=30s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n{\"", webhookconfig.ValidatePath, size); err != nil {
			t.Fatal(err)
		}
	}
	honest := s.dialTLS(t, "127.0.0.1")
	for _, object := range []string{kustomization, strings.Replace(kustomization, "./x", strings.Repeat("x", 3<<20), 1)} {
		if got := review(t, honest, "?timeout=30s", write{operation: admissionv1.Create, object: object}.body(t)); got.Allowed {
			t.Errorf("not evaluated: %v", got.AuditAnnotations)
		}
	}
	if n := gauge(t, s.registry, "flux_admission_reviews_memory_bytes"); n != 0 {
		t.Errorf("%v bytes are taken", n)
	}
}

// TestServer_StuckEvaluationsGiveTheirShareBack has evaluations that do not end. Others are evaluated, the number of those
// that gave their share back is bounded, and all of it is given back when they end.
func TestServer_StuckEvaluationsGiveTheirShareBack(t *testing.T) {
	release := make(chan struct{})
	stuck := &validators.Rule{
		Meta: validators.Meta{
			ID: "XX001", Name: "stuck", Scope: bad.Scope, Stages: validators.StageAdmission, Severity: validators.SeverityError,
			Reads:    []schema.GroupKind{{Kind: "ConfigMap"}},
			Defaults: validators.Defaults{Admission: v1alpha1.ActionDeny},
			Doc:      validators.Doc{Title: "It is stuck", Why: "It never ends.", Fix: "Wait.", Since: "v0.1.0"},
		},
		Check: func(context.Context, *validators.Pass) error { <-release; return nil },
	}
	suite, err := validators.NewSuite(stuck)
	if err != nil {
		t.Fatal(err)
	}
	s := serveTLS(t, &fakePolicy{
		decision: policy.Decision{Deny: []*validators.Finding{finding(bad, path, "it is bad")}},
		review: func(ctx context.Context, r validators.Request) {
			switch r.Object.GetName() {
			case "rule": // the suite does not wait for the rule
				suite.Evaluate(ctx, r, nil)
			case "stuck":
				<-release
			}
		},
	})
	const count = 12 // a sixth of the memory of small requests each
	padded := strings.Replace(kustomization, "./x", strings.Repeat("x", 2_000_000), 1)
	for i, name := range []string{"rule", "stuck"} {
		body := write{operation: admissionv1.Create, object: strings.Replace(padded, `"name":"x"`, `"name":"`+name+`"`, 1)}.body(t)
		// On a busy machine the time of a request may be over before its evaluation begins.
		for gauge(t, s.registry, "flux_admission_overdue_evaluations") < float64(count/2*(i+1)) {
			review(t, s.dialTLS(t, "127.0.0.1"), "?timeout=300ms", body)
		}
	}
	honest := s.dialTLS(t, "127.0.0.1")
	body := write{operation: admissionv1.Create, object: padded}.body(t)
	if got := review(t, honest, "?timeout=30s", body); got.Allowed {
		t.Errorf("not evaluated: %v", got.AuditAnnotations)
	}
	if n := gauge(t, s.registry, "flux_admission_overdue_evaluations"); n != count {
		t.Errorf("%v overdue evaluations; want %d", n, count)
	}
	close(release)
	for gauge(t, s.registry, "flux_admission_reviews_memory_bytes") != 0 || gauge(t, s.registry, "flux_admission_overdue_evaluations") != 0 {
		<-time.After(time.Millisecond)
	}
}

// TestValidator_DefersNoDryRun sends the same review as a dry-run and not.
func TestValidator_DefersNoDryRun(t *testing.T) {
	var deferred []int64
	counts := metrics.New(prometheus.NewRegistry())
	inForce := func() webhook.Policy { return &fakePolicy{} }
	b := testServer{handler: webhook.NewServer(
		&webhook.Validator{
			Policy: inForce, Lookup: lookup.NewMemory(), Metrics: counts, Log: logr.Discard(),
			Deferred: func(_ validators.Request, size int64, _ policy.Decision) { deferred = append(deferred, size) },
		},
		&webhook.Mutator{Policy: inForce}, &webhook.PolicyValidator{}, counts, logr.Discard(),
	)}
	for _, dryRun := range []bool{true, false} {
		b.post(t, webhookconfig.ValidatePath, strings.Replace(write{operation: admissionv1.Create, object: kustomization}.body(t), `"operation"`, fmt.Sprintf(`"dryRun":%v,"operation"`, dryRun), 1))
	}
	if len(deferred) != 1 || deferred[0] < int64(len(kustomization)) {
		t.Errorf("%v; want the request that is not a dry-run, with its size", deferred)
	}
}
