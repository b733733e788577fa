package helmrelease_test

import (
	"testing"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/test/ruletest"
	"github.com/flux-admission/flux-admission/validators/helmrelease"
)

// resolver makes the charts of a case known, and no others.
func resolver(t *testing.T, dir string) lookup.Charts {
	t.Helper()
	r, err := chartsource.New(chartsource.Options{Dirs: []string{dir}, Templates: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func TestValuesSchema(t *testing.T) { ruletest.Run(t, helmrelease.ValuesSchema, resolver) }

func TestUnknownKey(t *testing.T) { ruletest.Run(t, helmrelease.UnknownKey, resolver) }

func TestChartNotFound(t *testing.T) { ruletest.Run(t, helmrelease.ChartNotFound, resolver) }

func TestValuesReferenceMissing(t *testing.T) {
	ruletest.Run(t, helmrelease.ValuesReferenceMissing, nil)
}

func TestReleaseMove(t *testing.T) { ruletest.Run(t, helmrelease.ReleaseMove, nil) }

func TestDependencyMissing(t *testing.T) { ruletest.Run(t, helmrelease.DependencyMissing, nil) }

func TestDependencyCycle(t *testing.T) { ruletest.Run(t, helmrelease.DependencyCycle, nil) }

func TestRenderFailed(t *testing.T) { ruletest.Run(t, helmrelease.RenderFailed, resolver) }

func TestRenderedInvalid(t *testing.T) { ruletest.Run(t, helmrelease.RenderedInvalid, resolver) }
