package lookup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

// watchRetry is how often a kind that the API server does not serve yet is looked for again.
const watchRetry = 10 * time.Second

// watchPatience is how long readiness waits for an informer.
const watchPatience = 15 * time.Second

// Watches keeps informers on kinds, those included whose CustomResourceDefinition is installed later. Secrets and ConfigMaps are never among them. It is a
// manager.Runnable.
type Watches struct {
	cache  cache.Informers
	mapper meta.RESTMapper
	kinds  []schema.GroupKind
	log    logr.Logger
	// changed is called on what informers see.
	changed func(gk schema.GroupKind, old, new *unstructured.Unstructured)

	mu       sync.Mutex
	synced   map[schema.GroupKind]func() bool
	since    map[schema.GroupKind]time.Time
	given    map[schema.GroupKind]bool // not waited for any more
	complete bool                      // every kind has been asked for once
}

// NewWatches returns Watches of kinds, which start with Start. Changed is called for every object that is there at first or comes later (with old nil), and
// for every change of one; it may be nil, must return soon and must not change the objects.
func NewWatches(c cache.Informers, mapper meta.RESTMapper, kinds []schema.GroupKind, changed func(gk schema.GroupKind, old, new *unstructured.Unstructured), log logr.Logger) *Watches {
	return &Watches{cache: c, mapper: mapper, kinds: kinds, changed: changed, log: log, synced: map[schema.GroupKind]func() bool{}, since: map[schema.GroupKind]time.Time{}, given: map[schema.GroupKind]bool{}}
}

// Start implements manager.Runnable: it watches until the context ends. A kind that is not served, or not allowed to be watched, keeps nothing from being
// ready: it is read from the API server instead.
func (w *Watches) Start(ctx context.Context) error {
	tick := time.NewTicker(watchRetry)
	defer tick.Stop()
	for {
		missing := 0
		for _, gk := range w.kinds {
			if err := w.watch(ctx, gk); err != nil {
				missing++
				w.log.V(1).Info("not watched yet", "kind", gk.String(), "reason", err.Error())
			}
		}
		w.mu.Lock()
		w.complete = true
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

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica watches for itself.
func (w *Watches) NeedLeaderElection() bool { return false }

func (w *Watches) watch(ctx context.Context, gk schema.GroupKind) error {
	w.mu.Lock()
	_, there := w.synced[gk]
	w.mu.Unlock()
	if there {
		return nil
	}
	m, err := w.mapper.RESTMapping(gk)
	if err != nil {
		return fmt.Errorf("asking for its version: %w", err)
	}
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(m.GroupVersionKind)
	informer, err := w.cache.GetInformer(ctx, o, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("making an informer: %w", err)
	}
	if w.changed != nil {
		if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { w.tell(gk, nil, o) },
			UpdateFunc: func(old, o any) { w.tell(gk, old, o) },
		}); err != nil {
			return fmt.Errorf("listening to the informer: %w", err)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.synced[gk], w.since[gk] = informer.HasSynced, time.Now()
	return nil
}

func (w *Watches) tell(gk schema.GroupKind, old, o any) {
	is, ok := o.(*unstructured.Unstructured)
	if !ok {
		return
	}
	was, _ := old.(*unstructured.Unstructured)
	w.changed(gk, was, is)
}

// Synced tells whether the informer of a kind has seen everything, so that it can be read from.
func (w *Watches) Synced(gk schema.GroupKind) bool {
	w.mu.Lock()
	synced := w.synced[gk]
	w.mu.Unlock()
	return synced != nil && synced()
}

// Ready says what is waited for: every informer has to see everything once, or to be given up. One that may not watch is given up after some seconds; its
// kind is read from the API server, object by object.
func (w *Watches) Ready() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.complete {
		return errors.New("the informers are not started yet")
	}
	for gk, synced := range w.synced {
		switch {
		case synced() || w.given[gk]:
		case time.Since(w.since[gk]) < watchPatience:
			return fmt.Errorf("the informer of %s has not seen everything yet", gk)
		default:
			w.given[gk] = true
			w.log.Info("Cannot be watched, so it is read from the API server every time; check the permission to list and watch", "kind", gk.String())
		}
	}
	return nil
}
