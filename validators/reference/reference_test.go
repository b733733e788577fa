package reference_test

import (
	"testing"

	"github.com/flux-admission/flux-admission/validators/reference"
	"github.com/flux-admission/flux-admission/validators/ruletest"
)

func TestMissing(t *testing.T) { ruletest.Run(t, reference.Missing, nil) }

func TestNamespaceMissing(t *testing.T) { ruletest.Run(t, reference.NamespaceMissing, nil) }
