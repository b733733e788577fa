package reference_test

import (
	"testing"

	"github.com/flux-admission/flux-admission/test/ruletest"
	"github.com/flux-admission/flux-admission/validators/reference"
)

func TestMissing(t *testing.T) { ruletest.Run(t, reference.Missing, nil) }

func TestNamespaceMissing(t *testing.T) { ruletest.Run(t, reference.NamespaceMissing, nil) }
