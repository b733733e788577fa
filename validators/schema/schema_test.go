package schema

import (
	"testing"

	"github.com/flux-admission/flux-admission/test/ruletest"
)

func TestUnknownField(t *testing.T)        { ruletest.Run(t, UnknownField, nil) }
func TestInvalidValue(t *testing.T)        { ruletest.Run(t, InvalidValue, nil) }
func TestAPIVersionNotServed(t *testing.T) { ruletest.Run(t, APIVersionNotServed, nil) }
func TestCRDMissing(t *testing.T)          { ruletest.Run(t, CRDMissing, nil) }

func TestCRDAppliedTooLate(t *testing.T) { ruletest.Run(t, CRDAppliedTooLate, nil) }
