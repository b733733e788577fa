// Package dryrun compares what a Git tree builds with a cluster as kustomize-controller would apply it: a server-side apply
// that the API server runs without storing anything, and the inventories of the cluster's Kustomizations for what is pruned.
package dryrun

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/fluxcd/cli-utils/pkg/object"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/jsondiff"
	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/manifest"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// parallel is the number of objects that are read or applied at a time.
const parallel = 8

// Outcome is what applying an object does.
type Outcome int

// The outcomes.
const (
	// Unknown: the object could not be compared.
	Unknown Outcome = iota
	Unchanged
	Configured
	Created
	// Recreated: Flux deletes the object and creates it again, because force is set.
	Recreated
	// Refused: the API server, or an admission webhook, refuses it.
	Refused
)

// Object is an object of the tree with what the API server answered.
type Object struct {
	Outcome Outcome
	// Live is the object in the cluster; nil if there is none.
	Live *unstructured.Unstructured
	// Before and After are the object as it is and as it would be stored, if it is configured.
	Before, After *unstructured.Unstructured
	// Reason is why the object is refused or could not be compared; empty if Result.NotRead has it. It has no values of Secrets.
	Reason string
	// Unresolved is the number of fields whose values are not in Git. Those that the cluster has count as unchanged.
	Unresolved int
}

// NotRead is what could not be read of the cluster.
type NotRead struct {
	Name, Reason string
}

// Result is what the cluster has of a tree.
type Result struct {
	// Objects are those of the tree that Flux applies.
	Objects map[*kustomization.Object]*Object
	// Kustomizations are those of the cluster that the tree has or had, with the existing objects of their inventories.
	Kustomizations []*kustomization.Kustomization
	NotRead        []NotRead
}

// Run reads the cluster and applies the objects of the Kustomizations of a tree that Flux builds in a dry-run. Objects that
// another cluster gets, and what no Kustomization applies, are left out. The error is for a cluster that does not answer.
func Run(ctx context.Context, config *rest.Config, head *kustomization.Cluster) (*Result, error) {
	config = rest.CopyConfig(config)
	// A person waits for this. The defaults are those of a controller, five requests a second.
	config.QPS, config.Burst = 100, 200
	config.WarningHandler = rest.NoWarnings{}
	c, err := client.New(config, client.Options{})
	if err != nil {
		return nil, fmt.Errorf("connecting to the API server: %w", err)
	}
	r := &runner{
		client: c, head: head, result: &Result{Objects: map[*kustomization.Object]*Object{}}, defines: map[schema.GroupKind]bool{},
		manager: ssa.NewResourceManager(c, nil, ssa.Owner{Field: "kustomize-controller", Group: flux.Kustomization.Group}),
	}
	return r.run(ctx)
}

type runner struct {
	client  client.Client
	manager *ssa.ResourceManager
	head    *kustomization.Cluster
	// namespaces and kinds are those that the tree defines.
	namespaces []string
	defines    map[schema.GroupKind]bool

	mu     sync.Mutex
	result *Result
}

func (r *runner) run(ctx context.Context) (*Result, error) {
	for _, o := range r.head.Objects {
		switch o.GroupVersionKind().GroupKind() {
		case schema.GroupKind{Kind: "Namespace"}:
			r.namespaces = append(r.namespaces, o.GetName())
		case kindschema.CustomResourceDefinition:
			r.defines[kindschema.DefinedKind(o.Unstructured)] = true
		}
	}
	if err := r.readKustomizations(ctx); err != nil {
		return nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, o := range r.head.Objects {
		k := o.Kustomization
		if k == nil || o.Origin.Synthesized || k.RemoteCluster() || k.Failed() {
			continue
		}
		if set := o.Generator(); set != nil {
			r.mu.Lock()
			r.result.Objects[o] = &Object{}
			r.mu.Unlock()
			r.notRead(set.String(), "flux-operator applies its objects, so they were not compared; Kustomizations among them were")
			continue
		}
		g.Go(func() error {
			applied, err := r.apply(ctx, o)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.result.Objects[o] = applied
			return err
		})
	}
	return r.result, g.Wait()
}

// roots returns the Kustomizations of the tree that apply to this cluster.
func (r *runner) roots() []types.NamespacedName {
	var out []types.NamespacedName
	for _, k := range r.head.Kustomizations {
		if k.RemoteCluster() {
			r.notRead("Kustomization "+k.Key.String(), "it applies to another cluster (spec.kubeConfig); run diff --live with a kubeconfig file of that one")
		} else if !slices.Contains(out, k.Key) {
			out = append(out, k.Key)
		}
	}
	return out
}

// readKustomizations reads the Kustomizations of the tree, those that they have applied, and the objects of their inventories.
func (r *runner) readKustomizations(ctx context.Context) error {
	parents := map[types.NamespacedName]*kustomization.Kustomization{}
	pending := r.roots()
	known := map[types.NamespacedName]bool{}
	for len(pending) > 0 {
		key := pending[0]
		pending = pending[1:]
		if known[key] {
			continue
		}
		known[key] = true
		name := "Kustomization " + key.String()
		live, err := r.get(ctx, flux.Kustomization.WithVersion(kustomizev1.GroupVersion.Version), key)
		if err != nil {
			reason, err := reasonOf(err, false)
			if err != nil {
				return fmt.Errorf("reading %s: %w", name, err)
			}
			r.notRead(name, reason+": what Flux would delete is unknown")
			continue
		}
		if live == nil {
			continue
		}
		k := &kustomization.Kustomization{Key: key, State: kustomization.Built, Object: &kustomization.Object{Unstructured: live, Kustomization: parents[key]}}
		typed := &kustomizev1.Kustomization{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(live.Object, typed); err != nil {
			r.notRead(name, fmt.Sprintf("it cannot be read: %v", err))
			continue
		}
		if typed.Spec.KubeConfig != nil {
			continue
		}
		k.Spec = typed.Spec
		r.result.Kustomizations = append(r.result.Kustomizations, k)
		if err := r.readInventory(ctx, k, typed.Status.Inventory); err != nil {
			return err
		}
		for _, o := range k.Objects {
			if gk := o.GroupVersionKind().GroupKind(); gk == flux.Kustomization {
				child := types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
				if parents[child] == nil && child != key {
					parents[child] = k
				}
				pending = append(pending, child)
			}
		}
	}
	for _, k := range r.result.Kustomizations {
		k.Object.Kustomization = parents[k.Key]
		if p := parents[k.Key]; p != nil {
			k.Parents = append(k.Parents, p)
		}
	}
	return nil
}

// readInventory reads the objects that a Kustomization of the cluster has applied and that exist.
func (r *runner) readInventory(ctx context.Context, k *kustomization.Kustomization, inventory *kustomizev1.ResourceInventory) error {
	if inventory == nil {
		return nil
	}
	objects := make([]*unstructured.Unstructured, len(inventory.Entries))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i, entry := range inventory.Entries {
		id, err := object.ParseObjMetadata(entry.ID)
		if err != nil {
			r.notRead("Kustomization "+k.Key.String(), fmt.Sprintf("its inventory has the entry %q, which is no object", entry.ID))
			continue
		}
		g.Go(func() error {
			live, err := r.get(ctx, id.GroupKind.WithVersion(entry.Version), types.NamespacedName{Namespace: id.Namespace, Name: id.Name})
			if err != nil {
				reason, err := reasonOf(err, false)
				if err != nil {
					return fmt.Errorf("reading %s %s: %w", id.GroupKind.Kind, id.Name, err)
				}
				r.notRead(fmt.Sprintf("%s %s", id.GroupKind.Kind, strings.TrimPrefix(id.Namespace+"/"+id.Name, "/")), reason)
			}
			objects[i] = live
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, o := range objects {
		if o != nil {
			k.Objects = append(k.Objects, &kustomization.Object{Unstructured: o, Kustomization: k})
		}
	}
	return nil
}

func (r *runner) notRead(name, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.NotRead = append(r.result.NotRead, NotRead{Name: name, Reason: reason})
}

// get returns an object of the cluster; nil if there is none, or if the cluster has no such kind.
func (r *runner) get(ctx context.Context, gvk schema.GroupVersionKind, key types.NamespacedName) (*unstructured.Unstructured, error) {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(gvk)
	switch err := r.client.Get(ctx, key, o); {
	case err == nil:
		return o, nil
	case apierrors.IsNotFound(err), meta.IsNoMatchError(err):
		return nil, nil //nolint:nilnil // no object is a result
	default:
		return nil, err
	}
}

// apply applies an object in a dry-run.
func (r *runner) apply(ctx context.Context, o *kustomization.Object) (*Object, error) {
	out := &Object{}
	gvk := o.GroupVersionKind()
	if _, err := r.client.RESTMapper().RESTMapping(gvk.GroupKind(), gvk.Version); meta.IsNoMatchError(err) {
		if out.Outcome = Created; !r.defines[gvk.GroupKind()] {
			out.Outcome, out.Reason = Refused, fmt.Sprintf("the cluster does not serve %s", gvk)
		}
		return out, nil
	}
	var err error
	if out.Live, err = r.get(ctx, gvk, client.ObjectKeyFromObject(o)); err != nil {
		out.Reason, err = reasonOf(err, false)
		return out, err
	}
	desired, open := resolve(o, out.Live)
	if out.Unresolved = len(o.Unresolved); unresolved.String(o.GetName() + o.GetNamespace()) {
		out.Reason = "its name is not in Git"
		return out, nil
	}
	r.manager.SetOwnerLabels([]*unstructured.Unstructured{desired}, o.Kustomization.Key.Name, o.Kustomization.Key.Namespace)
	change, before, after, err := r.manager.Diff(ctx, desired, options(o.Kustomization))
	if err != nil {
		return r.refused(out, o, open, err)
	}
	switch change.Action {
	case ssa.ConfiguredAction:
		out.Outcome, out.Before, out.After = Configured, before, after
	case ssa.CreatedAction:
		if out.Outcome = Created; out.Live != nil {
			out.Outcome = Recreated
		}
	default:
		if out.Outcome = Unchanged; out.Live == nil {
			out.Outcome, out.Reason = Unknown, "an annotation keeps Flux from applying it"
		}
	}
	return out, nil
}

// options are those of kustomize-controller 1.9, reconcile and apply.
func options(k *kustomization.Kustomization) ssa.DiffOptions {
	group := flux.Kustomization.Group
	o := ssa.DiffOptions{
		Exclusions:           map[string]string{group + "/reconcile": kustomizev1.DisabledValue, group + "/ssa": kustomizev1.IgnoreValue},
		IfNotPresentSelector: map[string]string{group + "/ssa": kustomizev1.IfNotPresentValue},
		Force:                k.Spec.Force,
		ForceSelector:        map[string]string{group + "/force": kustomizev1.EnabledValue},
	}
	for _, rule := range k.Spec.Ignore {
		ignored := jsondiff.IgnoreRule{Paths: rule.Paths}
		if t := rule.Target; t != nil {
			ignored.Selector = &jsondiff.Selector{
				Group: t.Group, Version: t.Version, Kind: t.Kind, Name: t.Name, Namespace: t.Namespace,
				AnnotationSelector: t.AnnotationSelector, LabelSelector: t.LabelSelector,
			}
		}
		o.DriftIgnoreRules = append(o.DriftIgnoreRules, ignored)
	}
	return o
}

// refused sets the outcome of an object that the API server does not apply. open is the number of values that nobody knows.
func (r *runner) refused(out *Object, o *kustomization.Object, open int, err error) (*Object, error) {
	reason, failed := reasonOf(err, manifest.IsSecret(o.Unstructured))
	switch {
	case failed != nil:
		return out, fmt.Errorf("applying %s in a dry-run: %w", o, failed)
	case out.Live == nil && apierrors.IsNotFound(err) && slices.Contains(r.namespaces, o.GetNamespace()):
		// Flux applies Namespaces first.
		out.Outcome = Created
	case isForbiddenToUser(err):
		out.Reason = reason
	case open > 0:
		out.Reason = fmt.Sprintf("%d of its values are not in Git, and without them: %s", open, reason)
	default:
		out.Outcome, out.Reason = Refused, reason
	}
	return out, nil
}

// reasonOf returns what the API server answered about an object, without values of a Secret. The error is that of a cluster
// that does not answer, or does not know the user.
func reasonOf(err error, secret bool) (string, error) {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Code == http.StatusUnauthorized {
		return "", err
	}
	s := status.Status()
	if !secret || isForbiddenToUser(err) {
		return s.Message, nil
	}
	var fields []string
	if s.Details != nil {
		for _, c := range s.Details.Causes {
			fields = append(fields, c.Field)
		}
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s", s.Reason, strings.Join(fields, ", "))), nil
}

// isForbiddenToUser reports whether the user lacks a permission. An admission plugin that denies a request has the same
// reason; only its text differs (k8s.io/apiserver, responsewriters.Forbidden).
func isForbiddenToUser(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "is forbidden: User ")
}
