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

// resolveName fills in the name and the version of a reference's chart from the object that it refers to: the last
// segment of an OCIRepository's URL and its tag, or the spec of a HelmChart. Without that object, it returns the
// reference unchanged.
func resolveName(ctx context.Context, objects validators.Lookup, ref validators.ChartRef) validators.ChartRef {
	if ref.Chart != "" {
		return ref
	}
	key := types.NamespacedName{Namespace: ref.Source.Namespace, Name: ref.Source.Name}
	o, presence, _ := objects.Get(ctx, schema.GroupKind{Group: ref.Source.Group, Kind: ref.Source.Kind}, key)
	if presence != validators.Present {
		return ref
	}
	str := func(fields ...string) string {
		s, _, _ := unstructured.NestedString(o.Object, fields...)
		return s
	}
	switch ref.Source.Kind {
	case "OCIRepository":
		ref.Chart = path.Base(strings.TrimSuffix(str("spec", "url"), "/"))
		if ref.Version = str("spec", "ref", "semver"); ref.Version == "" {
			ref.Version = str("spec", "ref", "tag")
		}
	case "HelmChart":
		ref.Chart, ref.Version = str("spec", "chart"), str("spec", "version")
	}
	return ref
}
