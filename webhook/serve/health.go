package serve

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
