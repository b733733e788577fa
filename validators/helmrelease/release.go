// Package helmrelease holds the rules on Flux HelmReleases.
package helmrelease

import (
	"context"
	"crypto/sha256"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// ChartRef returns the chart that a release refers to; false when it refers to none, which the CRD refuses.
func ChartRef(o *unstructured.Unstructured) (validators.ChartRef, bool) {
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

// chartOf returns the chart that a reference selects. Where there is none to be had, it has said so.
func chartOf(ctx context.Context, p *validators.Pass, ref validators.ChartRef) (validators.Chart, bool) {
	chart, presence, err := p.Lookup.Chart(ctx, ref)
	switch presence {
	case validators.Present:
		return chart, true
	case validators.Absent:
		p.Unknown("the chart does not exist: %s", described(ref))
	case validators.Unknown:
		p.Unknown("the chart is not known: %v", err)
	}
	return nil, false
}

// asInstalled returns what Flux hands Helm of a release for an installation.
func asInstalled(o *unstructured.Unstructured, values validators.Values) validators.Release {
	id := identityOf(o)
	r := validators.Release{Name: shortName(id.name), Namespace: id.namespace, Values: values}
	crds, _, _ := unstructured.NestedString(o.Object, "spec", "install", "crds")
	skip, _, _ := unstructured.NestedBool(o.Object, "spec", "install", "skipCRDs")
	r.SkipCRDs = skip || crds == "Skip"
	return r
}

// maxReleaseName is the longest name of a release that Helm takes, in bytes.
const maxReleaseName = 53

// shortName makes a long name of a release one that Helm takes, as helm-controller does.
func shortName(name string) string {
	if len(name) <= maxReleaseName {
		return name
	}
	const digits = 12
	return fmt.Sprintf("%s-%x", name[:maxReleaseName-digits-1], sha256.Sum256([]byte(name)))[:maxReleaseName]
}

// rendering is what a release's chart renders to.
type rendering struct {
	chart   validators.Chart
	release validators.Release
	*validators.Templated
}

// renderingOf renders a release. Where it cannot be said what it renders to, it has said so; where the chart's schema refuses the values, Helm does not
// render, and the rule on that reports it.
func renderingOf(ctx context.Context, p *validators.Pass) (rendering, bool) {
	ref, ok := ChartRef(p.Object)
	if !ok {
		return rendering{}, false // the CRD refuses that
	}
	chart, ok := chartOf(ctx, p, ref)
	if !ok {
		return rendering{}, false
	}
	values := releaseValues(ctx, p.Object, p.Lookup)
	if !nextAction(p.Request).disabled {
		if verdict, err := chart.Validate(ctx, values); err == nil && len(verdict.Violations) > 0 {
			return rendering{}, false
		}
	}
	r := rendering{chart: chart, release: asInstalled(p.Object, values)}
	out, presence, err := chart.Template(ctx, r.release)
	if presence != validators.Present {
		p.Unknown("what chart %s %s renders is not known: %v", chart.Name(), chart.Version(), err)
		return rendering{}, false
	}
	r.Templated = out
	return r, true
}

// chartPath is where a release names its chart.
func chartPath(o *unstructured.Unstructured) validators.Path {
	if _, ok, _ := unstructured.NestedMap(o.Object, "spec", "chartRef"); ok {
		return validators.NewPath("spec", "chartRef")
	}
	return validators.NewPath("spec", "chart", "spec", "chart")
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

// Rendered returns what a release's chart renders to; nil when the chart cannot be had, its values are not all known, or Helm refuses to render it.
func Rendered(ctx context.Context, look validators.Lookup, o *unstructured.Unstructured) *validators.Templated {
	ref, ok := ChartRef(o)
	if !ok {
		return nil
	}
	chart, presence, _ := look.Chart(ctx, ref)
	if presence != validators.Present {
		return nil
	}
	out, presence, _ := chart.Template(ctx, asInstalled(o, releaseValues(ctx, o, look)))
	if presence != validators.Present || out.Failure != nil {
		return nil
	}
	return out
}
