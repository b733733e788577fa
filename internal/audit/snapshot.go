package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
)

const (
	// pageSize is the number of objects that one request lists, pageTimeout the time for it.
	pageSize    = 500
	pageTimeout = time.Minute
)

// snapshot is a Lookup of a cluster that has read the objects of some kinds once, without what no rule reads of another object.
// It reads all others when a rule looks them up.
type snapshot struct {
	*lookup.Cluster
	kinds map[schema.GroupKind]*listed

	mu      sync.Mutex
	indexes map[string]map[string][]*unstructured.Unstructured // by name and key
}

// listed are the objects of a kind.
type listed struct {
	byKey       map[types.NamespacedName]*unstructured.Unstructured
	sorted      []*unstructured.Unstructured
	byNamespace map[string][]*unstructured.Unstructured
}

// newSnapshot lists the kinds. Those that are not served have no objects; those that cannot be listed are read one by one, and
// the errors are returned by kind.
func newSnapshot(
	ctx context.Context, c client.Reader, mapper meta.RESTMapper, kinds []schema.GroupKind, charts lookup.Charts,
) (*snapshot, map[schema.GroupKind]error, error) {
	s := &snapshot{kinds: map[schema.GroupKind]*listed{}}
	failed := map[schema.GroupKind]error{}
	for _, gk := range kinds {
		l := &listed{byKey: map[types.NamespacedName]*unstructured.Unstructured{}, byNamespace: map[string][]*unstructured.Unstructured{}}
		err := eachPage(ctx, c, mapper, gk, func(page []unstructured.Unstructured) error {
			for i := range page {
				if _, err := lookup.Strip(&page[i]); err != nil {
					return err
				}
				l.byKey[client.ObjectKeyFromObject(&page[i])] = &page[i]
			}
			return nil
		})
		if ctx.Err() != nil {
			return nil, nil, fmt.Errorf("listing %s: %w", gk, err)
		}
		if err != nil && !meta.IsNoMatchError(err) {
			failed[gk] = err
			continue
		}
		l.sort()
		s.kinds[gk] = l
	}
	s.Cluster = lookup.NewCluster(read{s}, c, mapper, charts)
	s.Watched = func(gk schema.GroupKind) bool { return s.kinds[gk] != nil }
	return s, failed, nil
}

func (l *listed) sort() {
	for _, o := range l.byKey {
		l.sorted = append(l.sorted, o)
	}
	slices.SortFunc(l.sorted, func(a, b *unstructured.Unstructured) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	for _, o := range l.sorted {
		l.byNamespace[o.GetNamespace()] = append(l.byNamespace[o.GetNamespace()], o)
	}
}

// read is the client.Reader of what was listed, for the Cluster. It shares its objects.
type read struct{ from *snapshot }

// Get implements client.Reader.
func (r read) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	gk := into.GetObjectKind().GroupVersionKind().GroupKind()
	u, ok := into.(*unstructured.Unstructured)
	if l := r.from.kinds[gk]; ok && l != nil && l.byKey[key] != nil {
		u.Object = l.byKey[key].Object
		return nil
	}
	return apierrors.NewNotFound(schema.GroupResource{Group: gk.Group, Resource: gk.Kind}, key.Name)
}

// List implements client.Reader. The snapshot lists by itself.
func (read) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.ErrUnsupported
}

// List implements validators.Lookup.
func (s *snapshot) List(
	ctx context.Context, gk schema.GroupKind, namespace string,
) ([]*unstructured.Unstructured, validators.Presence, error) {
	l := s.kinds[gk]
	if l == nil {
		return s.Cluster.List(ctx, gk, namespace)
	}
	if namespace == "" {
		return l.sorted, validators.Present, nil
	}
	return l.byNamespace[namespace], validators.Present, nil
}

// ByIndex implements validators.Indexed.
func (s *snapshot) ByIndex(
	ctx context.Context, x *validators.Index, key string,
) ([]*unstructured.Unstructured, validators.Presence, error) {
	list, presence, err := s.List(ctx, x.Kind, "")
	if presence != validators.Present {
		return nil, presence, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	index, ok := s.indexes[x.Name]
	if !ok {
		index = map[string][]*unstructured.Unstructured{}
		for _, o := range list {
			index[x.Key(o)] = append(index[x.Key(o)], o)
		}
		if s.indexes == nil {
			s.indexes = map[string]map[string][]*unstructured.Unstructured{}
		}
		s.indexes[x.Name] = index
	}
	return index[key], validators.Present, nil
}

// eachPage lists the objects of a kind page by page. An error of meta.IsNoMatchError means that the kind is not served.
func eachPage(
	ctx context.Context, c client.Reader, mapper meta.RESTMapper, gk schema.GroupKind, f func([]unstructured.Unstructured) error,
) error {
	m, err := mapper.RESTMapping(gk)
	if err != nil {
		return fmt.Errorf("reading the version of %s: %w", gk, err)
	}
	next := ""
	for {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(m.GroupVersionKind.GroupVersion().WithKind(m.GroupVersionKind.Kind + "List"))
		err := listPage(ctx, c, list, next)
		// A continuation that took too long has expired. The error has one that goes on with newer objects.
		if status, ok := errors.AsType[*apierrors.StatusError](err); ok && apierrors.IsResourceExpired(err) && next != "" &&
			status.ErrStatus.Continue != "" {
			next = status.ErrStatus.Continue
			err = listPage(ctx, c, list, next)
		}
		if err != nil {
			return fmt.Errorf("listing %s: %w", gk, err)
		}
		if err := f(list.Items); err != nil {
			return err
		}
		if next = list.GetContinue(); next == "" {
			return nil
		}
	}
}

func listPage(ctx context.Context, c client.Reader, list *unstructured.UnstructuredList, next string) error {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	return c.List(ctx, list, client.Limit(pageSize), client.Continue(next))
}
