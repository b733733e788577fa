package parity_test

import (
	"testing"

	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators/ruletest"
)

// charts resolves none: no rule of the list looks up a chart.
var charts ruletest.ChartsFunc = func(*testing.T, string) lookup.Charts { return nil }
