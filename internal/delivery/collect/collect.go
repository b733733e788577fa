// Package collect reads from a cluster what package delivery needs: the kinds that it knows and those that Flux has
// applied, page by page. Of Secrets and ConfigMaps it reads the metadata only.
package collect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/flux-admission/flux-admission/internal/delivery"
)

const (
	// pageSize is the number of objects in one answer of the API server.
	pageSize = 500
	// crdPageSize is that of CRDs, whose schemas are large.
	crdPageSize = 50
	// parallel is the number of kinds that are read at a time.
	parallel = 8
	// maxPodNamespaces is the number of namespaces whose Pods are read.
	maxPodNamespaces = 20
)

// ErrTooMany is returned for a cluster with more objects than the limit.
var ErrTooMany = errors.New("the cluster has too many objects")

// Options configure Collect.
type Options struct {
	// MaxObjects limits the number of objects; 0 means no limit.
	MaxObjects int
}

// Collect reads a cluster. What it may not read, or cannot, is in NotRead of the result; the error is for a cluster that
// cannot be read at all.
func Collect(ctx context.Context, config *rest.Config, o Options) (*delivery.Input, error) {
	config = rest.CopyConfig(config)
	// A person waits for this. The defaults are those of a controller, five requests a second.
	config.QPS, config.Burst = 100, 200
	c := &collector{options: o, resources: map[schema.GroupKind]resource{}, complete: map[schema.GroupKind]bool{}, read: map[schema.GroupKind]bool{}}
	discoverer, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connecting to the API server: %w", err)
	}
	if c.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("connecting to the API server: %w", err)
	}
	if c.metadata, err = metadata.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("connecting to the API server: %w", err)
	}
	if err := c.discover(ctx, discoverer); err != nil {
		return nil, err
	}
	kinds := slices.DeleteFunc(delivery.Kinds(), func(gk schema.GroupKind) bool { return gk.Group == "" && gk.Kind == "Pod" })
	if err := c.readKinds(ctx, kinds); err != nil {
		return nil, err
	}
	if err := c.readKinds(ctx, append(delivery.InventoryKinds(c.objects), delivery.TerminatingKinds(c.objects)...)); err != nil {
		return nil, err
	}
	if err := c.readPods(ctx); err != nil {
		return nil, err
	}
	return c.input(), nil
}

// collector has what was read.
type collector struct {
	options   Options
	dynamic   dynamic.Interface
	metadata  metadata.Interface
	resources map[schema.GroupKind]resource
	// failed are the groups whose discovery failed.
	failed map[string]error

	mu       sync.Mutex
	objects  []*unstructured.Unstructured
	complete map[schema.GroupKind]bool
	read     map[schema.GroupKind]bool
	notRead  []delivery.NotRead
}

type resource struct {
	schema.GroupVersionResource
	kind string
}

func (c *collector) input() *delivery.Input {
	slices.SortFunc(c.notRead, func(a, b delivery.NotRead) int { return cmp.Compare(a.What, b.What) })
	return &delivery.Input{
		Objects: c.objects, Now: time.Now(), NotRead: c.notRead,
		Complete: func(gk schema.GroupKind) bool { return c.complete[gk] },
	}
}

// discover reads which kinds the API server serves. Groups of an API service that does not answer are left out.
func (c *collector) discover(ctx context.Context, client discovery.DiscoveryInterfaceWithContext) error {
	lists, err := discovery.ServerPreferredResourcesWithContext(ctx, client)
	if ctx.Err() != nil {
		return fmt.Errorf("reading which kinds the API server serves: %w", context.Cause(ctx))
	}
	if partial, ok := errors.AsType[*discovery.ErrGroupDiscoveryFailed](err); ok {
		c.failed = map[string]error{}
		for gv, err := range partial.Groups {
			c.failed[gv.Group] = err
			c.notRead = append(c.notRead, delivery.NotRead{What: "API group " + gv.String(), Reason: err.Error()})
		}
	} else if err != nil {
		return fmt.Errorf("reading which kinds the API server serves: %w", err)
	}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue
		}
		for i := range list.APIResources {
			item := &list.APIResources[i]
			if strings.Contains(item.Name, "/") || !slices.Contains(item.Verbs, "list") {
				continue
			}
			c.resources[schema.GroupKind{Group: gv.Group, Kind: item.Kind}] = resource{gv.WithResource(item.Name), item.Kind}
		}
	}
	return nil
}

// readKinds reads all objects of the kinds.
func (c *collector) readKinds(ctx context.Context, kinds []schema.GroupKind) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, gk := range kinds {
		if c.read[gk] {
			continue
		}
		c.read[gk] = true
		r, served := c.resources[gk]
		switch {
		case served:
			g.Go(func() error { return c.readKind(ctx, gk, r, metav1.NamespaceAll) })
		case c.failed[gk.Group] == nil:
			// The API server does not serve the kind: there is no object of it.
			c.setComplete(gk)
		}
	}
	return g.Wait()
}

func (c *collector) setComplete(gk schema.GroupKind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.complete[gk] = true
}

// readKind reads the objects of a kind. A kind that may not be read is no error.
func (c *collector) readKind(ctx context.Context, gk schema.GroupKind, r resource, namespace string) error {
	options := metav1.ListOptions{Limit: pageSize}
	if gk.Kind == "CustomResourceDefinition" {
		options.Limit = crdPageSize
	}
	for {
		objects, next, err := c.page(ctx, gk, r, namespace, options)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("reading %s: %w", r.Resource, context.Cause(ctx))
		case apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err):
			// The kind was removed meanwhile.
			return nil
		case err != nil:
			c.skip(gk, r, err)
			return nil
		}
		if err := c.add(objects); err != nil {
			return err
		}
		if next == "" {
			if namespace == metav1.NamespaceAll {
				c.setComplete(gk)
			}
			return nil
		}
		options.Continue = next
	}
}

func (c *collector) skip(gk schema.GroupKind, r resource, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	what := r.Resource
	if gk.Group != "" {
		what += "." + gk.Group
	}
	reason := err.Error()
	if apierrors.IsForbidden(err) {
		reason = "no permission to list them"
	}
	c.notRead = append(c.notRead, delivery.NotRead{What: what, Reason: reason})
}

func (c *collector) add(objects []*unstructured.Unstructured) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.objects = append(c.objects, objects...)
	if c.options.MaxObjects > 0 && len(c.objects) > c.options.MaxObjects {
		return fmt.Errorf("%w: more than %d", ErrTooMany, c.options.MaxObjects)
	}
	return nil
}

// page reads one page.
func (c *collector) page(
	ctx context.Context, gk schema.GroupKind, r resource, namespace string, options metav1.ListOptions,
) (objects []*unstructured.Unstructured, next string, err error) {
	if gk.Group == "" && (gk.Kind == "Secret" || gk.Kind == "ConfigMap") {
		list, err := c.metadata.Resource(r.GroupVersionResource).Namespace(namespace).List(ctx, options)
		if err != nil {
			return nil, "", err
		}
		for i := range list.Items {
			m := &list.Items[i]
			m.APIVersion, m.Kind = r.GroupVersion().String(), r.kind
			object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(m)
			if err != nil {
				return nil, "", err
			}
			objects = append(objects, strip(&unstructured.Unstructured{Object: object}))
		}
		return objects, list.Continue, nil
	}
	list, err := c.dynamic.Resource(r.GroupVersionResource).Namespace(namespace).List(ctx, options)
	if err != nil {
		return nil, "", err
	}
	for i := range list.Items {
		objects = append(objects, strip(&list.Items[i]))
	}
	return objects, list.GetContinue(), nil
}

// strip removes large fields that the analysis does not read: managed fields, the annotation of kubectl apply, schemas of CRDs.
func strip(o *unstructured.Unstructured) *unstructured.Unstructured {
	o.SetManagedFields(nil)
	if annotations := o.GetAnnotations(); annotations[corev1.LastAppliedConfigAnnotation] != "" {
		delete(annotations, corev1.LastAppliedConfigAnnotation)
		o.SetAnnotations(annotations)
	}
	if o.GetKind() == "CustomResourceDefinition" {
		versions, _, _ := unstructured.NestedSlice(o.Object, "spec", "versions")
		for _, v := range versions {
			if m, ok := v.(map[string]any); ok {
				delete(m, "schema")
			}
		}
		if versions != nil {
			_ = unstructured.SetNestedSlice(o.Object, versions, "spec", "versions")
		}
	}
	return o
}

// readPods reads the Pods and ReplicaSets of namespaces with workloads that are not ready. They have the reason that a
// container does not start.
func (c *collector) readPods(ctx context.Context) error {
	namespaces := map[string]bool{}
	for _, o := range delivery.Analyze(c.input()).Objects {
		switch o.Object.Kind {
		case "Deployment", "StatefulSet", "DaemonSet", "Job", "ReplicaSet":
			namespaces[o.Object.Namespace] = true
		}
	}
	sorted := slices.Sorted(maps.Keys(namespaces))
	if len(sorted) > maxPodNamespaces {
		c.notRead = append(c.notRead, delivery.NotRead{
			What: fmt.Sprintf("Pods of %d namespaces", len(sorted)-maxPodNamespaces), Reason: fmt.Sprintf("those of %d others are read", maxPodNamespaces),
		})
		sorted = sorted[:maxPodNamespaces]
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, gk := range []schema.GroupKind{{Kind: "Pod"}, {Group: "apps", Kind: "ReplicaSet"}} {
		r, served := c.resources[gk]
		if !served || c.read[gk] {
			continue
		}
		for _, namespace := range sorted {
			g.Go(func() error { return c.readKind(ctx, gk, r, namespace) })
		}
	}
	return g.Wait()
}
