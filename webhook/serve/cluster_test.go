package serve

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"k8s.io/client-go/rest"
)

// TestConnected_WaitsForTheAPIServer has an API server that responds after two requests.
func TestConnected_WaitsForTheAPIServer(t *testing.T) {
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if requests.Add(1)%3 != 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	config := &rest.Config{Host: server.URL}
	if err := connected(t.Context(), config, false, logr.Discard()); err == nil || !strings.Contains(err.Error(), "does not respond; check --kubeconfig and the network") {
		t.Errorf("without waiting: %v", err)
	}
	requests.Store(0)
	var logged []string
	log := funcr.New(func(_, args string) { logged = append(logged, args) }, funcr.Options{})
	if err := connected(t.Context(), config, true, log); err != nil || requests.Load() != 3 || len(logged) != 2 {
		t.Errorf("%v after %d requests, logged %q", err, requests.Load(), logged)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := connected(ctx, config, true, logr.Discard()); err == nil {
		t.Error("connected although the context has ended")
	}
}

// TestHealth_BeforeTheServerIsConnected is alive and not ready.
func TestHealth_BeforeTheServerIsConnected(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := startHealth(listener)
	defer h.close()
	status := func(path string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+listener.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		return resp.StatusCode
	}
	if live, ready := status("/healthz"), status("/readyz"); live != http.StatusOK || ready != http.StatusServiceUnavailable {
		t.Errorf("before: /healthz %d, /readyz %d", live, ready)
	}
	h.serve(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	if ready := status("/readyz"); ready != http.StatusOK {
		t.Errorf("after: /readyz %d", ready)
	}
}
