package deferred

import (
	"context"
	"fmt"
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

const (
	// prefetchRate and prefetchBurst limit prefetching, in charts per second and in charts at once after the start.
	prefetchRate  = 1
	prefetchBurst = 5
	// maxPrefetched limits the references that are prefetched.
	maxPrefetched = 4096
)

// A Prefetcher reads and compiles the charts of releases before a review needs them, while they fit into the cache: each
// chart once, however many releases have it, and again if its source changes. It is a manager.Runnable.
type Prefetcher struct {
	// Lookup returns releases and their charts.
	Lookup validators.Lookup
	// Full reports whether one more chart may not fit into the cache; nil for never.
	Full func() bool
	Log  logr.Logger

	once  sync.Once
	queue workqueue.TypedInterface[string]

	mu sync.Mutex
	// refs are the references that were queued, of the first release that has them, by their text.
	refs map[string]validators.ChartRef
	full bool // has been logged
}

func (p *Prefetcher) init() {
	p.once.Do(func() {
		p.queue = workqueue.NewTyped[string]()
		p.refs = map[string]validators.ChartRef{}
	})
}

// Changed handles an event of an informer: old is nil if the object is new to it, o if it was deleted. It returns at once.
func (p *Prefetcher) Changed(gk schema.GroupKind, old, o *unstructured.Unstructured) {
	if o == nil || old != nil && old.GetGeneration() == o.GetGeneration() && revision(old) == revision(o) {
		return // a resync, or a change of the status that does not concern the chart
	}
	p.init()
	if gk == flux.HelmRelease {
		if ref, ok := helmrelease.ChartRef(o); ok {
			p.add(ref)
		}
		return
	}
	if old == nil {
		return // there is an event for each of its releases
	}
	// A HelmChart that Flux creates for a release names the release in its labels.
	if name := o.GetLabels()["helm.toolkit.fluxcd.io/name"]; gk == flux.HelmChart && name != "" {
		key := types.NamespacedName{Namespace: o.GetLabels()["helm.toolkit.fluxcd.io/namespace"], Name: name}
		// The release is read from an informer, or it is about to be deleted.
		release, presence, _ := p.Lookup.Get(context.Background(), flux.HelmRelease, key)
		if ref, ok := helmrelease.ChartRef(release); presence == validators.Present && ok {
			p.again(func(r validators.ChartRef) bool { return identity(r) == identity(ref) })
		}
		return
	}
	source := validators.ObjectRef{Group: gk.Group, Kind: gk.Kind, Namespace: o.GetNamespace(), Name: o.GetName()}
	p.again(func(r validators.ChartRef) bool { return r.Source == source })
}

// identity is what releases of one chart have in common.
func identity(ref validators.ChartRef) string {
	ref.ReleaseName, ref.ReleaseNamespace = "", ""
	return fmt.Sprintf("%+q", []any{ref.Source.Group, ref.Source.Kind, ref.Source.Namespace, ref.Source.Name, ref.Chart,
		ref.Version, ref.ValuesFiles, fmt.Sprint(ref.IgnoreMissingValuesFiles)})
}

// add queues a reference unless it was queued before.
func (p *Prefetcher) add(ref validators.ChartRef) {
	key := identity(ref)
	p.mu.Lock()
	_, known := p.refs[key]
	known = known || len(p.refs) >= maxPrefetched
	if !known {
		p.refs[key] = ref
	}
	p.mu.Unlock()
	if !known {
		p.queue.Add(key)
	}
}

// again queues the references that match once more.
func (p *Prefetcher) again(match func(validators.ChartRef) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, ref := range p.refs {
		if match(ref) {
			p.queue.Add(key)
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
	work(ctx, 1, p.queue, func(key string) {
		p.mu.Lock()
		ref := p.refs[key]
		p.mu.Unlock()
		if !p.skip() && limit.Wait(ctx) == nil {
			p.prefetch(ctx, ref)
		}
	})
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica has its own cache.
func (p *Prefetcher) NeedLeaderElection() bool { return false }

// skip reports whether the cache is full: a chart that is prefetched then takes the place of one that a review has used.
func (p *Prefetcher) skip() bool {
	full := p.Full != nil && p.Full()
	p.mu.Lock()
	defer p.mu.Unlock()
	if full && !p.full {
		p.Log.Info("Stopped prefetching charts: the cache is full", "references", len(p.refs))
	}
	p.full = full
	return full
}

func (p *Prefetcher) prefetch(ctx context.Context, ref validators.ChartRef) {
	ctx, cancel := context.WithTimeout(chartsource.WithPrefetch(ctx), evaluationTimeout)
	defer cancel()
	began := time.Now()
	chart, presence, err := p.Lookup.Chart(chartsource.WithBudget(ctx, evaluationTimeout), ref)
	release := types.NamespacedName{Namespace: ref.ReleaseNamespace, Name: ref.ReleaseName}.String()
	switch {
	case presence == validators.Present:
		p.Log.V(1).Info("Prefetched chart", "helmRelease", release, "chart", chart.Name(), "version", chart.Version(),
			"duration", time.Since(began).String())
	case err != nil:
		// Not at the level of errors: the reviews of the release report it.
		p.Log.V(1).Info("Failed to prefetch chart", "helmRelease", release, "err", err.Error())
	}
}
