package audit

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// object identifies an object.
type object struct {
	gk  schema.GroupKind
	key types.NamespacedName
}

// dependency is something that the evaluation of an object read: another object, whether it exists or not, the list of all
// objects of a kind (no name), or the objects with a key of an index.
type dependency struct {
	object
	// index and value are those of an index; empty for others.
	index, value string
}

// recorder is a Lookup that records what one evaluation reads.
type recorder struct {
	validators.Lookup
	// reading is called before something is read for the first time, so that no change of it is missed meanwhile; input after a
	// Secret or ConfigMap was read, with its resource version, empty for none.
	reading func(dependency)
	input   func(d dependency, version string)

	mu    sync.Mutex
	reads map[dependency]struct{}
	// chart means that a chart was resolved, which may change without a change of an object.
	chart bool
}

func (r *recorder) add(d dependency) {
	r.mu.Lock()
	if r.reads == nil {
		r.reads = map[dependency]struct{}{}
	}
	_, known := r.reads[d]
	r.reads[d] = struct{}{}
	r.mu.Unlock()
	if !known {
		r.reading(d)
	}
}

// Get implements validators.Lookup.
func (r *recorder) Get(
	ctx context.Context, gk schema.GroupKind, key types.NamespacedName,
) (*unstructured.Unstructured, validators.Presence, error) {
	d := dependency{object: object{gk, key}}
	r.add(d)
	o, presence, err := r.Lookup.Get(ctx, gk, key)
	if (gk == secretGK || gk == configMapGK) && presence != validators.Unknown {
		version := ""
		if o != nil {
			version = o.GetResourceVersion()
		}
		r.input(d, version)
	}
	return o, presence, err
}

// List implements validators.Lookup.
func (r *recorder) List(
	ctx context.Context, gk schema.GroupKind, namespace string,
) ([]*unstructured.Unstructured, validators.Presence, error) {
	r.add(dependency{object: object{gk: gk}})
	return r.Lookup.List(ctx, gk, namespace)
}

// ByIndex implements validators.Indexed.
func (r *recorder) ByIndex(
	ctx context.Context, x *validators.Index, key string,
) ([]*unstructured.Unstructured, validators.Presence, error) {
	r.add(dependency{object: object{gk: x.Kind}, index: x.Name, value: key})
	return validators.ByIndex(ctx, r.Lookup, x, key)
}

// Namespace implements validators.Lookup.
func (r *recorder) Namespace(ctx context.Context, name string) (*unstructured.Unstructured, validators.Presence, error) {
	r.add(dependency{object: object{namespaceGK, types.NamespacedName{Name: name}}})
	return r.Lookup.Namespace(ctx, name)
}

// Chart implements validators.Lookup.
func (r *recorder) Chart(ctx context.Context, ref validators.ChartRef) (validators.Chart, validators.Presence, error) {
	source := schema.GroupKind{Group: ref.Source.Group, Kind: ref.Source.Kind}
	r.add(dependency{object: object{source, types.NamespacedName{Namespace: ref.Source.Namespace, Name: ref.Source.Name}}})
	// helm-controller creates a HelmChart with this name in the namespace of the source.
	r.add(dependency{object: object{flux.HelmChart, types.NamespacedName{
		Namespace: ref.Source.Namespace, Name: ref.ReleaseNamespace + "-" + ref.ReleaseName,
	}}})
	r.mu.Lock()
	r.chart = true
	r.mu.Unlock()
	return r.Lookup.Chart(ctx, ref)
}

// indexed is a Lookup of a cluster that keeps the indexes that rules use.
type indexed struct {
	*lookup.Cluster

	mu      sync.Mutex
	indexes map[string]*index
}

// index has the objects of an Index. Its objects are read from the Lookup.
type index struct {
	*validators.Index
	values map[types.NamespacedName]string
	keys   map[string]map[types.NamespacedName]struct{}
}

func (i *index) set(key types.NamespacedName, value string) {
	if old, ok := i.values[key]; ok {
		delete(i.keys[old], key)
		if len(i.keys[old]) == 0 {
			delete(i.keys, old)
		}
	}
	delete(i.values, key)
	if value == "" {
		return
	}
	i.values[key] = value
	if i.keys[value] == nil {
		i.keys[value] = map[types.NamespacedName]struct{}{}
	}
	i.keys[value][key] = struct{}{}
}

// ByIndex implements validators.Indexed. The first call for an index builds it.
func (l *indexed) ByIndex(
	ctx context.Context, x *validators.Index, key string,
) ([]*unstructured.Unstructured, validators.Presence, error) {
	l.mu.Lock()
	i := l.indexes[x.Name]
	if i == nil {
		list, presence, err := l.List(ctx, x.Kind, "")
		if presence != validators.Present {
			l.mu.Unlock()
			return nil, presence, err
		}
		i = &index{Index: x, values: map[types.NamespacedName]string{}, keys: map[string]map[types.NamespacedName]struct{}{}}
		for _, o := range list {
			i.set(client.ObjectKeyFromObject(o), x.Key(o))
		}
		if l.indexes == nil {
			l.indexes = map[string]*index{}
		}
		l.indexes[x.Name] = i
	}
	var names []types.NamespacedName
	for name := range i.keys[key] {
		names = append(names, name)
	}
	l.mu.Unlock()
	slices.SortFunc(names, func(a, b types.NamespacedName) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	var out []*unstructured.Unstructured
	for _, name := range names {
		if o, presence, _ := l.Get(ctx, x.Kind, name); presence == validators.Present {
			out = append(out, o)
		}
	}
	return out, validators.Present, nil
}

// changed updates the indexes with an object, which is nil if it was deleted, and returns what evaluations that read an index
// depend on.
func (l *indexed) changed(gk schema.GroupKind, key types.NamespacedName, current *unstructured.Unstructured) []dependency {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []dependency
	for _, i := range l.indexes {
		if i.Kind != gk {
			continue
		}
		old, value := i.values[key], ""
		if current != nil {
			value = i.Key(current)
		}
		for _, v := range []string{old, value} {
			if v != "" && old != value {
				out = append(out, dependency{object: object{gk: gk}, index: i.Name, value: v})
			}
		}
		i.set(key, value)
	}
	return out
}
