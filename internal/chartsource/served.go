package chartsource

import "sync"

// maxServed bounds the archives that are recorded.
const maxServed = 4096

// served records which archives a source has served with its own credentials. A digest in an index, a manifest or a
// status is only a claim: the chart of that digest in the cache may be another tenant's. It is safe for concurrent use.
type served struct {
	mu    sync.Mutex
	items map[string]struct{}
}

func newServed() *served { return &served{items: map[string]struct{}{}} }

func (s *served) has(source, key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.items[join(source, key)]
	return ok
}

func (s *served) put(source, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.items) >= maxServed {
		clear(s.items)
	}
	s.items[join(source, key)] = struct{}{}
}

// served returns a chart from the cache that a source has served before; nil when there is none.
func (l *loader) served(source, key string) *cachedChart {
	if !l.archives.has(source, key) {
		return nil
	}
	return l.fromCache(key)
}

// serve records that a source has served a chart, and returns it.
func (l *loader) serve(source string, c *cachedChart, err error) (*cachedChart, error) {
	if err == nil {
		l.archives.put(source, c.key)
	}
	return c, err
}
