package main

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/flux-admission/flux-admission/internal/lookup"
)

// readiness answers /readyz: 200 when every check passes, else 503 with a line for each that does not and why. It logs when that changes, not at every
// probe.
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
			h.log.Info("Not ready", "waitingFor", problems)
		}
	}
	if text == "" {
		alive(w, nil)
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprintln(w, text)
}

// alive answers /healthz: a process that answers is alive. Whether it is any use is readiness; restarting it would not mend what that waits for.
func alive(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }

// cachesSynced is ready once the informer of Namespaces has seen everything, and the others have or are given up.
func cachesSynced(namespaces cache.Informer, watches *lookup.Watches) func() error {
	return func() error {
		if !namespaces.HasSynced() {
			return errors.New("the informer of Namespaces has not seen everything yet")
		}
		return watches.Ready()
	}
}
