package audit

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// withStatus returns a Kustomization with a condition Ready and an applied revision.
func withStatus(status, message, applied string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
		"metadata": map[string]any{"namespace": "apps", "name": "web", "generation": int64(1)},
		"status": map[string]any{
			"lastAppliedRevision": applied,
			"conditions":          []any{map[string]any{"type": "Ready", "status": status, "reason": "R", "message": message}},
		},
	}}
}

// TestAuditor_EvaluatesChangesOfState has status updates as Flux writes them: those of each interval must not have an object evaluated.
func TestAuditor_EvaluatesChangesOfState(t *testing.T) {
	rules := []*validators.Meta{{Scope: validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}}, Stages: validators.StageAudit}}
	ready, progress, failed := withStatus("True", "applied", "a"), withStatus("Unknown", "in progress", "a"), withStatus("False", "no", "a")
	for name, tc := range map[string]struct {
		old, current *unstructured.Unstructured
		hasFinding   bool
		want         bool
	}{
		"a reconciliation begins":                                    {ready, progress, false, false},
		"a reconciliation ends":                                      {progress, ready, false, false},
		"a newer revision is applied":                                {ready, withStatus("True", "applied", "b"), false, false},
		"the first revision is applied":                              {withStatus("True", "", ""), ready, false, true},
		"it fails":                                                   {progress, failed, false, true},
		"it fails again in the same way":                             {failed, failed, false, false},
		"it fails in another way":                                    {failed, withStatus("False", "other", "a"), false, true},
		"what has a finding is applied":                              {progress, ready, true, true},
		"what has a finding is tried again, which shows nothing yet": {failed, progress, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			a := &Auditor{Rules: rules, Kinds: Kinds(rules)}
			a.init()
			a.active = true
			if tc.hasFinding {
				a.results.put(id("web"), []report.Finding{finding("web", v1alpha1.ActionWarn, "lags")}, false)
			}
			a.Changed(flux.Kustomization, tc.old, tc.current)
			if got := a.queue.Len() > 0; got != tc.want {
				t.Errorf("evaluated: %t, want %t", got, tc.want)
			}
		})
	}
}

func TestExempt(t *testing.T) {
	rules := []*validators.Meta{
		{Scope: validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}}, Stages: validators.StageAll},
		{Scope: validators.Scope{Kinds: []schema.GroupKind{namespaceGK}}, Stages: validators.StageAudit, Deletion: true},
	}
	of := func(kind, namespace string, deleted bool) *unstructured.Unstructured {
		o := withStatus("True", "", "")
		if kind == "Namespace" {
			o.SetAPIVersion("v1")
		}
		o.SetKind(kind)
		o.SetNamespace(namespace)
		if deleted {
			_ = unstructured.SetNestedField(o.Object, "2026-11-26T12:00:00Z", "metadata", "deletionTimestamp")
		}
		return o
	}
	for name, tc := range map[string]struct {
		object *unstructured.Unstructured
		want   bool
	}{
		"an object":                         {of("Kustomization", "apps", false), false},
		"one that is being deleted":         {of("Kustomization", "apps", true), true},
		"one in a namespace left out":       {of("Kustomization", "kube-system", false), true},
		"a namespace":                       {of("Namespace", "", false), true},
		"a namespace that is deleted":       {of("Namespace", "", true), false},
		"an object of a kind without rules": {of("Bucket", "apps", false), true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Exempt(rules, tc.object, []string{"kube-system"}); got != tc.want {
				t.Errorf("exempt: %t, want %t", got, tc.want)
			}
		})
	}
}
