package chartsource

import (
	"context"
	"slices"
	"sync"
)

// tenant is who a fetch is for: the namespace of the Flux source, and the host that it leads to, "" for source-controller.
type tenant struct{ namespace, host string }

// slots bound the fetches that run concurrently, in all, for each namespace and for each host, so that one tenant's slow
// sources do not delay another's. A free slot goes to the tenant with the fewest. They are safe for concurrent use.
type slots struct {
	total, share int

	mu      sync.Mutex
	used    int
	running map[string]int // by the namespace and by the host of tenants
	waiting []*waiter      // in order of arrival
}

type waiter struct {
	tenant tenant
	ready  chan struct{} // closed with the mutex held
}

// newSlots returns slots, of which one namespace and one host have at most a share.
func newSlots(total, share int) *slots {
	return &slots{total: total, share: share, running: map[string]int{}}
}

func (t tenant) keys() []string {
	keys := []string{"namespace " + t.namespace}
	if t.host != "" {
		keys = append(keys, "host "+t.host)
	}
	return keys
}

// acquire waits for a slot until ctx ends.
func (s *slots) acquire(ctx context.Context, t tenant) error {
	w := &waiter{t, make(chan struct{})}
	s.mu.Lock()
	s.waiting = append(s.waiting, w)
	s.assign()
	s.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-w.ready: // in the meantime
		return nil
	default:
	}
	s.waiting = slices.DeleteFunc(s.waiting, func(x *waiter) bool { return x == w })
	return ctx.Err()
}

// release gives a slot back.
func (s *slots) release(t tenant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used--
	for _, k := range t.keys() {
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
			n, most := 0, 0
			for _, k := range w.tenant.keys() {
				n += s.running[k]
				most = max(most, s.running[k])
			}
			if most < s.share && (next < 0 || n < least) {
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

// slot is the slot of one fetch. It is used by the fetch's goroutine only.
type slot struct {
	slots  *slots
	tenant tenant
	held   bool
}

// end gives the slot back.
func (s *slot) end() {
	if s.held {
		s.held = false
		s.slots.release(s.tenant)
	}
}

// withoutSlot waits for something else without the slot that ctx has, and takes one again after it.
func withoutSlot(ctx context.Context, wait func() error) error {
	s, ok := ctx.Value(slotKey{}).(*slot)
	if !ok {
		return wait()
	}
	s.end()
	if err := wait(); err != nil {
		return err
	}
	if err := s.slots.acquire(ctx, s.tenant); err != nil {
		return err
	}
	s.held = true
	return nil
}
