package reference

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// chartMayMake says which release's chart looks as if it made the object that is named; nil when none does. Charts call what they make after the release, and
// where a subchart makes it, after its part of the values as well: db, db-postgresql. A StorageClass is of no release, and shares a word with its provisioner.
func chartMayMake(ctx context.Context, p *validators.Pass, r reference) error {
	var looks func(*unstructured.Unstructured) bool
	switch r.to {
	case storageClass:
		words := wordsOf(r.key.Name)
		looks = func(o *unstructured.Unstructured) bool {
			return slices.ContainsFunc(append(wordsOf(chartName(o)), wordsOf(o.GetName())...), func(word string) bool {
				return word != "storage" && word != "cluster" && word != "operator" && word != "csi" && slices.Contains(words, word)
			})
		}
	case secret, configMap, serviceAccount, volumeClaim:
		looks = func(o *unstructured.Unstructured) bool {
			return effectiveNamespace(o) == r.key.Namespace && slices.ContainsFunc(releaseNames(o), func(release string) bool {
				return madeByRelease(o, release, r.to, r.key.Name)
			})
		}
	default:
		return nil
	}
	for _, o := range releases(ctx, p) {
		if looks(o) {
			return fmt.Errorf("the chart of HelmRelease %s/%s may make it", o.GetNamespace(), o.GetName())
		}
	}
	return nil
}

// releases returns the HelmReleases that can be seen, the object in review included.
func releases(ctx context.Context, p *validators.Pass) []*unstructured.Unstructured {
	list, _, _ := p.Lookup.List(ctx, flux.HelmRelease, "")
	if p.Object.GroupVersionKind().GroupKind() == flux.HelmRelease {
		list = append(slices.Clip(list), p.Object)
	}
	return list
}

func wordsOf(name string) []string {
	return strings.FieldsFunc(name, func(r rune) bool { return r == '-' || r == '.' || r == '/' })
}

// madeByRelease tells whether an object's name is one that the chart of a release would give. Secrets are made by hand more often than by charts, also under a
// release's name: for one, what follows that name has to be the chart's or stand in the values.
func madeByRelease(o *unstructured.Unstructured, release string, kind schema.GroupKind, name string) bool {
	if name == release {
		return true
	}
	rest, ok := strings.CutPrefix(name, release+"-")
	if !ok || kind != secret {
		return ok
	}
	parts := []string{chartName(o)}
	values, _, _ := unstructured.NestedMap(o.Object, "spec", "values")
	for key, v := range values {
		parts = append(parts, key)
		if own, ok := v.(map[string]any); ok && key == "secrets" {
			for key := range own {
				parts = append(parts, key)
			}
		}
	}
	return slices.ContainsFunc(parts, func(part string) bool { return part != "" && (rest == part || strings.HasPrefix(rest, part+"-")) })
}

// releaseNames returns the names that a release's chart may call things after: the release's, and those that the values give instead.
func releaseNames(o *unstructured.Unstructured) []string {
	name := o.GetName()
	if namespace := field(o, "", "spec", "targetNamespace"); namespace != "" {
		name = namespace + "-" + name // as helm-controller calls it
	}
	out := []string{field(o, name, "spec", "releaseName")}
	for _, key := range []string{"fullnameOverride", "nameOverride"} {
		if name := field(o, "", "spec", "values", key); name != "" {
			out = append(out, name)
		}
	}
	return out
}

// chartName returns the name that a release gives of its chart: that of the chart in a repository, or of the source of nothing but the chart.
func chartName(o *unstructured.Unstructured) string {
	return field(o, field(o, "", "spec", "chartRef", "name"), "spec", "chart", "spec", "chart")
}
