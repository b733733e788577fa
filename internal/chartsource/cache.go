package chartsource

import (
	"container/list"
	"sync"

	"github.com/flux-admission/flux-admission/internal/helmchart"
)

// cachedChart is a chart with its key in the cache.
type cachedChart struct {
	key   string
	chart *helmchart.Chart
}

// cache is an LRU cache of charts, bounded by the memory that they take. It is safe for concurrent use.
type cache struct {
	mu    sync.Mutex
	limit int64
	bytes int64
	order *list.List // of *cachedChart, most recently used first
	items map[string]*list.Element
}

func newCache(limit int64) *cache {
	return &cache{limit: limit, order: list.New(), items: map[string]*list.Element{}}
}

// get returns a chart; nil when it is not cached.
func (c *cache) get(key string) *helmchart.Chart {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[key]
	if !ok {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cachedChart).chart
}

// put adds a chart, and evicts others if necessary. A chart larger than the limit is cached alone, so that reviews that
// need it do not fetch it every time.
func (c *cache) put(key string, chart *helmchart.Chart) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.items[key]; ok {
		c.remove(e)
	}
	c.items[key] = c.order.PushFront(&cachedChart{key, chart})
	c.bytes += chart.Memory()
	for c.bytes > c.limit && c.order.Len() > 1 {
		c.remove(c.order.Back())
	}
}

// remove removes an element. The mutex is held.
func (c *cache) remove(e *list.Element) {
	old := c.order.Remove(e).(*cachedChart)
	delete(c.items, old.key)
	c.bytes -= old.chart.Memory()
}

// size returns the number of charts and the memory that they take.
func (c *cache) size() (charts int, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.order.Len(), c.bytes
}
