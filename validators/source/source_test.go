package source_test

import (
	"testing"

	"github.com/flux-admission/flux-admission/test/ruletest"
	"github.com/flux-admission/flux-admission/validators/source"
)

func TestMissing(t *testing.T) { ruletest.Run(t, source.Missing, nil) }
