package kustomization

import (
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/resourceset"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
)

var (
	resourceSet   = schema.GroupKind{Group: "fluxcd.controlplane.io", Kind: "ResourceSet"}
	inputProvider = schema.GroupKind{Group: "fluxcd.controlplane.io", Kind: "ResourceSetInputProvider"}
)

// buildResourceSets builds the objects of all ResourceSets again: their inputs may come from providers that another
// Kustomization applies, and their Kustomizations are followed.
func (c *clusterBuilder) buildResourceSets() {
	var providers []*Object
	for _, k := range c.order {
		for _, o := range k.Objects {
			if o.GroupVersionKind().GroupKind() == inputProvider && !k.RemoteCluster() {
				providers = append(providers, o)
			}
		}
	}
	for _, k := range c.order {
		k.generated, k.uncertain = nil, nil
		if k.RemoteCluster() {
			continue
		}
		for _, o := range k.Objects {
			if o.GroupVersionKind().GroupKind() == resourceSet {
				k.addResourceSet(o, providers)
			}
		}
		c.register(k, k.generated)
	}
}

// addResourceSet adds the objects of a ResourceSet to those that the Kustomization generates.
func (k *Kustomization) addResourceSet(set *Object, providers []*Object) {
	if set.GetAnnotations()["fluxcd.controlplane.io/reconcile"] == "disabled" {
		return
	}
	strategy, _, _ := unstructured.NestedString(set.Object, "spec", "inputStrategy", "name")
	inputs, complete := inputsOf(set, providers)
	if !complete || strategy == "Permute" {
		k.uncertain = append(k.uncertain, set)
	}
	if strategy == "Permute" {
		return
	}
	objects, err := resourceset.Build(set.Unstructured, inputs)
	if err != nil {
		k.uncertain = append(k.uncertain, set)
	}
	for _, built := range objects {
		o := &Object{
			Unstructured: built.Unstructured, Kustomization: k, Origin: Origin{File: set.Origin.File, Document: -1},
			generator: set, template: built.Template, text: built.Text,
		}
		o.findVariables(o.Object, nil)
		k.generated = append(k.generated, o)
	}
}

// inputsOf returns the input sets of the providers that a ResourceSet refers to, and whether these are all.
func inputsOf(set *Object, providers []*Object) (inputs []map[string]any, complete bool) {
	complete = len(set.Unresolved) == 0
	from, _, _ := unstructured.NestedSlice(set.Object, "spec", "inputsFrom")
	for _, item := range from {
		ref, _ := item.(map[string]any)
		name, _ := ref["name"].(string)
		selector := labels.Nothing()
		if m, ok := ref["selector"].(map[string]any); ok {
			var s metav1.LabelSelector
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(m, &s); err == nil {
				if parsed, err := metav1.LabelSelectorAsSelector(&s); err == nil {
					selector = parsed
				}
			}
		}
		found := false
		for _, p := range providers {
			if p.GetNamespace() != set.GetNamespace() || p.GetName() != name && !selector.Matches(labels.Set(p.GetLabels())) {
				continue
			}
			found = true
			if kind, _, _ := unstructured.NestedString(p.Object, "spec", "type"); kind != "Static" {
				complete = false
				continue
			}
			inputs = append(inputs, resourceset.Static(p.Unstructured))
		}
		complete = complete && found
	}
	return inputs, complete
}

// findVariables adds the fields that still hold a variable to the unresolved ones.
func (o *Object) findVariables(v any, at validators.Path) {
	switch v := v.(type) {
	case string:
		if unresolved.HasVariable(v) {
			o.Unresolved = append(o.Unresolved, at)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			o.findVariables(v[key], at.Child(key))
		}
	case []any:
		for i, item := range v {
			o.findVariables(item, at.Index(i))
		}
	}
}
