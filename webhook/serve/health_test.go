package serve

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"
)

func TestReadiness_ReportsFailingChecksAndLogsChanges(t *testing.T) {
	var logged []string
	log := funcr.New(func(_, args string) { logged = append(logged, args) }, funcr.Options{})
	var policy error
	h := &readiness{log: log, checks: map[string]func() error{
		"serving": func() error { return nil },
		"policy":  func() error { return policy },
	}}
	get := func() (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
		return w.Code, strings.TrimSpace(w.Body.String())
	}
	policy = errors.New("no policy is loaded yet")
	for range 3 {
		if code, body := get(); code != http.StatusServiceUnavailable || body != "policy: no policy is loaded yet" {
			t.Errorf("%d %q", code, body)
		}
	}
	policy = nil
	for range 3 {
		if code, body := get(); code != http.StatusOK || body != "ok" {
			t.Errorf("%d %q", code, body)
		}
	}
	if len(logged) != 2 || !strings.Contains(logged[0], "no policy is loaded yet") || !strings.Contains(logged[1], "Ready") {
		t.Errorf("logged %q", logged)
	}
}

func TestLiveness(t *testing.T) {
	for want, err := range map[int]error{http.StatusOK: nil, http.StatusServiceUnavailable: errors.New("it does not end")} {
		w := httptest.NewRecorder()
		liveness(func() error { return err })(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/healthz", nil))
		if w.Code != want {
			t.Errorf("%v: status %d, want %d", err, w.Code, want)
		}
	}
}
