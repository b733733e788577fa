package lookup

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/validators"
)

// readTimeout limits one read from the API server, so that a slow read does not take all the time of a review.
const readTimeout = time.Second

var namespaceGK = schema.GroupKind{Kind: "Namespace"}

// Cluster is a Lookup of a live cluster. Namespaces and watched kinds are read from informers, other objects from the
// API server when a rule looks them up: there is no cluster-wide watch of Secrets.
type Cluster struct {
	// Watched reports whether the informer of a kind has synced; nil for no informers but that of Namespaces.
	Watched func(gk schema.GroupKind) bool

	cached client.Reader
	live   client.Reader
	mapper meta.RESTMapper
	charts Charts
}

// NewCluster returns a Lookup that reads Namespaces and watched kinds from the cache, and all others from the API
// server. The cache must have an informer of Namespaces. Charts may be nil: every chart is then Unknown.
func NewCluster(cached, live client.Reader, mapper meta.RESTMapper, charts Charts) *Cluster {
	return &Cluster{cached: cached, live: live, mapper: mapper, charts: charts}
}

// Get implements validators.Lookup. An object of a kind that the API server does not serve is Absent. An object that is
// not in the cache is read from the API server: it may have been created a moment ago, by the same apply.
func (c *Cluster) Get(
	ctx context.Context, gk schema.GroupKind, key types.NamespacedName,
) (*unstructured.Unstructured, validators.Presence, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	o := &unstructured.Unstructured{}
	gvk, err := c.version(gk)
	if err == nil {
		o.SetGroupVersionKind(gvk)
		if c.watched(gk) && c.cached.Get(ctx, key, o) == nil {
			return o, validators.Present, nil
		}
		err = c.live.Get(ctx, key, o)
	}
	return outcome(o, err, gk, key)
}

func (c *Cluster) watched(gk schema.GroupKind) bool { return c.Watched != nil && c.Watched(gk) }

// List implements validators.Lookup.
func (c *Cluster) List(
	ctx context.Context, gk schema.GroupKind, namespace string,
) ([]*unstructured.Unstructured, validators.Presence, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	gvk, err := c.version(gk)
	if meta.IsNoMatchError(err) {
		return nil, validators.Present, nil
	}
	if err != nil {
		return nil, validators.Unknown, explain(err, gk, types.NamespacedName{Namespace: namespace})
	}
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	from := c.live
	if c.watched(gk) {
		from = c.cached
	}
	if err := from.List(ctx, list, client.InNamespace(namespace)); err != nil {
		return nil, validators.Unknown, explain(err, gk, types.NamespacedName{Namespace: namespace})
	}
	out := make([]*unstructured.Unstructured, 0, len(list.Items))
	for i := range list.Items {
		out = append(out, &list.Items[i])
	}
	return out, validators.Present, nil
}

// Namespace implements validators.Lookup, as Get does for a watched kind.
func (c *Cluster) Namespace(ctx context.Context, name string) (*unstructured.Unstructured, validators.Presence, error) {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(namespaceGK.WithVersion("v1"))
	if err := c.cached.Get(ctx, types.NamespacedName{Name: name}, o); err == nil {
		return o, validators.Present, nil
	}
	return c.Get(ctx, namespaceGK, types.NamespacedName{Name: name})
}

// Chart implements validators.Lookup.
func (c *Cluster) Chart(ctx context.Context, ref validators.ChartRef) (validators.Chart, validators.Presence, error) {
	if c.charts == nil {
		return nil, validators.Unknown, errors.New("charts are not read here")
	}
	return c.charts.Resolve(ctx, c, ref)
}

// Kind implements validators.Lookup: no kind is known, because the API server validates objects against their schemas
// itself.
func (c *Cluster) Kind(context.Context, schema.GroupKind) (*validators.Kind, validators.Presence, error) {
	return nil, validators.Unknown, errNoKinds
}

// Build implements validators.Lookup: a cluster holds the last build, not the next one.
func (c *Cluster) Build(context.Context, types.NamespacedName) (*validators.Build, validators.Presence, error) {
	return nil, validators.Unknown, errNoBuilds
}

// Owners implements validators.Lookup.
func (c *Cluster) Owners(
	context.Context, schema.GroupKind, types.NamespacedName,
) ([]types.NamespacedName, validators.Presence, error) {
	return nil, validators.Unknown, errNoBuilds
}

func (c *Cluster) version(gk schema.GroupKind) (schema.GroupVersionKind, error) {
	m, err := c.mapper.RESTMapping(gk)
	if err != nil {
		return schema.GroupVersionKind{}, fmt.Errorf("reading the version of %s from the API server: %w", gk, err)
	}
	return m.GroupVersionKind, nil
}

// outcome maps the result of a read to presence and reason.
func outcome(
	o *unstructured.Unstructured, err error, gk schema.GroupKind, key types.NamespacedName,
) (*unstructured.Unstructured, validators.Presence, error) {
	switch {
	case err == nil:
		return o, validators.Present, nil
	case apierrors.IsNotFound(err), meta.IsNoMatchError(err):
		return nil, validators.Absent, nil
	default:
		return nil, validators.Unknown, explain(err, gk, key)
	}
}

// explain returns why an object could not be read, without quoting any of it.
func explain(err error, gk schema.GroupKind, key types.NamespacedName) error {
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("no permission to read %s %s", gk.Kind, key)
	case errors.Is(err, context.DeadlineExceeded), apierrors.IsTimeout(err), apierrors.IsServerTimeout(err):
		return fmt.Errorf("reading %s %s took too long", gk.Kind, key)
	default:
		return fmt.Errorf("reading %s %s: %w", gk.Kind, key, err)
	}
}
