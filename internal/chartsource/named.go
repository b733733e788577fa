package chartsource

import (
	"context"
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/validators"
)

// named returns the reference with the name and the version of its chart, where these are in the object that it refers to: the last part of an OCIRepository's
// URL and its tag, or what a HelmChart names. It is returned as it is when that is not known.
func named(ctx context.Context, objects validators.Lookup, ref validators.ChartRef) validators.ChartRef {
	if ref.Chart != "" {
		return ref
	}
	key := types.NamespacedName{Namespace: ref.Source.Namespace, Name: ref.Source.Name}
	o, presence, _ := objects.Get(ctx, schema.GroupKind{Group: ref.Source.Group, Kind: ref.Source.Kind}, key)
	if presence != validators.Present {
		return ref
	}
	text := func(fields ...string) string {
		s, _, _ := unstructured.NestedString(o.Object, fields...)
		return s
	}
	switch ref.Source.Kind {
	case "OCIRepository":
		ref.Chart = path.Base(strings.TrimSuffix(text("spec", "url"), "/"))
		if ref.Version = text("spec", "ref", "semver"); ref.Version == "" {
			ref.Version = text("spec", "ref", "tag")
		}
	case "HelmChart":
		ref.Chart, ref.Version = text("spec", "chart"), text("spec", "version")
	}
	return ref
}
