package kustomization

import (
	"testing"

	"github.com/flux-admission/flux-admission/validators/ruletest"
)

func TestNamespace(t *testing.T) { ruletest.Run(t, Namespace, nil) }

func TestDependencyMissing(t *testing.T) { ruletest.Run(t, DependencyMissing, nil) }

func TestTargetNamespace(t *testing.T) { ruletest.Run(t, TargetNamespace, nil) }
