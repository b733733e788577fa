package webhook_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/webhook"
	"github.com/flux-admission/flux-admission/webhook/certs"
	"github.com/flux-admission/flux-admission/webhook/metrics"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// refuse is a webhook.Clients that refuses everybody with one reason.
type refuse certs.Refusal

func (r refuse) Refuse(*tls.ConnectionState) certs.Refusal { return certs.Refusal(r) }

// unreadable is a request body that must not be read.
type unreadable struct{ t *testing.T }

func (u unreadable) Read([]byte) (int, error) {
	u.t.Error("the body of a refused request was read")
	return 0, errors.New("read")
}

func (unreadable) Close() error { return nil }

// Nothing of a refused request is read, logged or answered on any path; it is counted.
func TestServer_RefusesUnauthenticatedClients(t *testing.T) {
	lines := 0
	log := funcr.New(func(string, string) { lines++ }, funcr.Options{Verbosity: 10})
	registry := prometheus.NewRegistry()
	counts := metrics.New(registry)
	inForce := func() webhook.Policy { return &fakePolicy{} }
	server := webhook.NewServer(
		&webhook.Validator{Policy: inForce, Lookup: lookup.NewMemory(), Metrics: counts, Log: log},
		&webhook.Mutator{Policy: inForce, Lookup: lookup.NewMemory(), Log: log}, &webhook.PolicyValidator{}, counts, log,
	)
	server.Authenticate(refuse(certs.Untrusted))
	paths := []string{webhookconfig.ValidatePath, webhookconfig.MutatePath, webhookconfig.PolicyPath, "/", "/metrics", "/nothing"}
	for _, path := range paths {
		for _, method := range []string{http.MethodPost, http.MethodGet} {
			r := httptest.NewRequestWithContext(t.Context(), method, path, unreadable{t})
			w := httptest.NewRecorder()
			server.ServeHTTP(w, r)
			body, err := io.ReadAll(w.Body)
			if err != nil || w.Code != http.StatusUnauthorized || len(body) > 0 {
				t.Errorf("%s %s: status %d, body %q; want 401 and none", method, path, w.Code, body)
			}
		}
	}
	if lines > 0 {
		t.Errorf("%d lines were logged", lines)
	}
	const name = "flux_admission_unauthenticated_requests_total"
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := 0.0
	for _, f := range families {
		switch f.GetName() {
		case name:
			counted = f.GetMetric()[0].GetCounter().GetValue()
		case "flux_admission_reviews_total":
			t.Errorf("reviews were counted: %v", f)
		}
	}
	if want := float64(2 * len(paths)); counted != want {
		t.Errorf("%s is %v, want %v", name, counted, want)
	}
}

// An authenticated client is answered, and a server asks for a certificate only if it authenticates clients.
func TestServer_AnswersAuthenticatedClients(t *testing.T) {
	counts := metrics.New(prometheus.NewRegistry())
	server := webhook.NewServer(
		&webhook.Validator{}, &webhook.Mutator{}, &webhook.PolicyValidator{}, counts, logr.Discard())
	if got := server.HTTP(nil).TLSConfig.ClientAuth; got != tls.NoClientCert {
		t.Errorf("a server that authenticates nobody has ClientAuth %v", got)
	}
	server.Authenticate(refuse(""))
	if got := server.HTTP(nil).TLSConfig.ClientAuth; got != tls.RequestClientCert {
		t.Errorf("ClientAuth %v, want %v", got, tls.RequestClientCert)
	}
	w := httptest.NewRecorder()
	server.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, webhookconfig.ValidatePath, nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("status %d, want that of the handler", w.Code)
	}
}
