package chartsource

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// A fetch may be ended for another one that waits for a slot, once it has had one for some time: longer than a review waits for
// its chart, and longer still if its tenant has no other.
const (
	shareAfter = 2 * time.Second
	yieldAfter = 5 * time.Second
	// preemptEvery is how often a waiting fetch looks for one to end.
	preemptEvery = 100 * time.Millisecond
)

// errPreempted is why a fetch was ended.
var errPreempted = errors.New("it took too long while the charts of others were waiting to be fetched")

// tenant is who a fetch is for: the namespace of the Flux source, and the host that it leads to, "" for source-controller.
type tenant struct{ namespace, host string }

// slots bound the fetches that run concurrently, in all, for each namespace and for each host, so that one tenant's slow
// sources do not delay another's. A free slot goes to the tenant with the fewest. When there is none for a tenant that has
// none at all, the fetch that has run longest of the tenant with the most is ended: several tenants together cannot keep all
// slots. They are safe for concurrent use.
type slots struct {
	total, share int

	mu      sync.Mutex
	used    int
	running map[string]int // by the namespace and by the host of tenants
	waiting []*waiter      // in order of arrival
	held    map[*slot]struct{}
}

type waiter struct {
	tenant tenant
	ready  chan struct{} // closed with the mutex held
}

// newSlots returns slots, of which one namespace and one host have at most a share.
func newSlots(total, share int) *slots {
	return &slots{total: total, share: share, running: map[string]int{}, held: map[*slot]struct{}{}}
}

func (t tenant) keys() []string {
	keys := []string{"namespace " + t.namespace}
	if t.host != "" {
		keys = append(keys, "host "+t.host)
	}
	return keys
}

// acquire waits for a slot until ctx ends. The fetch is ended by cancel when another one needs the slot more.
func (s *slots) acquire(ctx context.Context, t tenant, cancel context.CancelCauseFunc) (*slot, error) {
	x := &slot{slots: s, tenant: t, cancel: cancel, since: time.Now()}
	return x, x.begin(ctx)
}

// begin waits for the slot until ctx ends.
func (x *slot) begin(ctx context.Context) error {
	s := x.slots
	w := &waiter{x.tenant, make(chan struct{})}
	s.mu.Lock()
	s.waiting = append(s.waiting, w)
	s.assign()
	s.mu.Unlock()
	look := time.NewTicker(preemptEvery)
	defer look.Stop()
	var preempted time.Time // one at a time: it needs a moment to notice
	for {
		select {
		case <-w.ready:
		case <-look.C:
			if time.Since(preempted) > shareAfter && s.preempt(x.tenant) {
				preempted = time.Now()
			}
			continue
		case <-ctx.Done():
			s.mu.Lock()
			select {
			case <-w.ready: // in the meantime
			default:
				s.waiting = slices.DeleteFunc(s.waiting, func(other *waiter) bool { return other == w })
				s.mu.Unlock()
				return ctx.Err()
			}
			s.mu.Unlock()
		}
		s.mu.Lock()
		s.held[x] = struct{}{}
		s.mu.Unlock()
		x.has = true
		return nil
	}
}

// preempt ends a fetch for a tenant that waits and has none, if all slots are used: of the tenant with the most, the one that
// has had its slot for longest. It keeps the slot until it notices. Without a limit for tenants there is nothing to share.
func (s *slots) preempt(t tenant) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.share >= s.total || s.used < s.total || s.most(t) > 0 {
		return false
	}
	var victim *slot
	for x := range s.held {
		n := s.most(x.tenant)
		if d := time.Since(x.since); x.preempted || d < shareAfter || n == 1 && d < yieldAfter {
			continue
		}
		if victim == nil || n > s.most(victim.tenant) || n == s.most(victim.tenant) && x.since.Before(victim.since) {
			victim = x
		}
	}
	if victim == nil {
		return false
	}
	victim.preempted = true
	victim.cancel(errPreempted)
	return true
}

// most returns the number of slots of a tenant's namespace, or of its host if that has more. The mutex is held.
func (s *slots) most(t tenant) int {
	n := 0
	for _, k := range t.keys() {
		n = max(n, s.running[k])
	}
	return n
}

// release gives a slot back.
func (s *slots) release(x *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, x)
	s.used--
	for _, k := range x.tenant.keys() {
		if s.running[k]--; s.running[k] == 0 {
			delete(s.running, k)
		}
	}
	s.assign()
}

// assign gives free slots to waiting fetches. The mutex is held.
func (s *slots) assign() {
	for s.used < s.total {
		next, least := -1, 0
		for i, w := range s.waiting {
			n := 0
			for _, k := range w.tenant.keys() {
				n += s.running[k]
			}
			if s.most(w.tenant) < s.share && (next < 0 || n < least) {
				next, least = i, n
			}
		}
		if next < 0 {
			return
		}
		w := s.waiting[next]
		s.waiting = slices.Delete(s.waiting, next, next+1)
		s.used++
		for _, k := range w.tenant.keys() {
			s.running[k]++
		}
		close(w.ready)
	}
}

type slotKey struct{}

// slot is the slot of one fetch. It is used by the fetch's goroutine only, but for what the mutex of slots protects.
type slot struct {
	slots  *slots
	tenant tenant
	cancel context.CancelCauseFunc
	since  time.Time
	has    bool
	// preempted is protected by the mutex.
	preempted bool
}

// end gives the slot back.
func (x *slot) end() {
	if x.has {
		x.has = false
		x.slots.release(x)
	}
}

// withoutSlot waits for something else without the slot that ctx has, and takes one again after it.
func withoutSlot(ctx context.Context, wait func() error) error {
	x, ok := ctx.Value(slotKey{}).(*slot)
	if !ok {
		return wait()
	}
	x.end()
	if err := wait(); err != nil {
		return err
	}
	return x.begin(ctx)
}
