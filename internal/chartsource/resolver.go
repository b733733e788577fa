package chartsource

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/flux-admission/flux-admission/internal/chartsource/disk"
	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/validators"
)

// Options configure a Resolver. The zero value of a field means its default.
type Options struct {
	// Dirs are directories and archives with charts, or with charts in them. They are matched by the chart's name and version, whatever
	// repository a release names, and come before every source.
	Dirs []string
	// Wait is how long one admission waits for sources together; 0 never waits. Serve's default is DefaultWait.
	Wait time.Duration
	// CacheBytes bounds the memory that charts take; 256 MiB by default.
	CacheBytes int64
	// CacheDir keeps chart archives across restarts; empty for none.
	CacheDir string
	// CacheDirBytes bounds it; 1 GiB by default.
	CacheDirBytes int64
	// Fresh is how long a chart found at a source is used without asking again; 5 minutes by default. After it the chart is
	// used while it is asked again.
	Fresh time.Duration
	// Remember is how long a failure or an absence is remembered; 20 seconds by default.
	Remember time.Duration
	// FetchTimeout bounds reading one chart from its source; a minute by default.
	FetchTimeout time.Duration
	// Fetches is the number of charts that are read at the same time; 8 by default.
	Fetches int
	// NoCrossNamespace blocks sources of other namespaces than the release's, as Flux's controllers do with --no-cross-namespace-refs.
	NoCrossNamespace bool
	// SchemaHosts are the hosts, with a port where it is not the usual one, that schemas may refer to: "json.schemastore.org". None by default; what a
	// schema refers to elsewhere is left open in verdicts.
	SchemaHosts []string
	// AllowLocal lets sources send requests on to loopback and link-local addresses.
	AllowLocal bool
	// Limits bound the charts; archive.DefaultLimits by default.
	Limits archive.Limits
	// Templates keeps what charts render with, for validators.Chart's Render. A check of a Git tree sets it. The gate does not: a Go template
	// cannot be stopped, and a stranger's chart must not run there.
	Templates bool
	// Observer is told what happens; nil for nobody.
	Observer Observer
	// Log gets what happens behind admissions; the zero Logger is silent.
	Log logr.Logger
	// Clock tells the time; time.Now by default.
	Clock func() time.Time
}

// DefaultWait is how long an admission waits for a chart that is not known yet.
const DefaultWait = 2 * time.Second

// The most charts whose whereabouts are remembered, and that wait to be read.
const (
	maxEntries = 4096
	maxFlights = 256
)

// Outcome is how a lookup or a fetch ended, for metrics: a small fixed set.
type Outcome string

// The outcomes.
const (
	OutcomeLocal   Outcome = "local"   // found in a directory of Options.Dirs
	OutcomeHit     Outcome = "hit"     // known
	OutcomeStale   Outcome = "stale"   // known, and asked for again
	OutcomeFetched Outcome = "fetched" // read while the review waited
	OutcomeKept    Outcome = "kept"    // found in the cache directory, from before a restart
	OutcomeAbsent  Outcome = "absent"  // does not exist
	OutcomeTimeout Outcome = "timeout" // not there within the wait
	OutcomeError   Outcome = "error"   // the source could not be read
)

// Observer is told what happens to charts. Its methods return soon and are safe for concurrent use.
type Observer interface {
	// Resolved is called once for every lookup of a chart. Kind is the source's, "other" for one that Flux has not.
	Resolved(kind string, outcome Outcome)
	// Fetched is called when reading a chart from a source has ended, in the background or not.
	Fetched(kind string, outcome Outcome, took time.Duration)
	// Cached is called when the cache has changed.
	Cached(charts int, bytes int64)
}

type nobody struct{}

func (nobody) Resolved(string, Outcome)               {}
func (nobody) Fetched(string, Outcome, time.Duration) {}
func (nobody) Cached(int, int64)                      {}

// Resolver finds charts. It implements lookup.Charts and is safe for concurrent use. Close ends what it does in the background.
type Resolver struct {
	opts  Options
	local []localChart
	cache *cache
	disk  *disk.Store // nil without a directory

	ctx    context.Context // of everything in the background
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	slots  chan struct{}

	mu      sync.Mutex
	closed  bool
	entries map[string]*entry
	flights map[string]*flight
	outages map[string]time.Time
	remote  map[string]remoteSchema
	indexes indexCache
}

// entry is what is known of one reference.
type entry struct {
	result result
	// revision is the source's when it was read.
	revision string
	expires  time.Time
}

// result is the answer to one reference.
type result struct {
	presence validators.Presence
	chart    *Chart
	// digest is the chart's key in the cache. What is remembered has only that: the cache decides which charts are kept in memory.
	digest string
	err    error
}

// flight is one reading of a chart that any number of reviews wait for.
type flight struct {
	done   chan struct{}
	result result
}

// New returns a Resolver. It reads the charts of Options.Dirs, and fails when one cannot be read.
func New(opts Options) (*Resolver, error) {
	if opts.CacheBytes <= 0 {
		opts.CacheBytes = 256 << 20
	}
	if opts.CacheDirBytes <= 0 {
		opts.CacheDirBytes = 1 << 30
	}
	if opts.Fresh <= 0 {
		opts.Fresh = 5 * time.Minute
	}
	if opts.Remember <= 0 {
		opts.Remember = 20 * time.Second
	}
	if opts.FetchTimeout <= 0 {
		opts.FetchTimeout = time.Minute
	}
	if opts.Fetches <= 0 {
		opts.Fetches = 8
	}
	if opts.Limits == (archive.Limits{}) {
		opts.Limits = archive.DefaultLimits()
	}
	opts.Limits.Whole = opts.Templates
	if opts.Observer == nil {
		opts.Observer = nobody{}
	}
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	r := &Resolver{
		opts: opts, cache: newCache(opts.CacheBytes), slots: make(chan struct{}, opts.Fetches),
		entries: map[string]*entry{}, flights: map[string]*flight{}, outages: map[string]time.Time{}, remote: map[string]remoteSchema{}, indexes: indexCache{items: map[string]*indexEntry{}},
	}
	// What is read outlives the review that asked for it, and ends with the Resolver.
	r.ctx, r.cancel = context.WithCancel(context.Background())
	var err error
	if r.local, err = readLocal(opts.Dirs, opts.Limits, r.schemaLoader(r.ctx), opts.Templates); err != nil {
		r.cancel()
		return nil, err
	}
	if opts.CacheDir != "" {
		if r.disk, err = disk.Open(opts.CacheDir, opts.CacheDirBytes); err != nil {
			r.cancel()
			return nil, err
		}
	}
	return r, nil
}

// Run waits for ctx to end and closes the Resolver. It lets a manager own it.
func (r *Resolver) Run(ctx context.Context) error {
	<-ctx.Done()
	r.Close()
	return nil
}

// Close ends what is read in the background and waits for it. Lookups after it find only what is known. It may be called more than once.
func (r *Resolver) Close() {
	r.mu.Lock()
	first := !r.closed
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.tasks.Wait()
	if first && r.disk != nil {
		if err := r.disk.Close(); err != nil {
			r.opts.Log.Error(err, "closing the cache directory")
		}
	}
}

type budgetKey struct{}

// WithBudget returns a context in which all lookups together wait no longer than d for charts. Without it each lookup waits for Options.Wait.
// What nobody waits for, in the background, may have more.
func WithBudget(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, budgetKey{}, time.Now().Add(d))
}

// wait returns how long a lookup may wait.
func (r *Resolver) wait(ctx context.Context) time.Duration {
	d := r.opts.Wait
	if until, ok := ctx.Value(budgetKey{}).(time.Time); ok {
		d = time.Until(until)
	}
	return d
}

// Resolve implements lookup.Charts. An error explains an Unknown: for a chart that is still being read, that it is.
func (r *Resolver) Resolve(ctx context.Context, objects validators.Lookup, ref validators.ChartRef) (validators.Chart, validators.Presence, error) {
	if c, err := r.Local(ctx, objects, ref); err != nil || c != nil {
		if err != nil {
			return r.answer(ref, OutcomeError, result{err: err})
		}
		return r.answer(ref, OutcomeLocal, result{presence: validators.Present, chart: c})
	}
	src, presence, err := r.source(ctx, objects, ref)
	switch {
	case presence == validators.Absent:
		return r.answer(ref, OutcomeAbsent, result{presence: validators.Absent})
	case err != nil || presence != validators.Present:
		if err == nil {
			err = errors.New("nothing is known of it")
		}
		return r.answer(ref, OutcomeError, result{err: err})
	}
	res, outcome := r.find(ctx, src)
	return r.answer(ref, outcome, res)
}

func (r *Resolver) answer(ref validators.ChartRef, outcome Outcome, res result) (validators.Chart, validators.Presence, error) {
	if res.presence == validators.Absent {
		outcome = OutcomeAbsent
	} else if res.presence == validators.Unknown && outcome != OutcomeTimeout {
		outcome = OutcomeError
	}
	r.opts.Observer.Resolved(known(ref.Source.Kind), outcome)
	if res.presence == validators.Present {
		return res.chart, validators.Present, nil
	}
	return nil, res.presence, res.err
}

// known returns the kind of a source, or "other" for a kind that Flux has not: what a user writes is no metric label.
func known(kind string) string {
	switch kind {
	case "HelmRepository", "HelmChart", "OCIRepository", "GitRepository", "Bucket", "ExternalArtifact":
		return kind
	}
	return "other"
}

// find returns what is known of a chart, or has it read and waits for it.
func (r *Resolver) find(ctx context.Context, src source) (result, Outcome) {
	key := src.key()
	now := r.opts.Clock()
	r.mu.Lock()
	known, fresh := r.recall(key, src.revision(), now)
	if known != nil && fresh {
		r.mu.Unlock()
		return *known, OutcomeHit
	}
	f, err := r.fly(key, src)
	r.mu.Unlock()
	if known != nil && known.presence == validators.Present {
		// The old chart judges until the new one is there.
		return *known, OutcomeStale
	}
	if err != nil {
		return result{err: err}, OutcomeError
	}
	wait := r.wait(ctx)
	if wait <= 0 {
		select {
		case <-f.done:
			return f.result, OutcomeFetched
		default:
			return result{err: pending("%s is being read, and admission does not wait for it", src)}, OutcomeTimeout
		}
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-f.done:
		return f.result, OutcomeFetched
	case <-t.C:
		return result{err: pending("%s was not there within %s and is still being read", src, wait.Round(time.Millisecond))}, OutcomeTimeout
	case <-ctx.Done():
		return result{err: pending("%s is still being read: %v", src, context.Cause(ctx))}, OutcomeTimeout
	}
}

func pending(format string, args ...any) error {
	return &validators.Pending{Text: fmt.Sprintf(format, args...)}
}

// recall returns what is remembered of a reference, and whether it need not be asked for again; nil when nothing is, or when the chart has
// gone from the cache. The mutex is held.
func (r *Resolver) recall(key, revision string, now time.Time) (*result, bool) {
	e := r.entries[key]
	if e == nil {
		return nil, false
	}
	res := e.result
	if res.presence == validators.Present {
		if res.chart = r.cache.get(res.digest); res.chart == nil {
			return nil, false
		}
	}
	return &res, now.Before(e.expires) && (e.revision == revision || res.presence == validators.Unknown)
}

// fly returns the reading of a chart that is under way, or starts it. The mutex is held.
func (r *Resolver) fly(key string, src source) (*flight, error) {
	if f, ok := r.flights[key]; ok {
		return f, nil
	}
	if r.closed {
		return nil, errors.New("the gate is shutting down")
	}
	if len(r.flights) >= maxFlights {
		return nil, fmt.Errorf("%d charts are being read already", maxFlights)
	}
	f := &flight{done: make(chan struct{})}
	r.flights[key] = f
	r.tasks.Go(func() { r.read(key, src, f) })
	return f, nil
}

// read reads a chart from its source, in the background.
func (r *Resolver) read(key string, src source, f *flight) {
	ctx, cancel := context.WithTimeout(r.ctx, r.opts.FetchTimeout)
	defer cancel()
	start := time.Now()
	var res result
	kept := false
	select {
	case r.slots <- struct{}{}:
		if res, kept = r.fromDisk(ctx, key, src); !kept {
			res = r.load(ctx, src)
		}
		<-r.slots
	case <-ctx.Done():
		res.err = fmt.Errorf("%s: too many charts are being read: %w", src, ctx.Err())
	}
	lifetime, outcome := r.opts.Remember, OutcomeError
	switch res.presence {
	case validators.Present:
		lifetime, outcome = r.opts.Fresh, OutcomeFetched
		if kept {
			lifetime, outcome = 0, OutcomeKept // the source is asked by the next review
		} else {
			r.toDisk(key, res.digest)
		}
	case validators.Absent:
		outcome = OutcomeAbsent
	case validators.Unknown:
	}
	f.result = res
	r.mu.Lock()
	if old := r.entries[key]; res.presence == validators.Unknown && old != nil && old.result.presence == validators.Present {
		// A source that fails does not take away the chart that was read from it.
		old.revision, old.expires = src.revision(), r.opts.Clock().Add(lifetime)
	} else {
		r.remember(key, src.revision(), res, lifetime)
	}
	delete(r.flights, key)
	r.mu.Unlock()
	close(f.done)
	r.opts.Observer.Fetched(known(src.kind()), outcome, time.Since(start))
	charts, bytes := r.cache.size()
	r.opts.Observer.Cached(charts, bytes)
	if res.presence == validators.Present {
		r.opts.Log.V(1).Info("read a chart", "source", src.String(), "version", res.chart.Version(), "took", time.Since(start).String())
	} else if r.ctx.Err() == nil {
		r.opts.Log.Info("could not read a chart", "source", src.String(), "presence", res.presence.String(), "reason", reason(res.err))
	}
}

func reason(err error) string {
	if err == nil {
		return "it does not exist"
	}
	return err.Error()
}

// fromDisk returns the chart that a reference had before a restart; false when none is known, or when one is known already and to be asked for again.
func (r *Resolver) fromDisk(ctx context.Context, key string, src source) (res result, ok bool) {
	if r.disk == nil {
		return result{}, false
	}
	r.mu.Lock()
	known := r.entries[key] != nil
	r.mu.Unlock()
	if known {
		return result{}, false
	}
	note, err := r.disk.Noted(key)
	if err != nil {
		return result{}, false
	}
	digest, ref, ok := parseCacheKey(note)
	if !ok {
		return result{}, false
	}
	c := r.cache.get(note)
	if c == nil {
		data, err := r.disk.Get(digest)
		if err == nil {
			c, err = r.fromArchive(ctx, data, digest, ref)
		}
		if err != nil {
			r.opts.Log.V(1).Info("a chart of the cache directory is of no use", "source", src.String(), "reason", err.Error())
			return result{}, false
		}
	}
	return result{presence: validators.Present, chart: c, digest: c.cacheKey}, true
}

// toDisk notes which archive a reference stands for.
func (r *Resolver) toDisk(key, cacheKey string) {
	if r.disk == nil {
		return
	}
	if _, _, ok := parseCacheKey(cacheKey); !ok {
		return // not an archive of its own
	}
	if err := r.disk.Note(key, cacheKey); err != nil {
		r.opts.Log.Error(err, "noting a chart in the cache directory")
	}
}

// load reads a chart; a panic in one of the libraries that read it is an error like any other.
func (r *Resolver) load(ctx context.Context, src source) (res result) {
	defer func() {
		if p := recover(); p != nil {
			res = result{err: fmt.Errorf("%s: reading it panicked: %v", src, p)}
		}
	}()
	c, err := src.load(ctx, r)
	switch {
	case err == nil:
		return result{presence: validators.Present, chart: c, digest: c.cacheKey}
	case errors.Is(err, errAbsent):
		return result{presence: validators.Absent}
	default:
		return result{err: fmt.Errorf("%s: %w", src, err)}
	}
}

// remember keeps an answer, and makes room for it. The mutex is held.
func (r *Resolver) remember(key, revision string, res result, lifetime time.Duration) {
	now := r.opts.Clock()
	if len(r.entries) >= maxEntries {
		oldest := ""
		for k, e := range r.entries {
			if now.After(e.expires) && e.result.presence != validators.Present {
				delete(r.entries, k)
				continue
			}
			if oldest == "" || e.expires.Before(r.entries[oldest].expires) {
				oldest = k
			}
		}
		if len(r.entries) >= maxEntries {
			delete(r.entries, oldest)
		}
	}
	res.chart = nil
	r.entries[key] = &entry{result: res, revision: revision, expires: now.Add(lifetime)}
}
