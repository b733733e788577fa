package chartsource

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/flux-admission/flux-admission/internal/chartsource/repository"
)

// The limits of the cached indexes.
const (
	maxIndexes      = 64
	maxIndexesBytes = 16 << 20
)

// indexes caches the indexes of Helm repositories, so that many charts of one repository cost one download. It is safe
// for concurrent use.
type indexes struct {
	ttl   time.Duration
	clock func() time.Time

	mu    sync.Mutex
	items map[string]timedIndex
	bytes int64 // of the items
	calls map[string]*indexCall
}

// indexCall is an index that is being read.
type indexCall struct {
	done  chan struct{} // closed when the others are set
	index *repository.Index
	err   error
}

type timedIndex struct {
	index   *repository.Index
	expires time.Time
}

// newIndexes returns a cache for charts with a time to live. An index expires before the charts that were selected from
// it: otherwise they would be selected from the same index again.
func newIndexes(chartTTL time.Duration, clock func() time.Time) *indexes {
	return &indexes{ttl: chartTTL / 2, clock: clock, items: map[string]timedIndex{}, calls: map[string]*indexCall{}}
}

// get returns the index of a repository that covers a chart, and reads it unless it is cached. Concurrent calls for the
// same key share one read, or read one after the other when each needs another part; those that wait hold no slot.
func (x *indexes) get(
	ctx context.Context, key, chart string, read func() (*repository.Index, error),
) (*repository.Index, error) {
	for {
		index, err := x.getOnce(ctx, key, chart, read)
		if err != nil || index.Covers(chart) {
			return index, err
		}
	}
}

// getOnce returns a cached index that covers a chart, or the result of one read, which may be for another chart.
func (x *indexes) getOnce(
	ctx context.Context, key, chart string, read func() (*repository.Index, error),
) (*repository.Index, error) {
	x.mu.Lock()
	for _, k := range []string{key, join(key, chart)} {
		if index := x.cached(k); index != nil && index.Covers(chart) {
			x.mu.Unlock()
			return index, nil
		}
	}
	call := x.calls[key]
	if call != nil {
		x.mu.Unlock()
		var index *repository.Index // the call's own may be written as long as it is not done
		err := withoutSlot(ctx, func() error {
			select {
			case <-call.done:
				index = call.index
				return call.err
			case <-ctx.Done():
				return fmt.Errorf("waiting for the index: %w", ctx.Err())
			}
		})
		return index, err
	}
	call = &indexCall{done: make(chan struct{}), err: errors.New("reading the index panicked")}
	x.calls[key] = call
	x.mu.Unlock()
	defer func() {
		x.mu.Lock()
		switch {
		case call.err != nil:
		case call.index.Partial():
			x.put(join(key, chart), call.index)
		default:
			x.put(key, call.index)
		}
		delete(x.calls, key)
		x.mu.Unlock()
		close(call.done)
	}()
	call.index, call.err = read()
	return call.index, call.err
}

// cached returns the cached index of a repository; nil when there is none. The mutex is held.
func (x *indexes) cached(key string) *repository.Index {
	if t := x.items[key]; t.index != nil && x.clock().Before(t.expires) {
		return t.index
	}
	return nil
}

// put caches an index. The mutex is held.
func (x *indexes) put(key string, index *repository.Index) {
	now := x.clock()
	x.remove(key)
	full := func() bool { return len(x.items) >= maxIndexes || x.bytes+index.Memory() > maxIndexesBytes }
	if full() {
		for k, t := range x.items {
			if !now.Before(t.expires) {
				x.remove(k)
			}
		}
	}
	for k := range x.items {
		if !full() {
			break
		}
		x.remove(k)
	}
	x.items[key] = timedIndex{index, now.Add(x.ttl)}
	x.bytes += index.Memory()
}

// remove removes an index from the cache. The mutex is held.
func (x *indexes) remove(key string) {
	if t, ok := x.items[key]; ok {
		x.bytes -= t.index.Memory()
		delete(x.items, key)
	}
}
