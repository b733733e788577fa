package chartsource_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
)

// TestResolver_DoesNotPrefetchWhatEndedTheProcess copies the state directory while a chart is being read, as it is found by
// the process that follows one that was killed.
func TestResolver_DoesNotPrefetchWhatEndedTheProcess(t *testing.T) {
	server := newRepo(t)
	server.publish(t, "app", "1.0.0", nil)
	m := lookup.NewMemory()
	bad := repositoryIn(t, m, "apps", "repo", server.URL, "app")
	dir := t.TempDir()
	// killed reads the chart in a process that is killed meanwhile.
	killed := func() {
		t.Helper()
		pit := newTarPit(t)
		server.redirect(pit.URL)
		r := resolver(t, chartsource.Options{StateDir: dir, AllowLoopback: true})
		if _, got, _ := r.Resolve(t.Context(), m, bad); got != validators.Unknown {
			t.Fatalf("Resolve = %v", got)
		}
		reached(&pit.requests, 1)
		after := t.TempDir()
		if err := os.CopyFS(after, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		r.Close()
		dir = after
		server.redirect("")
	}
	prefetch := func() string {
		t.Helper()
		r := resolver(t, chartsource.Options{StateDir: dir, Wait: time.Minute})
		defer r.Close()
		_, _, err := r.Resolve(chartsource.WithPrefetch(t.Context()), m, bad)
		return text(err)
	}
	killed()
	if got := prefetch(); !strings.Contains(got, "the process ended while it was reading this chart") {
		t.Errorf("prefetching: %s", got)
	}
	killed()
	r := resolver(t, chartsource.Options{StateDir: dir, Wait: time.Minute})
	if _, got, err := r.Resolve(t.Context(), m, bad); got != validators.Unknown || !strings.Contains(text(err), "2 times; it is read again when the Pod is replaced") {
		t.Errorf("a review after two kills: %v, %v", got, err)
	}
	r.Close()
	dir = t.TempDir()
	killed()
	r = resolver(t, chartsource.Options{StateDir: dir, Wait: time.Minute})
	if _, got, err := r.Resolve(t.Context(), m, bad); got != validators.Present {
		t.Errorf("a review after one kill: %v, %v", got, err)
	}
	r.Close()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v; want no record of a chart that could be read", entries, err)
	}
	if got := prefetch(); got != "" {
		t.Errorf("prefetching a chart that could be read: %s", got)
	}
}
