package lookup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// watchRetry is how often a kind is tried again that the API server does not serve yet.
const watchRetry = 10 * time.Second

// syncTimeout is how long readiness waits for an informer.
const syncTimeout = 15 * time.Second

// Changed handles an event of an informer. Old is nil for an object that existed before the start or was created, current for
// one that was deleted. It must return soon and must not change the objects.
type Changed func(gk schema.GroupKind, old, current *unstructured.Unstructured)

// Watches runs informers, also for kinds whose CustomResourceDefinition is installed later. Secrets and ConfigMaps are
// never among them. It is a manager.Runnable.
type Watches struct {
	cache   cache.Informers
	mapper  meta.RESTMapper
	kinds   []schema.GroupKind
	log     logr.Logger
	changed Changed // may be nil

	mu        sync.Mutex
	synced    map[schema.GroupKind]func() bool
	since     map[schema.GroupKind]time.Time
	abandoned map[schema.GroupKind]bool // did not sync within syncTimeout
	started   bool                      // every kind has been tried once
}

// NewWatches returns Watches of kinds. Start starts the informers, and changed, which may be nil, receives their
// events.
func NewWatches(
	c cache.Informers, mapper meta.RESTMapper, kinds []schema.GroupKind, changed Changed, log logr.Logger,
) *Watches {
	return &Watches{
		cache: c, mapper: mapper, kinds: kinds, changed: changed, log: log,
		synced: map[schema.GroupKind]func() bool{}, since: map[schema.GroupKind]time.Time{},
		abandoned: map[schema.GroupKind]bool{},
	}
}

// Start implements manager.Runnable: it watches until ctx ends. A kind that is not served, or that RBAC does not allow
// to watch, does not prevent readiness: its objects are read from the API server instead.
func (w *Watches) Start(ctx context.Context) error {
	tick := time.NewTicker(watchRetry)
	defer tick.Stop()
	for {
		missing := 0
		for _, gk := range w.kinds {
			if err := w.watch(ctx, gk); err != nil {
				missing++
				w.log.V(1).Info("Kind cannot be watched yet", "kind", gk.String(), "err", err.Error())
			}
		}
		w.mu.Lock()
		w.started = true
		w.mu.Unlock()
		if missing == 0 {
			<-ctx.Done()
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica has its own informers.
func (w *Watches) NeedLeaderElection() bool { return false }

func (w *Watches) watch(ctx context.Context, gk schema.GroupKind) error {
	w.mu.Lock()
	_, ok := w.synced[gk]
	w.mu.Unlock()
	if ok {
		return nil
	}
	m, err := w.mapper.RESTMapping(gk)
	if err != nil {
		return fmt.Errorf("reading its version: %w", err)
	}
	var o client.Object = &unstructured.Unstructured{}
	if MetadataOnly(gk) {
		o = &metav1.PartialObjectMetadata{}
	}
	o.GetObjectKind().SetGroupVersionKind(m.GroupVersionKind)
	informer, err := w.cache.GetInformer(ctx, o, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("creating an informer: %w", err)
	}
	if w.changed != nil {
		if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { w.notify(m.GroupVersionKind, nil, o) },
			UpdateFunc: func(old, o any) { w.notify(m.GroupVersionKind, old, o) },
			DeleteFunc: func(o any) { w.notify(m.GroupVersionKind, o, nil) },
		}); err != nil {
			return fmt.Errorf("adding an event handler: %w", err)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.synced[gk], w.since[gk] = informer.HasSynced, time.Now()
	return nil
}

func (w *Watches) notify(gvk schema.GroupVersionKind, old, o any) {
	if tombstone, ok := old.(toolscache.DeletedFinalStateUnknown); ok {
		old = tombstone.Obj
	}
	current, before := w.object(gvk, o), w.object(gvk, old)
	if before != nil || current != nil {
		w.changed(gvk.GroupKind(), before, current)
	}
}

// object returns the object of an event; nil if there is none.
func (w *Watches) object(gvk schema.GroupVersionKind, o any) *unstructured.Unstructured {
	switch o := o.(type) {
	case *unstructured.Unstructured:
		return o
	case *metav1.PartialObjectMetadata:
		out, err := ofMetadata(o, gvk)
		if err != nil {
			w.log.Error(err, "Failed to read an event of an informer", "kind", gvk.GroupKind().String())
			return nil
		}
		return out
	}
	return nil
}

// MetadataOnly reports whether the informer of a kind has the metadata of objects only: CustomResourceDefinitions are as large as all other
// objects together.
func MetadataOnly(gk schema.GroupKind) bool {
	return gk == schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}
}

// ofMetadata returns the metadata of an object as an object.
func ofMetadata(o *metav1.PartialObjectMetadata, gvk schema.GroupVersionKind) (*unstructured.Unstructured, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return nil, fmt.Errorf("reading the metadata of %s %s: %w", gvk.Kind, o.Name, err)
	}
	out := &unstructured.Unstructured{Object: content}
	out.SetGroupVersionKind(gvk)
	return out, nil
}

// Synced reports whether the informer of a kind has synced, so that the kind can be read from the cache.
func (w *Watches) Synced(gk schema.GroupKind) bool {
	w.mu.Lock()
	synced := w.synced[gk]
	w.mu.Unlock()
	return synced != nil && synced()
}

// Ready returns an error until every informer has synced or was abandoned. An informer is abandoned after syncTimeout,
// usually because RBAC does not allow it to watch; objects of its kind are read from the API server.
func (w *Watches) Ready() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.started {
		return errors.New("the informers have not started yet")
	}
	for gk, synced := range w.synced {
		switch {
		case synced() || w.abandoned[gk]:
		case time.Since(w.since[gk]) < syncTimeout:
			return fmt.Errorf("the informer of %s has not synced yet", gk)
		default:
			w.abandoned[gk] = true
			w.log.Info("Informer has not synced; reading from the API server until it has. If it never does, check the permission to list and watch",
				"kind", gk.String())
		}
	}
	return nil
}
