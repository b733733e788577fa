package chartsource

import (
	"sync"
	"time"
)

// maxOutages bounds the failures that are recorded.
const maxOutages = 4096

// outages records what failed a short time ago, so that not every review waits for it. It is safe for concurrent use.
type outages struct {
	ttl   time.Duration
	clock func() time.Time

	mu    sync.Mutex
	items map[string]time.Time
}

func newOutages(ttl time.Duration, clock func() time.Time) *outages {
	return &outages{ttl: ttl, clock: clock, items: map[string]time.Time{}}
}

// failed reports whether a failure was recorded a short time ago.
func (o *outages) failed(key string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	until, ok := o.items[key]
	return ok && o.clock().Before(until)
}

// record records a failure.
func (o *outages) record(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.items) >= maxOutages {
		clear(o.items)
	}
	o.items[key] = o.clock().Add(o.ttl)
}
