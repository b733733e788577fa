package chartsource

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/validators"
)

// finder finds the source of a chart from Flux's objects.
type finder struct {
	objects          validators.Lookup
	noCrossNamespace bool
	// login is Options.Login.
	login func(ctx context.Context, url string) (username, password string, err error)
}

// withLogin is a Lookup with the user's own logins; see Options.Login.
type withLogin struct {
	validators.Lookup
	login func(ctx context.Context, url string) (username, password string, err error)
}

// find returns the source of a reference's chart. Absent means that the Flux object does not exist.
func (f finder) find(ctx context.Context, ref validators.ChartRef) (source, validators.Presence, error) {
	key := types.NamespacedName{Namespace: ref.Source.Namespace, Name: ref.Source.Name}
	if f.noCrossNamespace && ref.ReleaseNamespace != "" && ref.Source.Namespace != ref.ReleaseNamespace {
		return nil, validators.Unknown, fmt.Errorf("%s %s is in another namespace, and cross-namespace references are denied", ref.Source.Kind, key)
	}
	newSource, ok := map[string]func(context.Context, validators.Lookup, *unstructured.Unstructured, validators.ChartRef) (source, error){
		"HelmRepository":   newHelmRepository,
		"OCIRepository":    newOCIRepository,
		"GitRepository":    newTree,
		"Bucket":           newTree,
		"ExternalArtifact": newExternalArtifact,
		"HelmChart":        f.helmChart,
	}[ref.Source.Kind]
	if !ok || ref.Source.Group != sourceGroup {
		return nil, validators.Unknown, fmt.Errorf("sources of kind %s are not supported", ref.Source.Kind)
	}
	obj, presence, err := f.objects.Get(ctx, schema.GroupKind{Group: ref.Source.Group, Kind: ref.Source.Kind}, key)
	if presence != validators.Present {
		return nil, presence, err
	}
	src, err := newSource(ctx, withLogin{f.objects, f.login}, obj, ref)
	if errors.Is(err, errAbsent) {
		return nil, validators.Absent, nil
	}
	if err != nil {
		return nil, validators.Unknown, fmt.Errorf("%s %s: %w", ref.Source.Kind, key, err)
	}
	if ref.Chart != "" && ref.ReleaseName != "" {
		src = f.withHelmChart(ctx, ref, src)
	}
	return src, validators.Present, nil
}

// withHelmChart prefers the artifact of the HelmChart that Flux creates for the release, which is what Flux installs.
// It requires that the HelmChart was created for this very reference.
func (f finder) withHelmChart(ctx context.Context, ref validators.ChartRef, src source) source {
	key := types.NamespacedName{Namespace: ref.Source.Namespace, Name: ref.ReleaseNamespace + "-" + ref.ReleaseName}
	obj, presence, _ := f.objects.Get(ctx, schema.GroupKind{Group: sourceGroup, Kind: "HelmChart"}, key)
	if presence != validators.Present {
		return src
	}
	have, err := helmChartRef(obj)
	if err != nil || have.Source != ref.Source || have.Chart != ref.Chart || anyVersion(have.Version) != anyVersion(ref.Version) ||
		!slices.Equal(have.ValuesFiles, ref.ValuesFiles) || have.IgnoreMissingValuesFiles != ref.IgnoreMissingValuesFiles {
		return src
	}
	a, ok := artifactOf(obj)
	if !ok {
		return src
	}
	return &withFallback{artifact: newChartArtifact(a, obj), fallback: src}
}

// helmChart returns the source of a HelmChart object: its artifact, or the source that it refers to.
func (f finder) helmChart(ctx context.Context, _ validators.Lookup, obj *unstructured.Unstructured, _ validators.ChartRef) (source, error) {
	ref, err := helmChartRef(obj)
	if err != nil {
		return nil, err
	}
	if ref.Source.Kind == "HelmChart" {
		return nil, errors.New("a HelmChart cannot refer to a HelmChart")
	}
	src, presence, err := f.find(ctx, ref)
	if presence == validators.Absent {
		err = fmt.Errorf("%w: its %s %s/%s does not exist", errAbsent, ref.Source.Kind, ref.Source.Namespace, ref.Source.Name)
	}
	return preferArtifact(obj, src, err)
}

// helmChartRef returns the reference of a HelmChart object to its chart.
func helmChartRef(obj *unstructured.Unstructured) (validators.ChartRef, error) {
	spec, ok, _ := unstructured.NestedMap(obj.Object, "spec")
	ref, ok2, _ := unstructured.NestedStringMap(spec, "sourceRef")
	if !ok || !ok2 {
		return validators.ChartRef{}, errors.New("it has no sourceRef")
	}
	out := validators.ChartRef{
		Source:           validators.ObjectRef{Group: sourceGroup, Kind: ref["kind"], Namespace: obj.GetNamespace(), Name: ref["name"]},
		ReleaseNamespace: obj.GetNamespace(),
	}
	out.Chart, _, _ = unstructured.NestedString(spec, "chart")
	out.Version, _, _ = unstructured.NestedString(spec, "version")
	out.ValuesFiles, _, _ = unstructured.NestedStringSlice(spec, "valuesFiles")
	out.IgnoreMissingValuesFiles, _, _ = unstructured.NestedBool(spec, "ignoreMissingValuesFiles")
	return out, nil
}
