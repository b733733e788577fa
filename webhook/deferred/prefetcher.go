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
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
	"github.com/flux-admission/flux-admission/validators/helmrelease"
)

// Limits of prefetching, in charts per second and in charts at once after the start.
const (
	prefetchRate  = 5
	prefetchBurst = 20
)

// A Prefetcher reads and compiles the charts of releases before a review needs them: of every release after the start,
// and again if a release or its source changes. It is a manager.Runnable.
type Prefetcher struct {
	// Lookup returns releases and their charts.
	Lookup validators.Lookup
	Log    logr.Logger

	once  sync.Once
	queue workqueue.TypedInterface[types.NamespacedName]
}

func (p *Prefetcher) init() {
	p.once.Do(func() { p.queue = workqueue.NewTyped[types.NamespacedName]() })
}

// Changed handles an event of an informer: old is nil if the object is new to it. It returns at once.
func (p *Prefetcher) Changed(gk schema.GroupKind, old, o *unstructured.Unstructured) {
	if old != nil && old.GetGeneration() == o.GetGeneration() && revision(old) == revision(o) {
		return // a resync, or a change of the status that does not concern the chart
	}
	p.init()
	if gk == flux.HelmRelease {
		p.queue.Add(client.ObjectKeyFromObject(o))
		return
	}
	if old == nil {
		return // there is an event for each of its releases
	}
	// A HelmChart that Flux creates for a release names the release in its labels.
	if name := o.GetLabels()["helm.toolkit.fluxcd.io/name"]; gk == flux.HelmChart && name != "" {
		p.queue.Add(types.NamespacedName{Namespace: o.GetLabels()["helm.toolkit.fluxcd.io/namespace"], Name: name})
		return
	}
	// The list is read from an informer and needs no deadline.
	releases, presence, _ := p.Lookup.List(context.Background(), flux.HelmRelease, "")
	if presence != validators.Present {
		return
	}
	source := validators.ObjectRef{Group: gk.Group, Kind: gk.Kind, Namespace: o.GetNamespace(), Name: o.GetName()}
	for _, r := range releases {
		if ref, ok := helmrelease.ChartRef(r); ok && ref.Source == source {
			p.queue.Add(client.ObjectKeyFromObject(r))
		}
	}
}

// revision returns the revision of a source's artifact.
func revision(o *unstructured.Unstructured) string {
	r, _, _ := unstructured.NestedString(o.Object, "status", "artifact", "revision")
	return r
}

// Start implements manager.Runnable: it prefetches charts until ctx ends.
func (p *Prefetcher) Start(ctx context.Context) error {
	p.init()
	limit := rate.NewLimiter(prefetchRate, prefetchBurst)
	work(ctx, p.queue, func(key types.NamespacedName) {
		if limit.Wait(ctx) == nil {
			p.prefetch(ctx, key)
		}
	})
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica has its own cache.
func (p *Prefetcher) NeedLeaderElection() bool { return false }

func (p *Prefetcher) prefetch(ctx context.Context, key types.NamespacedName) {
	ctx, cancel := context.WithTimeout(ctx, evaluationTimeout)
	defer cancel()
	release, presence, _ := p.Lookup.Get(ctx, flux.HelmRelease, key)
	if presence != validators.Present {
		return
	}
	ref, ok := helmrelease.ChartRef(release)
	if !ok {
		return
	}
	began := time.Now()
	chart, presence, err := p.Lookup.Chart(chartsource.WithBudget(ctx, evaluationTimeout), ref)
	switch {
	case presence == validators.Present:
		p.Log.V(1).Info("Prefetched chart", "helmRelease", key.String(), "chart", chart.Name(), "version", chart.Version(),
			"duration", time.Since(began).String())
	case err != nil:
		// Not at the level of errors: the reviews of the release report it.
		p.Log.V(1).Info("Failed to prefetch chart", "helmRelease", key.String(), "err", err.Error())
	}
}
