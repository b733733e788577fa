package audit

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/condition"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
)

// stateKinds returns the kinds with rules that only the audit evaluates: these read the state of the object.
func stateKinds(rules []*validators.Meta) map[schema.GroupKind]bool {
	out := map[schema.GroupKind]bool{}
	for _, m := range rules {
		if m.Stages != validators.StageAudit {
			continue
		}
		for _, gk := range m.Scope.Kinds {
			out[gk] = true
		}
	}
	return out
}

// stateChanged reports whether a change of the status may change what rules find. Flux writes the status of each object at each of
// its intervals, so that a change counts only if the object fails now, if it has a finding, which may be gone, or if it is the first. While the
// controller works on the object, the status is that of no attempt. A state that lasts is evaluated again when its rule asks for it.
func (a *Auditor) stateChanged(id object, old, current *unstructured.Unstructured) bool {
	status := func(o *unstructured.Unstructured) any {
		v, _, _ := unstructured.NestedFieldNoCopy(o.Object, "status")
		return v
	}
	if lookup.MetadataOnly(id.gk) {
		return old.GetResourceVersion() != current.GetResourceVersion()
	}
	if inProgress(current) || equality.Semantic.DeepEqual(status(old), status(current)) {
		return false
	}
	if failing := failures(current); len(failing) > 0 && !slices.Equal(failures(old), failing) {
		return true
	}
	return a.results.has(id) || began(old, current)
}

// began reports whether the controller has reconciled an object for the first time: before, it had nothing to compare with its source.
func began(old, current *unstructured.Unstructured) bool {
	return slices.ContainsFunc([]string{"lastAppliedRevision", "lastAttemptedRevision", "helmChart"}, func(field string) bool {
		before, _, _ := unstructured.NestedString(old.Object, "status", field)
		now, _, _ := unstructured.NestedString(current.Object, "status", field)
		return before == "" && now != ""
	})
}

// inProgress reports whether the controller works on the object.
func inProgress(o *unstructured.Unstructured) bool {
	return condition.Find(condition.Of(o), "Ready").Is("Unknown")
}

// failures returns what in the status of an object may be a finding: its conditions that are false, with their reasons and
// messages, and the phase and the time of the next or last run of a backup.
func failures(o *unstructured.Unstructured) []string {
	var out []string
	for _, c := range condition.Of(o) {
		if c.Is("False") {
			out = append(out, c.Type, c.Reason, c.Message)
		}
	}
	for _, field := range []string{"phase", "lastBackup", "nextSyncTime"} {
		if text, _, _ := unstructured.NestedString(o.Object, "status", field); text != "" {
			out = append(out, field, text)
		}
	}
	return out
}
