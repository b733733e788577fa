package lookup

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

const (
	// refusalTime is how long a refusal of the API server counts. A permission that is granted takes effect after it.
	refusalTime = time.Minute
	// maxRefusals limits the refusals that are kept.
	maxRefusals = 4096
)

// refusals are the Secrets that the API server has refused to return, so that it is not sent the same request for every
// review. The permission may be limited to names, so each name counts apart.
type refusals struct {
	now func() time.Time // time.Now if nil

	mu    sync.Mutex
	until map[types.NamespacedName]time.Time
}

func (r *refusals) time() time.Time {
	if r.now == nil {
		return time.Now()
	}
	return r.now()
}

func (r *refusals) has(key types.NamespacedName) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.time().Before(r.until[key])
}

func (r *refusals) add(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.until == nil || len(r.until) >= maxRefusals {
		r.until = map[types.NamespacedName]time.Time{}
	}
	r.until[key] = r.time().Add(refusalTime)
}
