package object_test

import (
	"testing"

	"github.com/flux-admission/flux-admission/validators/object"
	"github.com/flux-admission/flux-admission/validators/ruletest"
)

func TestAppliedTwice(t *testing.T) { ruletest.Run(t, object.AppliedTwice, nil) }
