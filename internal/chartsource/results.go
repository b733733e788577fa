package chartsource

import (
	"sync"
	"time"

	"github.com/flux-admission/flux-admission/internal/helmchart"
	"github.com/flux-admission/flux-admission/validators"
)

// maxResults bounds the references whose result is cached.
const maxResults = 4096

// result is the result of looking up one reference.
type result struct {
	presence validators.Presence
	chart    *helmchart.Chart
	// key is the chart's key in the cache.
	key string
	err error
}

// results caches the results of references. They hold the keys of charts only: the cache decides which charts are in
// memory. It is safe for concurrent use.
type results struct {
	clock func() time.Time

	mu    sync.Mutex
	items map[string]*timedResult
}

type timedResult struct {
	result
	// revision is the source's at the time of the lookup.
	revision string
	expires  time.Time
}

func newResults(clock func() time.Time) *results {
	return &results{clock: clock, items: map[string]*timedResult{}}
}

// get returns the cached result of a reference, without its chart, and reports whether it is fresh; nil when none is
// cached.
func (r *results) get(reference, revision string) (res *result, fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.items[reference]
	if t == nil {
		return nil, false
	}
	out := t.result
	return &out, r.clock().Before(t.expires) && (t.revision == revision || out.presence == validators.Unknown)
}

// put caches a result for some time. A failure does not replace a chart that the source had before: that stays in use.
func (r *results) put(reference, revision string, res result, lifetime time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock()
	if old := r.items[reference]; old != nil && old.presence == validators.Present && res.presence == validators.Unknown {
		old.revision, old.expires = revision, now.Add(lifetime)
		return
	}
	if len(r.items) >= maxResults {
		r.evict(now)
	}
	res.chart = nil
	r.items[reference] = &timedResult{result: res, revision: revision, expires: now.Add(lifetime)}
}

// evict removes expired results without a chart, and if that does not suffice the one that expires first. The mutex is
// held.
func (r *results) evict(now time.Time) {
	oldest := ""
	for k, t := range r.items {
		if now.After(t.expires) && t.presence != validators.Present {
			delete(r.items, k)
			continue
		}
		if oldest == "" || t.expires.Before(r.items[oldest].expires) {
			oldest = k
		}
	}
	if len(r.items) >= maxResults {
		delete(r.items, oldest)
	}
}
