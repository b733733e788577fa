package serve

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/flux-admission/flux-admission/internal/lookup"
)

// readiness serves /readyz: 200 if every check passes, else 503 with a line for each that fails. It logs changes, not
// every probe.
type readiness struct {
	checks map[string]func() error
	log    logr.Logger
	last   atomic.Pointer[string]
}

// ServeHTTP implements http.Handler.
func (h *readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	var problems []string
	for _, name := range slices.Sorted(maps.Keys(h.checks)) {
		if err := h.checks[name](); err != nil {
			problems = append(problems, name+": "+err.Error())
		}
	}
	text := strings.Join(problems, "\n")
	if last := h.last.Swap(&text); last == nil || *last != text {
		if text == "" {
			h.log.Info("Ready")
		} else {
			h.log.Info("Not ready", "failing", problems)
		}
	}
	if text == "" {
		fmt.Fprintln(w, "ok")
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprintln(w, text)
}

// healthServer serves /healthz and /readyz from before the server is connected to the cluster. It owns its listener.
type healthServer struct {
	handler atomic.Pointer[http.Handler]
	http    *http.Server
	ended   chan struct{}
}

// startHealth serves on a listener: alive and not ready until serve is called. The caller calls close.
func startHealth(l net.Listener) *healthServer {
	h := &healthServer{ended: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", liveness(func() error { return nil }))
	mux.HandleFunc("/readyz", liveness(func() error { return errors.New("not connected to the API server yet") }))
	h.serve(mux)
	h.http = &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*h.handler.Load()).ServeHTTP(w, r) }),
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
	}
	go func() {
		defer close(h.ended)
		_ = h.http.Serve(l) // close ends it
	}()
	return h
}

// serve replaces the handler.
func (h *healthServer) serve(handler http.Handler) { h.handler.Store(&handler) }

// close ends the server and its listener.
func (h *healthServer) close() {
	_ = h.http.Close()
	<-h.ended
}

// liveness serves /healthz: a process that responds is healthy, unless the check fails. A restart would not fix what
// readiness reports.
func liveness(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, err)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}

// informersSynced returns a check that passes once the informer of Namespaces has synced, and the others have or were
// abandoned.
func informersSynced(namespaces cache.Informer, watches *lookup.Watches) func() error {
	return func() error {
		if !namespaces.HasSynced() {
			return errors.New("the informer of Namespaces has not synced yet")
		}
		return watches.Ready()
	}
}
