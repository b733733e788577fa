package condition_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/condition"
)

func TestOf(t *testing.T) {
	o := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"conditions": []any{
		"no condition",
		map[string]any{
			"type": "Ready", "status": "False", "reason": "BuildFailed", "message": "no", "observedGeneration": int64(2),
			"lastTransitionTime": "2026-11-26T10:00:00Z",
		},
		map[string]any{"type": 1, "lastTransitionTime": "yesterday"},
	}}}}
	got := condition.Of(o)
	want := []*condition.Condition{
		{
			Index: 1, Type: "Ready", Status: "False", Reason: "BuildFailed", Message: "no", ObservedGeneration: 2,
			Since: time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC),
		},
		{Index: 2},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
	ready := condition.Find(got, "Ready")
	if !ready.Is("False") || ready.Is("True") || ready.Evidence() != "condition Ready=False, reason BuildFailed" {
		t.Errorf("Ready is %+v", ready)
	}
	if condition.Find(got, "Stalled").Is("False") {
		t.Error("a condition that does not exist has a status")
	}
	if list := condition.Of(&unstructured.Unstructured{Object: map[string]any{"status": "none"}}); len(list) != 0 {
		t.Errorf("a status that is a text has conditions: %v", list)
	}
}
