// Package helmrelease holds the rules on Flux HelmReleases.
package helmrelease

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// chartRef returns the chart that a release refers to; false when it refers to none, which the CRD refuses.
func chartRef(o *unstructured.Unstructured) (validators.ChartRef, bool) {
	ref := validators.ChartRef{ReleaseNamespace: o.GetNamespace(), ReleaseName: o.GetName()}
	from := func(fields ...string) bool {
		m, ok, _ := unstructured.NestedMap(o.Object, fields...)
		if !ok {
			return false
		}
		ref.Source = validators.ObjectRef{Group: flux.HelmChart.Group, Kind: text(m, "kind"), Namespace: text(m, "namespace"), Name: text(m, "name")}
		if ref.Source.Namespace == "" {
			ref.Source.Namespace = o.GetNamespace()
		}
		return ref.Source.Name != ""
	}
	if from("spec", "chartRef") {
		return ref, true
	}
	if !from("spec", "chart", "spec", "sourceRef") {
		return ref, false
	}
	spec, _, _ := unstructured.NestedMap(o.Object, "spec", "chart", "spec")
	ref.Chart, ref.Version = text(spec, "chart"), text(spec, "version")
	ref.ValuesFiles, _, _ = unstructured.NestedStringSlice(spec, "valuesFiles")
	ref.IgnoreMissingValuesFiles, _ = spec["ignoreMissingValuesFiles"].(bool)
	return ref, true
}

// releaseValues returns the parts of a release's values, with the objects of valuesFrom as far as they can be read.
func releaseValues(ctx context.Context, o *unstructured.Unstructured, look validators.Lookup) validators.Values {
	v := validators.Values{Namespace: o.GetNamespace()}
	spec, _ := o.Object["spec"].(map[string]any)
	v.Inline, _ = spec["values"].(map[string]any)
	from, _ := spec["valuesFrom"].([]any)
	for _, item := range from {
		m, _ := item.(map[string]any)
		s := validators.ValuesSource{Kind: text(m, "kind"), Name: text(m, "name"), Key: text(m, "valuesKey"), TargetPath: text(m, "targetPath")}
		s.Literal, _ = m["literal"].(bool)
		s.Optional, _ = m["optional"].(bool)
		// What kind else the API server let through, Flux refuses; nothing is known of it here.
		if s.Kind == "ConfigMap" || s.Kind == "Secret" {
			key := types.NamespacedName{Namespace: o.GetNamespace(), Name: s.Name}
			s.Object, s.Presence, _ = look.Get(ctx, schema.GroupKind{Kind: s.Kind}, key)
		}
		v.From = append(v.From, s)
	}
	return v
}

func text(m map[string]any, key string) string {
	s, _ := m[key].(string)
	return s
}
