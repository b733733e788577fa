package kustomization

import (
	"testing"

	"github.com/flux-admission/flux-admission/test/ruletest"
)

func TestNamespace(t *testing.T) { ruletest.Run(t, Namespace, nil) }

func TestDependencyMissing(t *testing.T) { ruletest.Run(t, DependencyMissing, nil) }

func TestDependencyCycle(t *testing.T) { ruletest.Run(t, DependencyCycle, nil) }

func TestTargetNamespace(t *testing.T) { ruletest.Run(t, TargetNamespace, nil) }

func TestPathMissing(t *testing.T) { ruletest.Run(t, PathMissing, nil) }

func TestBuildFailed(t *testing.T) { ruletest.Run(t, BuildFailed, nil) }

func TestVariableUnset(t *testing.T) { ruletest.Run(t, VariableUnset, nil) }

func TestNamespaceOverridden(t *testing.T) { ruletest.Run(t, NamespaceOverridden, nil) }

func TestOrphaned(t *testing.T) { ruletest.Run(t, Unapplied, nil) }

func TestHealthCheckMissing(t *testing.T) { ruletest.Run(t, HealthCheckMissing, nil) }

func TestPruneMove(t *testing.T) { ruletest.Run(t, PruneMove, nil) }
