package health

import (
	"context"
	"encoding/json"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// SuspendedTooLong is the rule suspended-too-long.
//
// No field has the time since when an object is suspended. Two times prove that it has been at least that long: that of an entry of
// managedFields that owns spec.suspend, since another value would have taken the ownership away or renewed the entry, and that of a
// newer artifact that is not applied. Without both, nothing is reported.
var SuspendedTooLong = &validators.Rule{
	Meta: validators.Meta{
		ID:   "HE005",
		Name: "suspended-too-long",
		Scope: validators.Scope{Kinds: []schema.GroupKind{
			flux.Kustomization, flux.HelmRelease, flux.GitRepository, flux.OCIRepository, flux.Bucket, flux.HelmRepository, flux.HelmChart,
			flux.ImageRepository, flux.ImageUpdateAutomation,
		}},
		Stages:   validators.StageAudit,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Audit: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Object has been suspended for too long",
			Why: "A suspended object is ready and does nothing: changes in Git do not arrive, and what somebody changes by hand " +
				"stays. A suspension for a repair is easily forgotten.",
			Fix:   "Resume it with flux resume, or remove spec.suspend in Git; exempt it in the policy if it is meant to stay suspended.",
			Since: "v0.1.0",
		},
		Reads:  sourceKinds,
		Params: after(7 * 24 * time.Hour),
	},
	Check: checkSuspendedTooLong,
}

func checkSuspendedTooLong(ctx context.Context, p *validators.Pass) error {
	if !isTrue(p.Object, "spec", "suspend") {
		return nil
	}
	threshold := p.Params.(*AfterParams).after
	var waits *lag
	if gk := p.Object.GroupVersionKind().GroupKind(); gk == flux.Kustomization || gk == flux.HelmRelease {
		waits = lagOf(ctx, p)
	}
	owned := ownedSince(p.Object, "spec", "suspend")
	isOld, isBehind := p.Elapsed(owned, threshold), waits != nil && p.Elapsed(waits.since, threshold)
	if !isOld && !isBehind {
		return nil
	}
	f := p.Report(validators.NewPath("spec", "suspend"), true, "is suspended")
	if isOld {
		f.Message += " since " + stamp(owned) + " or longer"
	}
	if waits != nil {
		f.Message += "; " + waits.String()
	}
	f.Key = "suspended"
	return nil
}

// ownedSince returns the time since when a field has at least had its value, from the entries of managedFields that own it; zero if
// there are none.
func ownedSince(o *unstructured.Unstructured, path ...string) time.Time {
	var since time.Time
	for _, entry := range o.GetManagedFields() {
		if entry.Subresource != "" || entry.Time == nil || entry.FieldsV1 == nil || !owns(entry.FieldsV1.GetRawBytes(), path) {
			continue
		}
		if since.IsZero() || entry.Time.Time.Before(since) {
			since = entry.Time.Time
		}
	}
	return since
}

// owns reports whether fields, as metav1.FieldsV1 has them, contain a path of maps.
func owns(fields []byte, path []string) bool {
	for _, name := range path {
		var m map[string]json.RawMessage
		if json.Unmarshal(fields, &m) != nil {
			return false
		}
		inner, ok := m["f:"+name]
		if !ok {
			return false
		}
		fields = inner
	}
	return true
}
