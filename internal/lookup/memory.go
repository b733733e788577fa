// Package lookup gives rules their three-valued view of other objects: from memory (a Git tree, a test) and from a
// cluster.
package lookup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/validators"
)

// Charts resolves references to charts; internal/chartsource implements it. Objects has the chart's source.
type Charts interface {
	Resolve(
		ctx context.Context, objects validators.Lookup, ref validators.ChartRef,
	) (validators.Chart, validators.Presence, error)
}

// Kinds knows the schemas of kinds; internal/kindschema implements it. The contract is that of validators.Lookup.
type Kinds interface {
	Kind(ctx context.Context, gk schema.GroupKind) (*validators.Kind, validators.Presence, error)
}

// Builds knows what Flux Kustomizations build; internal/kustomization implements it. The contract is that of
// validators.Lookup.
type Builds interface {
	Build(ctx context.Context, key types.NamespacedName) (*validators.Build, validators.Presence, error)
	Owners(
		ctx context.Context, gk schema.GroupKind, key types.NamespacedName,
	) ([]types.NamespacedName, validators.Presence, error)
}

// errNoBuilds explains an Unknown where no Builds are given.
var errNoBuilds = errors.New("what Kustomizations build is not seen here")

// errNoKinds explains an Unknown where no Kinds are given.
var errNoKinds = errors.New("schemas are not read here")

// ErrNotSeen explains an Unknown of a Memory that is not complete.
var ErrNotSeen = errors.New("not among the objects given")

// Memory is a Lookup over a fixed set of objects. It is safe for concurrent use once filled.
type Memory struct {
	// Complete makes an object that is missing Absent; otherwise it is Unknown.
	Complete bool
	// Charts resolves charts; nil makes every chart Unknown.
	Charts Charts
	// Kinds knows kinds and their schemas; nil makes every kind Unknown.
	Kinds Kinds
	// Builds knows what Kustomizations build; nil makes that Unknown.
	Builds Builds

	objects map[schema.GroupKind]map[types.NamespacedName]*unstructured.Unstructured
	hidden  map[schema.GroupKind]map[types.NamespacedName]error

	mu sync.Mutex
	// lists are the results of List. Rules read the same few lists for each object that they evaluate.
	lists map[listKey][]*unstructured.Unstructured
}

type listKey struct {
	gk        schema.GroupKind
	namespace string
}

// NewMemory returns a complete Memory of the objects.
func NewMemory(objects ...*unstructured.Unstructured) *Memory {
	m := &Memory{Complete: true}
	for _, o := range objects {
		m.Add(o)
	}
	return m
}

// Add adds an object, or replaces it.
func (m *Memory) Add(o *unstructured.Unstructured) {
	gk := o.GroupVersionKind().GroupKind()
	if m.objects == nil {
		m.objects = map[schema.GroupKind]map[types.NamespacedName]*unstructured.Unstructured{}
	}
	if m.objects[gk] == nil {
		m.objects[gk] = map[types.NamespacedName]*unstructured.Unstructured{}
	}
	m.objects[gk][types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}] = o
	m.mu.Lock()
	m.lists = nil
	m.mu.Unlock()
}

// Hide makes one object Unknown with a reason: it exists, but its content cannot be read, such as an encrypted Secret.
func (m *Memory) Hide(gk schema.GroupKind, key types.NamespacedName, reason error) {
	if m.hidden == nil {
		m.hidden = map[schema.GroupKind]map[types.NamespacedName]error{}
	}
	if m.hidden[gk] == nil {
		m.hidden[gk] = map[types.NamespacedName]error{}
	}
	m.hidden[gk][key] = reason
}

// Has reports whether an object was added.
func (m *Memory) Has(gk schema.GroupKind, key types.NamespacedName) bool {
	return m.objects[gk][key] != nil
}

// Get implements validators.Lookup.
func (m *Memory) Get(
	_ context.Context, gk schema.GroupKind, key types.NamespacedName,
) (*unstructured.Unstructured, validators.Presence, error) {
	if reason, ok := m.hidden[gk][key]; ok {
		return nil, validators.Unknown, fmt.Errorf("%s %s: %w", gk.Kind, key, reason)
	}
	if o, ok := m.objects[gk][key]; ok {
		return o, validators.Present, nil
	}
	if !m.Complete {
		return nil, validators.Unknown, fmt.Errorf("%s %s: %w", gk.Kind, key, ErrNotSeen)
	}
	return nil, validators.Absent, nil
}

// List implements validators.Lookup. The objects are sorted by namespace and name.
func (m *Memory) List(
	_ context.Context, gk schema.GroupKind, namespace string,
) ([]*unstructured.Unstructured, validators.Presence, error) {
	out := m.sorted(listKey{gk, namespace})
	if !m.Complete {
		return out, validators.Unknown, fmt.Errorf("list of %s: %w", gk.Kind, ErrNotSeen)
	}
	return out, validators.Present, nil
}

// sorted returns a sorted list. Callers share it; it has no spare capacity, so that appending to it copies it.
func (m *Memory) sorted(key listKey) []*unstructured.Unstructured {
	m.mu.Lock()
	defer m.mu.Unlock()
	if out, ok := m.lists[key]; ok {
		return out
	}
	var keys []types.NamespacedName
	for k := range m.objects[key.gk] {
		if key.namespace == "" || k.Namespace == key.namespace {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b types.NamespacedName) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	out := make([]*unstructured.Unstructured, 0, len(keys))
	for _, k := range keys {
		out = append(out, m.objects[key.gk][k])
	}
	if m.lists == nil {
		m.lists = map[listKey][]*unstructured.Unstructured{}
	}
	m.lists[key] = out
	return out
}

// Namespace implements validators.Lookup.
func (m *Memory) Namespace(ctx context.Context, name string) (*unstructured.Unstructured, validators.Presence, error) {
	return m.Get(ctx, schema.GroupKind{Kind: "Namespace"}, types.NamespacedName{Name: name})
}

// Chart implements validators.Lookup.
func (m *Memory) Chart(ctx context.Context, ref validators.ChartRef) (validators.Chart, validators.Presence, error) {
	if m.Charts == nil {
		return nil, validators.Unknown, errors.New("charts are not read here")
	}
	return m.Charts.Resolve(ctx, m, ref)
}

// Kind implements validators.Lookup.
func (m *Memory) Kind(ctx context.Context, gk schema.GroupKind) (*validators.Kind, validators.Presence, error) {
	if m.Kinds == nil {
		return nil, validators.Unknown, errNoKinds
	}
	return m.Kinds.Kind(ctx, gk)
}

// Build implements validators.Lookup.
func (m *Memory) Build(ctx context.Context, key types.NamespacedName) (*validators.Build, validators.Presence, error) {
	if m.Builds == nil {
		return nil, validators.Unknown, errNoBuilds
	}
	return m.Builds.Build(ctx, key)
}

// Owners implements validators.Lookup.
func (m *Memory) Owners(
	ctx context.Context, gk schema.GroupKind, key types.NamespacedName,
) ([]types.NamespacedName, validators.Presence, error) {
	if m.Builds == nil {
		return nil, validators.Unknown, errNoBuilds
	}
	return m.Builds.Owners(ctx, gk, key)
}
