package lookup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	// WithoutSecrets withholds every Secret from rules. The credentials of chart sources are read nevertheless.
	WithoutSecrets bool
	// Readable reports whether objects of a kind are read for rules; nil for all kinds. Without the permission, each read would be
	// refused by the API server.
	Readable func(gk schema.GroupKind) bool
	// Withheld are namespaces whose Secrets and ConfigMaps are not read at all.
	Withheld []string

	cached client.Reader
	live   client.Reader
	mapper meta.RESTMapper
	charts Charts

	forbidden refusals
}

// secretGK and configMapGK hold what is withheld.
var (
	secretGK    = schema.GroupKind{Kind: "Secret"}
	configMapGK = schema.GroupKind{Kind: "ConfigMap"}
)

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
	if c.WithoutSecrets && gk == secretGK {
		return nil, validators.Unknown, fmt.Errorf(
			"%s %s is %w, because clients are not authenticated; the component client-authentication changes that", gk.Kind, key, validators.ErrWithheld)
	}
	if c.Readable != nil && !c.Readable(gk) {
		return nil, validators.Unknown, notRead(gk)
	}
	return c.get(ctx, gk, key)
}

// get reads an object for a rule or for the resolver of charts.
func (c *Cluster) get(
	ctx context.Context, gk schema.GroupKind, key types.NamespacedName,
) (*unstructured.Unstructured, validators.Presence, error) {
	if (gk == secretGK || gk == configMapGK) && slices.Contains(c.Withheld, key.Namespace) {
		return nil, validators.Unknown, fmt.Errorf("%s %s is %w, nor is any other in namespace %s", gk.Kind, key, validators.ErrWithheld, key.Namespace)
	}
	if gk == secretGK && c.forbidden.has(key) {
		return nil, validators.Unknown, noPermission(gk, key)
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	o := &unstructured.Unstructured{}
	gvk, err := c.version(gk)
	if err == nil {
		o.SetGroupVersionKind(gvk)
		if c.watched(gk) && !MetadataOnly(gk) && c.cached.Get(ctx, key, o) == nil {
			return o, validators.Present, nil
		}
		err = c.live.Get(ctx, key, o)
		if gk == secretGK && apierrors.IsForbidden(err) {
			c.forbidden.add(key)
		}
	}
	return outcome(o, err, gk, key)
}

func (c *Cluster) watched(gk schema.GroupKind) bool { return c.Watched != nil && c.Watched(gk) }

// List implements validators.Lookup.
func (c *Cluster) List(
	ctx context.Context, gk schema.GroupKind, namespace string,
) ([]*unstructured.Unstructured, validators.Presence, error) {
	if gk == secretGK || gk == configMapGK {
		return nil, validators.Unknown, fmt.Errorf("all objects of kind %s are %w", gk.Kind, validators.ErrWithheld)
	}
	if c.Readable != nil && !c.Readable(gk) {
		return nil, validators.Unknown, notRead(gk)
	}
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
		if MetadataOnly(gk) {
			return c.listMetadata(ctx, gvk, namespace)
		}
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

// listMetadata returns the metadata of the objects of a kind from the cache.
func (c *Cluster) listMetadata(
	ctx context.Context, gvk schema.GroupVersionKind, namespace string,
) ([]*unstructured.Unstructured, validators.Presence, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	if err := c.cached.List(ctx, list, client.InNamespace(namespace)); err != nil {
		return nil, validators.Unknown, explain(err, gvk.GroupKind(), types.NamespacedName{Namespace: namespace})
	}
	out := make([]*unstructured.Unstructured, 0, len(list.Items))
	for i := range list.Items {
		o, err := ofMetadata(&list.Items[i], gvk)
		if err != nil {
			return nil, validators.Unknown, err
		}
		out = append(out, o)
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
	return c.charts.Resolve(ctx, sources{c}, ref)
}

// sources is the Lookup of the resolver of charts, which reads the credentials of sources.
type sources struct{ *Cluster }

// Get implements validators.Lookup.
func (s sources) Get(
	ctx context.Context, gk schema.GroupKind, key types.NamespacedName,
) (*unstructured.Unstructured, validators.Presence, error) {
	return s.get(ctx, gk, key)
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
		return noPermission(gk, key)
	case errors.Is(err, context.DeadlineExceeded), apierrors.IsTimeout(err), apierrors.IsServerTimeout(err):
		return fmt.Errorf("reading %s %s took too long", gk.Kind, key)
	default:
		return fmt.Errorf("reading %s %s: %w", gk.Kind, key, err)
	}
}

// notRead returns why objects of a kind are not read.
func notRead(gk schema.GroupKind) error {
	return fmt.Errorf("objects of kind %s are not read in the background; flux-admission audit reads them", gk.Kind)
}

// ErrNoPermission is wrapped by the error of a lookup that RBAC does not allow.
var ErrNoPermission = errors.New("no permission to read")

// noPermission returns why an object is not read. Which Secrets may be read is up to the operator: without the
// permission they are withheld.
func noPermission(gk schema.GroupKind, key types.NamespacedName) error {
	if gk == secretGK {
		return fmt.Errorf("%w %s %s: it is %w; the component read-secrets grants it", ErrNoPermission, gk.Kind, key, validators.ErrWithheld)
	}
	return fmt.Errorf("%w %s %s; the ClusterRole flux-admission-lookups of the base grants it", ErrNoPermission, gk.Kind, key)
}
