package chartsource

import (
	"sync"
	"time"
)

const (
	// maxOutages bounds the failures that are recorded.
	maxOutages = 4096
	// maxBackoff bounds how long something is not tried again.
	maxBackoff = 2 * time.Minute
)

// outages records what failed a short time ago, so that not every review waits for it. What fails again is not tried for
// twice the time. It is safe for concurrent use.
type outages struct {
	ttl   time.Duration
	clock func() time.Time

	mu    sync.Mutex
	items map[string]outage
}

type outage struct {
	lasts time.Duration
	until time.Time
}

func newOutages(ttl time.Duration, clock func() time.Time) *outages {
	return &outages{ttl: ttl, clock: clock, items: map[string]outage{}}
}

// failed reports whether a failure was recorded a short time ago.
func (o *outages) failed(key string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	out, ok := o.items[key]
	return ok && o.clock().Before(out.until)
}

// record records a failure, and returns for how long.
func (o *outages) record(key string) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.items) >= maxOutages {
		clear(o.items)
	}
	out := o.items[key]
	out.lasts = max(o.ttl, min(2*out.lasts, maxBackoff))
	out.until = o.clock().Add(out.lasts)
	o.items[key] = out
	return out.lasts
}

// clear records that it works again.
func (o *outages) clear(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.items, key)
}
