// Package chartsource finds the charts of HelmReleases: in local directories, in caches, and in Flux's sources.
//
// A Resolver waits for a source only as long as a review allows; the fetch continues in the background.
package chartsource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/flux-admission/flux-admission/internal/chartsource/disk"
	"github.com/flux-admission/flux-admission/internal/chartsource/fetch"
	"github.com/flux-admission/flux-admission/internal/helmchart"
	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/validators"
)

// maxRunning bounds the references that are fetched or queued for it, and those of the sources of one namespace.
const (
	maxRunning          = 512
	maxRunningNamespace = 128
)

// errClosed is the error of a fetch after Close.
var errClosed = errors.New("the server is shutting down")

// Resolver finds charts. It implements lookup.Charts and is safe for concurrent use. Close ends its background work.
type Resolver struct {
	opts    Options
	local   localCharts
	empty   []string // the directories of Options.Dirs with nothing in them
	loader  *loader
	results *results

	ctx    context.Context // of all background work
	cancel context.CancelFunc
	calls  singleflight.Group
	slots  *slots

	mu      sync.Mutex
	closed  bool
	running map[string]string // the namespaces of the sources that are fetched or queued for it, by key
	tasks   sync.WaitGroup
}

// New returns a Resolver. It reads the charts of Options.Dirs, and returns an error when one cannot be read.
func New(opts Options) (*Resolver, error) {
	opts = opts.withDefaults()
	r := &Resolver{
		opts: opts, loader: newLoader(opts), results: newResults(opts.Clock),
		slots: newSlots(opts.MaxFetches, opts.MaxFetchesPerTenant), running: map[string]string{},
	}
	// A fetch outlives the review that started it, and ends with the Resolver.
	r.ctx, r.cancel = context.WithCancel(context.Background())
	var err error
	load := helmchart.Options{LoadSchema: r.loader.schemas.loader(r.ctx), Templates: opts.Templates}
	if r.local, r.empty, err = readLocal(opts.Dirs, opts.Limits, load); err != nil {
		r.cancel()
		return nil, err
	}
	if r.loader.crashes, err = openCrashes(opts.StateDir); err != nil {
		r.cancel()
		return nil, err
	}
	if opts.CacheDir != "" {
		if r.loader.disk, err = disk.Open(opts.CacheDir, opts.CacheDirBytes); err != nil {
			r.cancel()
			return nil, err
		}
	}
	return r, nil
}

// Empty returns the directories of Options.Dirs with nothing in them.
func (r *Resolver) Empty() []string { return r.empty }

// Close cancels all fetches and waits for them. Lookups after it only find cached charts. It may be called more than
// once.
func (r *Resolver) Close() {
	r.mu.Lock()
	first := !r.closed
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.tasks.Wait()
	if first {
		r.loader.close()
	}
}

// Full reports whether the cache of charts is so full that another one may evict one.
func (r *Resolver) Full() bool {
	_, bytes := r.loader.cache.size()
	return bytes > r.opts.CacheBytes/4*3
}

type budgetKey struct{}

// WithBudget returns a context in which all lookups together wait no longer than d for charts. Without it, each lookup
// waits for Options.Wait.
func WithBudget(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, budgetKey{}, time.Now().Add(d))
}

// wait returns how long a lookup may wait.
func (r *Resolver) wait(ctx context.Context) time.Duration {
	if until, ok := ctx.Value(budgetKey{}).(time.Time); ok {
		return time.Until(until)
	}
	return r.opts.Wait
}

// Local returns the chart of Options.Dirs that a reference selects; nil when there is none. Objects provide the chart's
// name if the reference has none.
func (r *Resolver) Local(ctx context.Context, objects validators.Lookup, ref validators.ChartRef) (*helmchart.Chart, error) {
	if len(r.local) == 0 {
		return nil, nil
	}
	return r.local.find(resolveName(ctx, objects, ref))
}

// FromArtifact reads the chart that a reference names from the archive (.tar.gz) of its source: the chart at a path of a
// GitRepository or Bucket, or that which an ExternalArtifact is. It is not cached.
func (r *Resolver) FromArtifact(ctx context.Context, data io.Reader, ref validators.ChartRef) (*helmchart.Chart, error) {
	l := r.loader
	if ref.Chart == "" {
		ch, err := archive.Read(data, l.opts.Limits)
		if err != nil {
			return nil, err
		}
		return l.chart(ctx, ch, false), nil
	}
	files, err := archive.OpenArtifact(data, ref.Chart, l.opts.Limits.OfSource(), ref.ValuesFiles...)
	if err != nil {
		return nil, err
	}
	return l.treeChart(ctx, files, ref)
}

// Resolve implements lookup.Charts. The error is the reason for an Unknown; it is a *validators.Pending while the chart
// is being fetched.
func (r *Resolver) Resolve(
	ctx context.Context, objects validators.Lookup, ref validators.ChartRef,
) (validators.Chart, validators.Presence, error) {
	res, outcome := r.resolve(ctx, objects, ref)
	if res.presence == validators.Absent {
		outcome = OutcomeAbsent
	} else if res.presence == validators.Unknown && outcome != OutcomeTimeout {
		outcome = OutcomeError
	}
	r.opts.Observer.Resolved(kindLabel(ref.Source.Kind), outcome)
	if res.presence == validators.Present {
		return res.chart, validators.Present, nil
	}
	return nil, res.presence, res.err
}

func (r *Resolver) resolve(ctx context.Context, objects validators.Lookup, ref validators.ChartRef) (result, Outcome) {
	c, err := r.Local(ctx, objects, ref)
	if err != nil {
		return result{err: err}, OutcomeError
	}
	if c != nil {
		return result{presence: validators.Present, chart: c}, OutcomeLocal
	}
	src, presence, err := finder{objects: objects, noCrossNamespace: r.opts.NoCrossNamespace, login: r.opts.Login}.find(ctx, ref)
	switch {
	case presence == validators.Absent:
		return result{presence: validators.Absent}, OutcomeAbsent
	case err != nil:
		return result{err: err}, OutcomeError
	case presence != validators.Present:
		return result{err: fmt.Errorf("%s %s/%s could not be read", ref.Source.Kind, ref.Source.Namespace, ref.Source.Name)}, OutcomeError
	}
	return r.await(ctx, src)
}

// await returns the cached result for a source's chart, or fetches the chart and waits for it.
func (r *Resolver) await(ctx context.Context, src source) (result, Outcome) {
	cached, fresh := r.cached(src)
	if cached != nil && fresh {
		return *cached, OutcomeHit
	}
	if err := r.loader.crashes.refused(ctx, src); err != nil {
		return result{err: err}, OutcomeError
	}
	fetched, err := r.start(src)
	if cached != nil && cached.presence == validators.Present {
		return *cached, OutcomeStale
	}
	if err != nil {
		return result{err: err}, OutcomeError
	}
	wait := r.wait(ctx)
	if wait <= 0 {
		select {
		case res := <-fetched:
			return res.Val.(result), OutcomeFetched
		default:
			return result{err: pending("%s is still being fetched, and reviews do not wait for it", src)}, OutcomeTimeout
		}
	}
	began := time.Now()
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case res := <-fetched:
		return res.Val.(result), OutcomeFetched
	case <-t.C:
		return result{err: pending("%s is still being fetched after %s", src, wait.Round(time.Millisecond))}, OutcomeTimeout
	case <-ctx.Done():
		return result{err: pending("%s is still being fetched after %s", src, time.Since(began).Round(time.Millisecond))}, OutcomeTimeout
	}
}

func pending(format string, args ...any) error {
	return &validators.Pending{Text: fmt.Sprintf(format, args...)}
}

// cached returns the cached result for a source's chart, and reports whether it is fresh; nil when there is none, or
// when the chart was evicted from memory.
func (r *Resolver) cached(src source) (res *result, fresh bool) {
	res, fresh = r.results.get(src.key(), src.revision())
	if res != nil && res.presence == validators.Present {
		if res.chart = r.loader.cache.get(res.key); res.chart == nil {
			return nil, false
		}
	}
	return res, fresh
}

// start fetches a source's chart in the background, or joins the fetch that is running.
func (r *Resolver) start(src source) (<-chan singleflight.Result, error) {
	key := src.key()
	r.mu.Lock()
	err := r.admit(src)
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return r.calls.DoChan(key, func() (any, error) {
		r.mu.Lock()
		if err := r.admit(src); err != nil {
			r.mu.Unlock()
			return result{err: err}, nil
		}
		r.running[key] = src.tenant().namespace
		r.tasks.Add(1)
		r.mu.Unlock()
		defer r.tasks.Done()
		res, report := r.fetchOnce(src)
		// From here on a caller starts a fetch of its own. The observer may be such a caller.
		r.mu.Lock()
		delete(r.running, key)
		r.calls.Forget(key)
		r.mu.Unlock()
		report()
		return res, nil
	}), nil
}

// admit returns an error when no fetch from a source may be started. The mutex is held.
func (r *Resolver) admit(src source) error {
	if r.closed {
		return errClosed
	}
	if _, ok := r.running[src.key()]; ok {
		return nil
	}
	if len(r.running) >= maxRunning {
		return fmt.Errorf("%d charts are already being fetched", maxRunning)
	}
	count, namespace := 0, src.tenant().namespace
	for _, other := range r.running {
		if other == namespace {
			count++
		}
	}
	if count >= maxRunningNamespace {
		return fmt.Errorf("%d charts of the namespace %s are already being fetched", maxRunningNamespace, namespace)
	}
	return nil
}

// fetchOnce fetches a source's chart unless another fetch has ended since the caller looked at the cache. The function that
// it returns reports the fetch to the observer.
func (r *Resolver) fetchOnce(src source) (result, func()) {
	if res, fresh := r.cached(src); res != nil && fresh {
		return *res, func() {}
	}
	return r.fetch(src)
}

// fetch fetches a source's chart and caches the result. The function that it returns reports the fetch to the observer.
func (r *Resolver) fetch(src source) (result, func()) {
	start := time.Now()
	res, outcome := r.loadInSlot(src)
	lifetime := r.opts.NegativeTTL
	switch {
	case outcome == OutcomeFetched:
		lifetime = r.opts.TTL
		r.loader.toDisk(src.key(), res.key)
	case outcome == OutcomeDisk:
		lifetime = 0 // the next review fetches the chart from its source
	case outcome == OutcomeError && !errors.Is(res.err, errBackoff) && !errors.Is(res.err, errPreempted):
		lifetime = r.loader.outages.record(src.key())
	}
	if outcome == OutcomeFetched || outcome == OutcomeAbsent {
		r.loader.outages.clear(src.key())
	}
	detailed := res.err
	if !r.opts.Templates { // a check is for users who may see what they can reach
		res.err = fetch.Coarse(src.String(), res.err)
	}
	r.results.put(src.key(), src.revision(), res, lifetime)
	duration := time.Since(start)
	switch {
	case outcome == OutcomeAbsent:
		r.opts.Log.Info("Chart does not exist", "source", src.String())
	case detailed == nil:
		r.opts.Log.V(1).Info("Fetched chart", "source", src.String(), "version", res.chart.Version(), "duration", duration.String())
	case r.ctx.Err() == nil:
		r.opts.Log.Error(detailed, "Failed to fetch chart", "source", src.String())
	}
	return res, func() {
		r.opts.Observer.Fetched(kindLabel(src.kind()), outcome, duration)
		r.opts.Observer.Cached(r.loader.cache.size())
	}
}

// loadInSlot waits for a slot and reads a chart.
func (r *Resolver) loadInSlot(src source) (result, Outcome) {
	ctx, preempt := context.WithCancelCause(r.ctx)
	defer preempt(nil)
	waiting, stop := context.WithTimeout(ctx, r.opts.FetchTimeout)
	defer stop()
	s, err := r.slots.acquire(waiting, src.tenant(), preempt)
	if err != nil {
		return result{err: fmt.Errorf("%s: waiting for other charts to be fetched: %w", src, err)}, OutcomeError
	}
	defer s.end()
	end, err := r.loader.crashes.begin(src.key())
	if err != nil {
		r.opts.Log.Error(err, "Failed to record that a chart is being read")
	}
	defer end()
	ctx, cancel := context.WithTimeout(fetch.WithHeaderTimeout(context.WithValue(ctx, slotKey{}, s), r.opts.HeaderTimeout), r.opts.FetchTimeout)
	defer cancel()
	res, outcome := r.load(ctx, src)
	if outcome == OutcomeError && errors.Is(context.Cause(ctx), errPreempted) {
		res.err = fmt.Errorf("%s: %w", src, errPreempted)
	}
	return res, outcome
}

// load reads a chart from the cache directory or from its source. A panic of a library is an error like any other.
func (r *Resolver) load(ctx context.Context, src source) (res result, outcome Outcome) {
	defer func() {
		if p := recover(); p != nil {
			res, outcome = result{err: fmt.Errorf("%s: reading it panicked: %v", src, p)}, OutcomeError
		}
	}()
	if cached, _ := r.results.get(src.key(), src.revision()); cached == nil {
		c, err := r.loader.fromDisk(ctx, src.key())
		if err != nil {
			r.opts.Log.V(1).Info("Ignoring unreadable chart in the cache directory", "source", src.String(), "err", err.Error())
		} else if c != nil {
			return result{presence: validators.Present, chart: c.chart, key: c.key}, OutcomeDisk
		}
	}
	c, err := src.load(ctx, r.loader)
	switch {
	case err == nil:
		return result{presence: validators.Present, chart: c.chart, key: c.key}, OutcomeFetched
	case errors.Is(err, errAbsent):
		return result{presence: validators.Absent}, OutcomeAbsent
	default:
		return result{err: fmt.Errorf("%s: %w", src, err)}, OutcomeError
	}
}
