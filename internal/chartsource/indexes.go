package chartsource

import (
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/flux-admission/flux-admission/internal/chartsource/repository"
)

// maxIndexes bounds the repositories whose index is cached.
const maxIndexes = 64

// indexes caches the indexes of Helm repositories, so that many charts of one repository cost one download. It is safe
// for concurrent use.
type indexes struct {
	ttl   time.Duration
	clock func() time.Time
	calls singleflight.Group

	mu    sync.Mutex
	items map[string]timedIndex
}

type timedIndex struct {
	index   *repository.Index
	expires time.Time
}

// newIndexes returns a cache for charts with a time to live. An index expires before the charts that were selected from
// it: otherwise they would be selected from the same index again.
func newIndexes(chartTTL time.Duration, clock func() time.Time) *indexes {
	return &indexes{ttl: chartTTL / 2, clock: clock, items: map[string]timedIndex{}}
}

// get returns the index of a repository, and reads it unless it is cached. Concurrent calls for the same key share one
// read.
func (x *indexes) get(key string, read func() (*repository.Index, error)) (*repository.Index, error) {
	v, err, _ := x.calls.Do(key, func() (any, error) {
		if index := x.cached(key); index != nil {
			return index, nil
		}
		index, err := read()
		if err != nil {
			return nil, err
		}
		x.put(key, index)
		return index, nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*repository.Index), nil
}

func (x *indexes) cached(key string) *repository.Index {
	x.mu.Lock()
	defer x.mu.Unlock()
	if t := x.items[key]; t.index != nil && x.clock().Before(t.expires) {
		return t.index
	}
	return nil
}

func (x *indexes) put(key string, index *repository.Index) {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.clock()
	if len(x.items) >= maxIndexes {
		for k, t := range x.items {
			if !now.Before(t.expires) {
				delete(x.items, k)
			}
		}
	}
	for k := range x.items {
		if len(x.items) < maxIndexes {
			break
		}
		delete(x.items, k)
	}
	x.items[key] = timedIndex{index, now.Add(x.ttl)}
}
