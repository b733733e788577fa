package reference

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// chartMayCreate returns which release's chart may create the referenced object, by its name, as an error; nil if none.
// Charts name their objects after the release, and a subchart's after its key in the values too: db, db-postgresql. A
// StorageClass has no release in its name, but shares a word with its provisioner.
func chartMayCreate(ctx context.Context, p *validators.Pass, r reference) error {
	var mayCreate func(*unstructured.Unstructured) bool
	switch r.to {
	case storageClass:
		words := wordsOf(r.key.Name)
		mayCreate = func(o *unstructured.Unstructured) bool {
			return slices.ContainsFunc(append(wordsOf(chartName(o)), wordsOf(o.GetName())...), func(word string) bool {
				return word != "storage" && word != "cluster" && word != "operator" && word != "csi" && slices.Contains(words, word)
			})
		}
	case secret, configMap, serviceAccount, volumeClaim:
		mayCreate = func(o *unstructured.Unstructured) bool {
			return effectiveNamespace(o) == r.key.Namespace && slices.ContainsFunc(releaseNames(o), func(release string) bool {
				return namedAfter(o, release, r.to, r.key.Name)
			})
		}
	case role, clusterRole:
		mayCreate = func(o *unstructured.Unstructured) bool { return sharesWord(o, r.key.Name) }
	case cnpgCluster, imageCatalog, clusterImageCatalog, objectStore:
		mayCreate = func(o *unstructured.Unstructured) bool { return cnpgMayCreate(o, r) }
	default:
		return nil
	}
	for _, o := range releases(ctx, p) {
		if mayCreate(o) {
			return fmt.Errorf("the chart of HelmRelease %s/%s may create it", o.GetNamespace(), o.GetName())
		}
	}
	return nil
}

// releases returns the known HelmReleases, including the object in review.
func releases(ctx context.Context, p *validators.Pass) []*unstructured.Unstructured {
	list, _, _ := p.Lookup.List(ctx, flux.HelmRelease, "")
	if p.Object.GroupVersionKind().GroupKind() == flux.HelmRelease {
		list = append(slices.Clip(list), p.Object)
	}
	return list
}

// valuesOf returns the values of a release: its own, and those of known ConfigMaps that mention a text in lower case. Others are not
// worth parsing for each reference.
func valuesOf(ctx context.Context, p *validators.Pass, release *unstructured.Unstructured, mention string) []any {
	own, _, _ := unstructured.NestedFieldNoCopy(release.Object, "spec", "values")
	out := []any{own}
	from, _, _ := unstructured.NestedSlice(release.Object, "spec", "valuesFrom")
	for _, item := range from {
		ref, _ := item.(map[string]any)
		name, _ := ref["name"].(string)
		if ref["kind"] != configMap.Kind || ref["targetPath"] != nil {
			continue
		}
		key, _ := ref["valuesKey"].(string)
		o, presence, _ := p.Lookup.Get(ctx, configMap, types.NamespacedName{Namespace: release.GetNamespace(), Name: name})
		if presence != validators.Present || o == nil {
			continue
		}
		text, _, _ := unstructured.NestedString(o.Object, "data", cmp.Or(key, "values.yaml"))
		var values any
		if strings.Contains(strings.ToLower(text), mention) && yaml.Unmarshal([]byte(text), &values) == nil {
			out = append(out, values)
		}
	}
	return out
}

// addsWords reports whether one of two names has all words of the other.
func addsWords(a, b string) bool {
	within := func(words, of []string) bool {
		return !slices.ContainsFunc(words, func(word string) bool { return !slices.Contains(of, word) })
	}
	return within(wordsOf(a), wordsOf(b)) || within(wordsOf(b), wordsOf(a))
}

func wordsOf(name string) []string {
	return strings.FieldsFunc(name, func(r rune) bool { return r == '-' || r == '.' || r == '/' })
}

// namedAfter reports whether an object has a name that the chart of a release may give. Secrets are often created by
// hand, also with a release's name: the rest of a Secret's name must be the chart's name, or a key or text of the values.
func namedAfter(o *unstructured.Unstructured, release string, kind schema.GroupKind, name string) bool {
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
		switch v := v.(type) {
		case string: // such as a group of nodes
			parts = append(parts, v)
		case map[string]any:
			if key == "secrets" {
				parts = slices.AppendSeq(parts, maps.Keys(v))
			}
		}
	}
	return slices.ContainsFunc(
		parts,
		func(part string) bool { return part != "" && (rest == part || strings.HasPrefix(rest, part+"-")) },
	)
}

// releaseNames returns the prefixes that a release's chart may use for names: the release's name, and overrides in the
// values.
func releaseNames(o *unstructured.Unstructured) []string {
	name := o.GetName()
	if namespace := field(o, "", "spec", "targetNamespace"); namespace != "" {
		name = namespace + "-" + name // as helm-controller composes it
	}
	out := []string{field(o, name, "spec", "releaseName")}
	for _, key := range []string{"fullnameOverride", "nameOverride"} {
		if name := field(o, "", "spec", "values", key); name != "" {
			out = append(out, name)
		}
	}
	return out
}

// chartName returns the name of a release's chart, or of the source that contains only the chart.
func chartName(o *unstructured.Unstructured) string {
	return field(o, field(o, "", "spec", "chartRef", "name"), "spec", "chart", "spec", "chart")
}
