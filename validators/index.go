package validators

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Index finds objects of a kind by what they have in common, where a rule would otherwise walk all objects of the kind for each
// of them.
type Index struct {
	// Name is unique among all indexes.
	Name string
	Kind schema.GroupKind
	// Key returns what the objects have in common; empty for an object that is not in the index. It reads no field that informers
	// leave out.
	Key func(o *unstructured.Unstructured) string
	// Keys returns several keys instead, which may depend on other objects. Only rules that are evaluated offline alone have such
	// an index: in a cluster it would be stale.
	Keys func(ctx context.Context, l Lookup, o *unstructured.Unstructured) []string
}

// KeysOf returns the keys of an object.
func (x *Index) KeysOf(ctx context.Context, l Lookup, o *unstructured.Unstructured) []string {
	if x.Keys != nil {
		return x.Keys(ctx, l, o)
	}
	return []string{x.Key(o)}
}

// Indexed is implemented by a Lookup that keeps indexes.
type Indexed interface {
	// ByIndex returns the objects with a key. The result is that of Lookup.List.
	ByIndex(ctx context.Context, x *Index, key string) ([]*unstructured.Unstructured, Presence, error)
}

// ByIndex returns the objects with a key, from a Lookup that keeps indexes or else from its list.
func ByIndex(ctx context.Context, l Lookup, x *Index, key string) ([]*unstructured.Unstructured, Presence, error) {
	if indexed, ok := l.(Indexed); ok {
		return indexed.ByIndex(ctx, x, key)
	}
	list, presence, err := l.List(ctx, x.Kind, "")
	var out []*unstructured.Unstructured
	for _, o := range list {
		if slices.Contains(x.KeysOf(ctx, l, o), key) {
			out = append(out, o)
		}
	}
	return out, presence, err
}
