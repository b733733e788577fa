package deferred

import (
	"context"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
	"github.com/flux-admission/flux-admission/validators/helmrelease"
)

// The charts that are read ahead of reviews: a second, and at once after a start.
const (
	warmRate  = 5
	warmBurst = 20
)

// Prefetcher has the charts of releases read and compiled before a review asks for them: of every release when the gate starts, and again when a release or its
// source changes. It is a manager.Runnable.
type Prefetcher struct {
	// Lookup gives releases and their charts.
	Lookup validators.Lookup
	Log    logr.Logger

	once  sync.Once
	queue workqueue.TypedInterface[types.NamespacedName]
}

func (w *Prefetcher) init() {
	w.once.Do(func() { w.queue = workqueue.NewTyped[types.NamespacedName]() })
}

// Changed takes up what an informer has seen: old is nil for what is new to it. It returns at once.
func (w *Prefetcher) Changed(gk schema.GroupKind, old, o *unstructured.Unstructured) {
	if old != nil && old.GetGeneration() == o.GetGeneration() && revision(old) == revision(o) {
		return // a resync, or a change of status that tells nothing of the chart
	}
	w.init()
	if gk == flux.HelmRelease {
		w.queue.Add(named(o))
		return
	}
	if old == nil {
		return // its releases come by themselves
	}
	// The chart that Flux makes for a release names it in its labels.
	if name := o.GetLabels()["helm.toolkit.fluxcd.io/name"]; gk == flux.HelmChart && name != "" {
		w.queue.Add(types.NamespacedName{Namespace: o.GetLabels()["helm.toolkit.fluxcd.io/namespace"], Name: name})
		return
	}
	// Informers are read from memory here.
	releases, presence, _ := w.Lookup.List(context.Background(), flux.HelmRelease, "")
	if presence != validators.Present {
		return
	}
	for _, r := range releases {
		ref, ok := helmrelease.ChartRef(r)
		if ok && ref.Source == (validators.ObjectRef{Group: gk.Group, Kind: gk.Kind, Namespace: o.GetNamespace(), Name: o.GetName()}) {
			w.queue.Add(named(r))
		}
	}
}

func revision(o *unstructured.Unstructured) string {
	r, _, _ := unstructured.NestedString(o.Object, "status", "artifact", "revision")
	return r
}

// Start implements manager.Runnable: it has charts read until the context ends.
func (w *Prefetcher) Start(ctx context.Context) error {
	w.init()
	limit := rate.NewLimiter(warmRate, warmBurst)
	work(ctx, w.queue, func(key types.NamespacedName) {
		if limit.Wait(ctx) == nil {
			w.warm(ctx, key)
		}
	})
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica has its own cache.
func (w *Prefetcher) NeedLeaderElection() bool { return false }

func (w *Prefetcher) warm(ctx context.Context, key types.NamespacedName) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	release, presence, _ := w.Lookup.Get(ctx, flux.HelmRelease, key)
	if presence != validators.Present {
		return
	}
	ref, ok := helmrelease.ChartRef(release)
	if !ok {
		return
	}
	began := time.Now()
	chart, presence, err := w.Lookup.Chart(chartsource.WithBudget(ctx, patience), ref)
	switch {
	case presence == validators.Present:
		w.Log.V(1).Info("a chart is ready", "release", key.String(), "chart", chart.Name(), "version", chart.Version(), "took", time.Since(began).String())
	case err != nil:
		w.Log.V(1).Info("a chart could not be had ahead of its review", "release", key.String(), "reason", err.Error())
	}
}
