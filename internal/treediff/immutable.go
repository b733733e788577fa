package treediff

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// immutableFields are fields that the API server refuses to change (k8s.io/kubernetes, pkg/apis/*/validation). A field
// that only one side has is not compared: the API server sets a default.
var immutableFields = map[schema.GroupKind][]string{
	{Group: "apps", Kind: "Deployment"}:                              {"spec.selector"},
	{Group: "apps", Kind: "DaemonSet"}:                               {"spec.selector"},
	{Group: "apps", Kind: "ReplicaSet"}:                              {"spec.selector"},
	{Group: "batch", Kind: "Job"}:                                    {"spec.template", "spec.selector", "spec.completionMode", "spec.podFailurePolicy"},
	{Kind: "Service"}:                                                {"spec.clusterIP", "spec.clusterIPs"},
	{Kind: "PersistentVolumeClaim"}:                                  {"spec.accessModes", "spec.storageClassName", "spec.volumeName", "spec.volumeMode", "spec.selector", "spec.dataSource", "spec.dataSourceRef"},
	{Kind: "PersistentVolume"}:                                       {"spec.csi", "spec.nfs", "spec.hostPath", "spec.local", "spec.iscsi", "spec.volumeMode"},
	{Kind: "Secret"}:                                                 {"type"},
	{Group: "storage.k8s.io", Kind: "StorageClass"}:                  {"provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"},
	{Group: "rbac.authorization.k8s.io", Kind: "RoleBinding"}:        {"roleRef"},
	{Group: "rbac.authorization.k8s.io", Kind: "ClusterRoleBinding"}: {"roleRef"},
	{Group: "scheduling.k8s.io", Kind: "PriorityClass"}:              {"value", "preemptionPolicy"},
	{Group: "node.k8s.io", Kind: "RuntimeClass"}:                     {"handler"},
	{Group: "networking.k8s.io", Kind: "IngressClass"}:               {"spec.controller"},
	kindschema.CustomResourceDefinition:                              {"spec.group", "spec.names.kind", "spec.names.plural", "spec.scope"},
}

// mutableOfStatefulSet are the fields of a StatefulSet's spec that may change.
var mutableOfStatefulSet = []string{
	"replicas", "ordinals", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy", "minReadySeconds", "revisionHistoryLimit",
}

// changedImmutable returns the changed fields of an object that the API server does not allow to change.
func changedImmutable(before, after *unstructured.Unstructured) []string {
	gk := after.GroupVersionKind().GroupKind()
	var out []string
	for _, field := range immutableFields[gk] {
		path := strings.Split(field, ".")
		a, was, _ := unstructured.NestedFieldNoCopy(before.Object, path...)
		b, is, _ := unstructured.NestedFieldNoCopy(after.Object, path...)
		if was && is && !reflect.DeepEqual(a, b) {
			out = append(out, field)
		}
	}
	switch {
	case gk == schema.GroupKind{Group: "apps", Kind: "StatefulSet"}:
		a, _, _ := unstructured.NestedMap(before.Object, "spec")
		b, _, _ := unstructured.NestedMap(after.Object, "spec")
		for _, c := range Fields(a, b, false) {
			field, _, _ := strings.Cut(c.Path, ".")
			field, _, _ = strings.Cut(field, "[")
			_, was := a[field]
			_, is := b[field]
			// What is only set on one side may be the default.
			if !slices.Contains(mutableOfStatefulSet, field) && (was && is || field == "volumeClaimTemplates") && !slices.Contains(out, "spec."+field) {
				out = append(out, "spec."+field)
			}
		}
	case gk == schema.GroupKind{Kind: "PersistentVolumeClaim"}:
		if shrinks(before, after) {
			out = append(out, "spec.resources.requests.storage")
		}
	case gk.Group == "" && (gk.Kind == "ConfigMap" || gk.Kind == "Secret"):
		if immutable, _, _ := unstructured.NestedBool(before.Object, "immutable"); immutable {
			for _, field := range []string{"data", "binaryData", "stringData"} {
				if !reflect.DeepEqual(before.Object[field], after.Object[field]) {
					out = append(out, field)
				}
			}
		}
	}
	return out
}

// shrinks reports whether a claim requests less storage than before.
func shrinks(before, after *unstructured.Unstructured) bool {
	size := func(o *unstructured.Unstructured) (resource.Quantity, bool) {
		v, ok, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "resources", "requests", "storage")
		q, err := resource.ParseQuantity(fmt.Sprint(v))
		return q, ok && err == nil
	}
	a, was := size(before)
	b, is := size(after)
	return was && is && b.Cmp(a) < 0
}

// addImmutable adds the changes that the API server refuses, and what Flux does then.
func (c *comparison) addImmutable(ch *change) {
	if ch.before == nil || ch.after == nil || ch.before.key != ch.after.key || ch.after.hashed != "" {
		return
	}
	changed := changedImmutable(ch.before.object, ch.after.object)
	if len(changed) == 0 {
		return
	}
	e := ch.after
	what := fmt.Sprintf("%s of %s %s %s", strings.Join(changed, ", "), e.kind, e.name, immutableText(len(changed)))
	effect := report.Effect{Kind: report.EffectImmutable, Severity: validators.SeverityError}
	forced := e.owner != nil && e.owner.Spec.Force
	annotation := flux.Kustomization.Group + "/force"
	for _, from := range []map[string]string{e.object.GetAnnotations(), e.object.GetLabels()} {
		forced = forced || strings.EqualFold(from[annotation], "enabled")
	}
	switch {
	case e.chartOf != nil:
		effect.Message = what + ": the upgrade of release " + e.release + " fails, unless spec.upgrade.force of the HelmRelease is true"
	case forced:
		effect.Message = what + ": Flux deletes the object and creates it again, because force is set"
		if loss := data[e.object.GroupVersionKind().GroupKind()]; loss != "" {
			effect.Message += "; " + loss
		} else {
			effect.Severity = validators.SeverityWarning
		}
	default:
		effect.Message = fmt.Sprintf("%s: the API server refuses it, and the Kustomization %s applies nothing of this change; "+
			"delete the object before, or set %s: enabled on it, with which Flux deletes and creates it again", what, e.ownerName(), annotation)
	}
	c.effect(e, effect)
}

func immutableText(n int) string {
	if n == 1 {
		return "is immutable"
	}
	return "are immutable"
}
