package object_test

import (
	"testing"

	"github.com/flux-admission/flux-admission/test/ruletest"
	"github.com/flux-admission/flux-admission/validators/object"
)

func TestAppliedTwice(t *testing.T) { ruletest.Run(t, object.AppliedTwice, nil) }
