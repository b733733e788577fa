package reference

import (
	"context"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
)

// checkKeys reports the keys that a reference needs and that the Secret or ConfigMap certainly does not have: a Pod
// whose key is missing does not start.
func checkKeys(ctx context.Context, p *validators.Pass, r reference) {
	if len(r.data)+len(r.sets) == 0 {
		return
	}
	keys, origin, ok := keysOf(ctx, p.Lookup, r)
	if !ok {
		return
	}
	if text := r.sets.missing(keys); len(r.sets) > 0 && text != "" {
		f := p.Report(r.at, r.key.Name, "%s %s", origin, text)
		f.Key = r.String() + " " + text
		f.Fix = "Add the key to " + origin + ", or name the Secret that has it."
	}
	for _, k := range r.data {
		if slices.Contains(keys, k.name) {
			continue
		}
		f := p.Report(k.at, k.name, "%s has no key %s", origin, k.name)
		f.Key = r.String() + " " + k.name
		f.Fix = "Correct the key, or add it to " + origin + "."
		if near := suggest.Nearest(k.name, keys); near != "" {
			f.Message += "; did you mean " + near + "?"
		}
	}
}

// keysOf returns the keys of a Secret or ConfigMap, and what defines them for messages. False means that it may have
// others.
func keysOf(ctx context.Context, look validators.Lookup, r reference) (keys []string, origin string, ok bool) {
	o, presence, _ := look.Get(ctx, r.to, r.key)
	created, complete := createdKeys(ctx, look, r)
	switch {
	case presence == validators.Present && created == nil && complete:
		if len(o.GetAnnotations()) > 0 && completedLater(o) {
			return nil, "", false
		}
		for _, field := range []string{"data", "stringData", "binaryData"} {
			m, _ := o.Object[field].(map[string]any)
			keys = slices.AppendSeq(keys, maps.Keys(m))
		}
		// An empty Secret is filled by somebody else, such as one for a token.
		kind, _ := o.Object["type"].(string)
		return keys, r.String(), len(keys) > 0 && kind != "kubernetes.io/service-account-token"
	case presence == validators.Absent && created != nil && complete:
		return created, r.String(), true
	}
	return nil, "", false
}

// completedLater reports whether a controller adds keys to the object: one that copies another object, or injects a CA.
func completedLater(o *unstructured.Unstructured) bool {
	for name := range o.GetAnnotations() {
		if strings.Contains(name, "replicat") || strings.Contains(name, "reflect") || strings.Contains(name, "inject") {
			return true
		}
	}
	for name := range o.GetLabels() {
		if strings.Contains(name, "inject") {
			return true
		}
	}
	return false
}

// createdKeys returns the keys of a Secret that an ExternalSecret creates; nil when none creates it. False means that
// something may add other keys.
func createdKeys(ctx context.Context, look validators.Lookup, r reference) (keys []string, complete bool) {
	if r.to != secret {
		return nil, true
	}
	for _, g := range generatorsOf(secret) {
		for _, o := range g.list(ctx, look, r.key.Namespace) {
			if !slices.ContainsFunc(g.names(o), func(name string) bool { return matchesName(ctx, name, r.key.Name) }) {
				continue
			}
			if g.gk != externalSecret {
				return nil, false
			}
			own, known := externalKeys(o)
			if !known || keys != nil {
				return nil, false
			}
			keys = own
		}
	}
	// With creationPolicy Merge an ExternalSecret adds keys to the Secret of another.
	list, _, _ := look.List(ctx, externalSecret, r.key.Namespace)
	for _, o := range list {
		if field(o, "", "spec", "target", "creationPolicy") == "Merge" && field(o, o.GetName(), "spec", "target", "name") == r.key.Name {
			return nil, false
		}
	}
	return keys, true
}

// externalKeys returns the keys of the Secret of an ExternalSecret; false when they depend on the provider.
func externalKeys(o *unstructured.Unstructured) ([]string, bool) {
	if from, _, _ := unstructured.NestedSlice(o.Object, "spec", "dataFrom"); len(from) > 0 {
		// A template may name the keys all the same; Merge adds those of the provider.
		if _, templated, _ := unstructured.NestedMap(o.Object, "spec", "target", "template", "data"); !templated ||
			field(o, "", "spec", "target", "template", "mergePolicy") == "Merge" {
			return nil, false
		}
	}
	if _, found, _ := unstructured.NestedSlice(o.Object, "spec", "target", "template", "templateFrom"); found {
		return nil, false
	}
	keys := []string{}
	template, templated, _ := unstructured.NestedMap(o.Object, "spec", "target", "template", "data")
	for key := range template {
		keys = append(keys, key)
	}
	if !templated || len(template) == 0 || field(o, "", "spec", "target", "template", "mergePolicy") == "Merge" {
		data, _, _ := unstructured.NestedSlice(o.Object, "spec", "data")
		for _, item := range data {
			m, _ := item.(map[string]any)
			key, _ := m["secretKey"].(string)
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, !slices.ContainsFunc(keys, func(key string) bool { return unresolved.HasVariable(key) || unresolved.HasTemplate(key) })
}
