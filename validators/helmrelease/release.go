// Package helmrelease holds the rules on Flux HelmReleases.
package helmrelease

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// ChartRef returns the chart reference of a release; false if there is none, which the CRD rejects.
func ChartRef(o *unstructured.Unstructured) (validators.ChartRef, bool) {
	ref := validators.ChartRef{ReleaseNamespace: o.GetNamespace(), ReleaseName: o.GetName()}
	from := func(fields ...string) bool {
		value, _, _ := unstructured.NestedFieldNoCopy(o.Object, fields...)
		m, ok := value.(map[string]any)
		if !ok {
			return false
		}
		ref.Source = validators.ObjectRef{
			Group:     flux.HelmChart.Group,
			Kind:      text(m, "kind"),
			Namespace: text(m, "namespace"),
			Name:      text(m, "name"),
		}
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
	value, _, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "chart", "spec")
	spec, _ := value.(map[string]any)
	ref.Chart, ref.Version = text(spec, "chart"), text(spec, "version")
	ref.ValuesFiles, _, _ = unstructured.NestedStringSlice(spec, "valuesFiles")
	ref.IgnoreMissingValuesFiles, _ = spec["ignoreMissingValuesFiles"].(bool)
	return ref, true
}

// chartOf returns the referenced chart. If the chart is unavailable, it records an Unknown and returns false.
func chartOf(ctx context.Context, p *validators.Pass, ref validators.ChartRef) (validators.Chart, bool) {
	chart, presence, err := p.Lookup.Chart(ctx, ref)
	switch presence {
	case validators.Present:
		return chart, true
	case validators.Absent:
		p.Unknown("%s does not exist", describe(ref))
	case validators.Unknown:
		p.Unknown("the chart is unavailable: %v", err)
	}
	return nil, false
}

// installOf returns the release as Flux installs it with Helm.
func installOf(o *unstructured.Unstructured, values validators.Values) validators.Release {
	id := identityOf(o)
	r := validators.Release{Name: shortName(id.name), Namespace: id.namespace, Values: values}
	crds, _, _ := unstructured.NestedString(o.Object, "spec", "install", "crds")
	skip, _, _ := unstructured.NestedBool(o.Object, "spec", "install", "skipCRDs")
	r.SkipCRDs = skip || crds == "Skip"
	return r
}

// maxReleaseName is the length of the longest release name that Helm allows, in bytes.
const maxReleaseName = 53

// shortName shortens a release name as helm-controller does.
func shortName(name string) string {
	if len(name) <= maxReleaseName {
		return name
	}
	const digits = 12
	return fmt.Sprintf("%s-%x", name[:maxReleaseName-digits-1], sha256.Sum256([]byte(name)))[:maxReleaseName]
}

// templated is a release with the objects of its chart's templates.
type templated struct {
	chart   validators.Chart
	release validators.Release
	*validators.Templated
}

// templatedOf templates the chart of a release. It returns false if that is impossible, recorded as Unknown, or if the
// values violate the chart's schema: Helm does not template the chart then, and the rule on the schema reports it.
func templatedOf(ctx context.Context, p *validators.Pass) (templated, bool) {
	ref, ok := ChartRef(p.Object)
	if !ok {
		return templated{}, false // the CRD rejects that
	}
	chart, ok := chartOf(ctx, p, ref)
	if !ok {
		return templated{}, false
	}
	values := releaseValues(ctx, p.Object, p.Lookup)
	if !nextAction(p.Request).disabled {
		if result, err := chart.Validate(ctx, values); err == nil && len(result.Violations) > 0 {
			return templated{}, false
		}
	}
	r := templated{chart: chart, release: installOf(p.Object, values)}
	out, presence, err := chart.Template(ctx, r.release)
	if presence != validators.Present {
		p.Unknown("cannot template chart %s %s: %v", chart.Name(), chart.Version(), err)
		return templated{}, false
	}
	r.Templated = out
	return r, true
}

// chartPath returns the path of the field with which a release references its chart.
func chartPath(o *unstructured.Unstructured) validators.Path {
	if _, ok, _ := unstructured.NestedMap(o.Object, "spec", "chartRef"); ok {
		return validators.NewPath("spec", "chartRef")
	}
	return validators.NewPath("spec", "chart", "spec", "chart")
}

// releaseValues returns the parts of a release's values, with those objects of valuesFrom that can be read.
func releaseValues(ctx context.Context, o *unstructured.Unstructured, look validators.Lookup) validators.Values {
	v := validators.Values{Namespace: o.GetNamespace()}
	spec, _ := o.Object["spec"].(map[string]any)
	v.Inline, _ = spec["values"].(map[string]any)
	from, _ := spec["valuesFrom"].([]any)
	for _, item := range from {
		m, _ := item.(map[string]any)
		s := validators.ValuesSource{
			Kind:       text(m, "kind"),
			Name:       text(m, "name"),
			Key:        text(m, "valuesKey"),
			TargetPath: text(m, "targetPath"),
		}
		s.Literal, _ = m["literal"].(bool)
		s.Optional, _ = m["optional"].(bool)
		// Flux rejects other kinds.
		if s.Kind == "ConfigMap" || s.Kind == "Secret" {
			key := types.NamespacedName{Namespace: o.GetNamespace(), Name: s.Name}
			var err error
			s.Object, s.Presence, err = look.Get(ctx, schema.GroupKind{Kind: s.Kind}, key)
			if err != nil {
				s.Withheld, s.Reason = errors.Is(err, validators.ErrWithheld), err.Error()
			}
		}
		v.From = append(v.From, s)
	}
	return v
}

// withoutSecrets returns the values without what comes from Secrets, and the names of the Secrets whose content is left
// out. That a Secret or its key does not exist is no content.
func withoutSecrets(v validators.Values) (validators.Values, []string) {
	var secrets []string
	v.From = slices.Clone(v.From)
	for i := range v.From {
		s := &v.From[i]
		if s.Kind != "Secret" || s.Presence != validators.Present || encrypted(*s) {
			continue
		}
		if !hasKey(s.Object, key(*s)) {
			s.Presence, s.Object = validators.Absent, nil
			continue
		}
		s.Presence, s.Object = validators.Unknown, nil
		if !slices.Contains(secrets, s.Name) {
			secrets = append(secrets, s.Name)
		}
	}
	return v, secrets
}

// encrypted reports whether SOPS encrypted the values of a Secret, which is a manifest then.
func encrypted(s validators.ValuesSource) bool {
	text, _, _ := unstructured.NestedString(s.Object.Object, "stringData", key(s))
	return unresolved.IsEncryptedObject(s.Object.Object) || unresolved.IsEncrypted(text)
}

// withheld returns why rules may not read entries of valuesFrom, each reason once.
func withheld(v validators.Values) []string {
	var out []string
	for _, s := range v.From {
		if s.Withheld && !slices.Contains(out, s.Reason) {
			out = append(out, s.Reason)
		}
	}
	return out
}

func text(m map[string]any, key string) string {
	s, _ := m[key].(string)
	return s
}

// Namespace returns the namespace that a release is installed into.
func Namespace(o *unstructured.Unstructured) string { return identityOf(o).namespace }

// Templated returns what a release's chart templates; nil if the chart is unavailable, a value is unknown, or
// templating fails.
func Templated(ctx context.Context, look validators.Lookup, o *unstructured.Unstructured) *validators.Templated {
	out, err := Template(ctx, look, o)
	if err != nil {
		return nil
	}
	return out
}

// Template returns what a release's chart templates. The error is why that is unknown, or why Helm fails.
func Template(ctx context.Context, look validators.Lookup, o *unstructured.Unstructured) (*validators.Templated, error) {
	ref, ok := ChartRef(o)
	if !ok {
		return nil, errors.New("it has no chart")
	}
	chart, presence, err := look.Chart(ctx, ref)
	switch presence {
	case validators.Present:
	case validators.Absent:
		return nil, fmt.Errorf("%s does not exist", describe(ref))
	case validators.Unknown:
		return nil, fmt.Errorf("the chart is unavailable: %w", err)
	}
	values := releaseValues(ctx, o, look)
	if !nextAction(validators.Request{Operation: validators.Create, Object: o}).disabled {
		// Helm validates the values before it templates. Values that cannot be validated are templated all the same.
		if result, err := chart.Validate(ctx, values); err == nil && len(result.Violations) > 0 {
			v := result.Violations[0]
			more := ""
			if n := len(result.Violations) - 1 + result.More; n > 0 {
				more = fmt.Sprintf(", and %d more", n)
			}
			return nil, fmt.Errorf("the values violate the schema of chart %s %s: at '%s': %s%s", chart.Name(), chart.Version(), v.Pointer, v.Message, more)
		}
	}
	out, presence, err := chart.Template(ctx, installOf(o, values))
	if presence != validators.Present {
		return nil, fmt.Errorf("chart %s %s cannot be templated: %w", chart.Name(), chart.Version(), err)
	}
	if out.Failure != nil {
		return nil, fmt.Errorf("chart %s %s cannot be templated: %s", chart.Name(), chart.Version(), out.Failure.Message)
	}
	return out, nil
}
