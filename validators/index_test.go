package validators_test

import (
	"context"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
)

// TestIndexKeys finds objects by several keys, in a Lookup without indexes.
func TestIndexKeys(t *testing.T) {
	object := func(name string, shares ...any) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name, "namespace": "apps"}, "shares": shares,
		}}
	}
	look := lookup.NewMemory(object("c", "x"), object("a", "x", "y"), object("b"))
	index := &validators.Index{
		Name: "shares", Kind: schema.GroupKind{Kind: "ConfigMap"},
		Keys: func(_ context.Context, _ validators.Lookup, o *unstructured.Unstructured) []string {
			keys, _, _ := unstructured.NestedStringSlice(o.Object, "shares")
			return keys
		},
	}
	for key, want := range map[string][]string{"x": {"a", "c"}, "y": {"a"}, "z": nil} {
		list, presence, err := validators.ByIndex(t.Context(), look, index, key)
		var got []string
		for _, o := range list {
			got = append(got, o.GetName())
		}
		if presence != validators.Present || err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v (%v, %v), want %v", key, got, presence, err, want)
		}
	}
}
