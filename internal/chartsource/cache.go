package chartsource

import (
	"container/list"
	"sync"
)

// cache holds charts by digest, the least recently used first to go, bounded by the memory they take. It is safe for concurrent use.
type cache struct {
	mu    sync.Mutex
	limit int64
	bytes int64
	order *list.List // of *cached, most recently used first
	items map[string]*list.Element
}

type cached struct {
	key   string
	chart *Chart
}

func newCache(limit int64) *cache {
	return &cache{limit: limit, order: list.New(), items: map[string]*list.Element{}}
}

func (c *cache) get(key string) *Chart {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[key]
	if !ok {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).chart
}

// put adds a chart. One that is larger than the whole cache is kept alone: its release is reviewed like any other.
func (c *cache) put(key string, chart *Chart) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.items[key]; ok {
		c.bytes -= e.Value.(*cached).chart.Bytes()
		c.order.Remove(e)
	}
	c.items[key] = c.order.PushFront(&cached{key, chart})
	c.bytes += chart.Bytes()
	for c.bytes > c.limit && c.order.Len() > 1 {
		last := c.order.Back()
		old := last.Value.(*cached)
		c.order.Remove(last)
		delete(c.items, old.key)
		c.bytes -= old.chart.Bytes()
	}
}

// size returns the number of charts and the memory they take.
func (c *cache) size() (charts int, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.order.Len(), c.bytes
}
