package conformance_test

import (
	"testing"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/lookup"
)

// resolver knows the charts of a case, and no others.
func resolver(t *testing.T, dir string) lookup.Charts {
	t.Helper()
	r, err := chartsource.New(chartsource.Options{Dirs: []string{dir}, Templates: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}
