package file_test

import (
	"testing"

	"github.com/flux-admission/flux-admission/test/ruletest"
	"github.com/flux-admission/flux-admission/validators/file"
)

func TestDuplicateKey(t *testing.T) { ruletest.Run(t, file.DuplicateKey, nil) }

func TestInvalidYAML(t *testing.T) { ruletest.Run(t, file.InvalidYAML, nil) }
