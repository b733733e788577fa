package ruletest_test

import (
	"testing"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/test/ruletest"
	"github.com/flux-admission/flux-admission/validators/all"
)

// charts resolves the charts of a case, and no others.
func charts(t *testing.T, dir string) lookup.Charts {
	t.Helper()
	r, err := chartsource.New(chartsource.Options{Dirs: []string{dir}, Templates: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func TestRules(t *testing.T) {
	for _, rule := range all.Rules() {
		t.Run(rule.ID, func(t *testing.T) { ruletest.Run(t, ruletest.Dir(t, "../..", rule), rule, charts) })
	}
}
