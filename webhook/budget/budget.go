// Package budget limits the memory of concurrent requests. Small requests have a part of it that large ones cannot take,
// what does not arrive takes none, and an evaluation that runs past its deadline gives its share back.
package budget

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// Limits in bytes. Together with a full cache of charts they stay below the memory limit of the Deployment.
const (
	// MaxBody limits one request body. etcd stores no object above 1.5 MiB, and a review holds at most an object and its
	// old version, so that valid requests stay well below.
	MaxBody = 7 << 20
	// MaxEvaluation limits the estimated memory of the objects of one request.
	MaxEvaluation = largeEvaluations

	// smallBody is how much of a body is read into smallBodies; the rest is for large ones.
	smallBody   = 256 << 10
	smallBodies = 4 << 20
	// largeBodies is shared by large bodies. One more at a time may exceed it, up to MaxBody: it can be read to its end
	// whatever the others wait for.
	largeBodies = 4 << 20

	// smallEvaluation is the size up to which an evaluation uses smallEvaluations. A release with 39 KB of values has an
	// eighth of it.
	smallEvaluation  = 4 << 20
	smallEvaluations = 24 << 20
	largeEvaluations = 40 << 20
	// deferredEvaluations is for the requests that are evaluated again after their response.
	deferredEvaluations = 12 << 20

	// maxOverdue limits the evaluations that have given back their share and are still running, maxOverdueBytes their
	// memory. Further ones keep their share.
	maxOverdue      = 16
	maxOverdueBytes = 16 << 20
)

const (
	// overloadTime is how long small requests are refused before the server is not ready.
	overloadTime = 5 * time.Second
	// stuckFactor times the timeout of a request, but at least minStuck, is how long an evaluation may run past its
	// deadline before the process is restarted. A deferred one, whose timeout is far longer, has deferredStuck.
	stuckFactor   = 10
	minStuck      = 30 * time.Second
	deferredStuck = time.Minute
)

// ErrOverloaded is the error of a request for which there was no memory before its deadline.
var ErrOverloaded = errors.New("too many concurrent requests")

// Observer receives changes for metrics. Its methods must return at once.
type Observer interface {
	// AddMemory is called with a change of the memory of requests, in bytes.
	AddMemory(bytes int64)
	// AddOverdue is called with a change of the number of evaluations that run past their deadline.
	AddOverdue(evaluations int)
	// Overloaded is called when small requests begin or cease to be refused for lack of memory.
	Overloaded(yes bool)
}

// Budget is the memory of all requests. It is safe for concurrent use.
type Budget struct {
	observer Observer

	smallBodies, largeBodies, exclusiveBody, small, large, deferred *semaphore.Weighted

	mu           sync.Mutex
	refusedSince time.Time // zero unless small requests are refused
	overdue      map[*Evaluation]struct{}
	overdueCount int // of those that have given back their share
	overdueBytes int64
}

// New returns the budget of a process.
func New(o Observer) *Budget {
	return &Budget{
		observer:      o,
		smallBodies:   semaphore.NewWeighted(smallBodies),
		largeBodies:   semaphore.NewWeighted(largeBodies),
		exclusiveBody: semaphore.NewWeighted(1),
		small:         semaphore.NewWeighted(smallEvaluations),
		large:         semaphore.NewWeighted(largeEvaluations),
		deferred:      semaphore.NewWeighted(deferredEvaluations),
		overdue:       map[*Evaluation]struct{}{},
	}
}

// take waits for memory of a small request until ctx ends, and records whether there is too little. It reports whether it
// waited.
func (b *Budget) take(ctx context.Context, s *semaphore.Weighted, bytes int64) (waited bool, err error) {
	if s.TryAcquire(bytes) {
		b.served()
		return false, nil
	}
	if s.Acquire(ctx, bytes) == nil {
		return true, nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) { // and not because the client has gone
		b.mu.Lock()
		if b.refusedSince.IsZero() {
			b.refusedSince = time.Now()
			b.observer.Overloaded(true)
		}
		b.mu.Unlock()
	}
	return true, ErrOverloaded
}

// served records that a small request did not have to wait.
func (b *Budget) served() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.refusedSince.IsZero() {
		b.refusedSince = time.Time{}
		b.observer.Overloaded(false)
	}
}

// Ready returns an error while small requests have been refused for some seconds.
func (b *Budget) Ready() error {
	b.mu.Lock()
	since := b.refusedSince
	b.mu.Unlock()
	if since.IsZero() {
		return nil
	}
	// Without this, a server that no request is sent to because it is not ready would never be ready again.
	if b.smallBodies.TryAcquire(smallBody) {
		b.smallBodies.Release(smallBody)
		if b.small.TryAcquire(smallEvaluation) {
			b.small.Release(smallEvaluation)
			b.served()
			return nil
		}
	}
	if d := time.Since(since); d >= overloadTime {
		return fmt.Errorf("overloaded for %s: requests are refused for lack of memory", d.Round(time.Second))
	}
	return nil
}

// Live returns an error when an evaluation runs so long past its deadline that it will not end.
func (b *Budget) Live() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for e := range b.overdue {
		if late := time.Since(e.deadline); late > e.patience {
			return fmt.Errorf("an evaluation has been running for %s past its deadline", late.Round(time.Second))
		}
	}
	return nil
}

// Defer takes memory for an evaluation after the response, without waiting. It returns nil if there is none; else the
// caller calls Begin when the evaluation begins, and End.
func (b *Budget) Defer(bytes int64) *Evaluation {
	if !b.deferred.TryAcquire(bytes) {
		return nil
	}
	b.observer.AddMemory(bytes)
	return &Evaluation{b: b, from: b.deferred, bytes: bytes, patience: deferredStuck}
}

// Body is the memory of one request body. It is not safe for concurrent use.
type Body struct {
	b            *Budget
	small, large int64
	exclusive    bool
}

// Body returns the memory of a body of which nothing has arrived.
func (b *Budget) Body() *Body { return &Body{b: b} }

// Grow makes the memory at least that many bytes, at most MaxBody. It waits for it until ctx ends, and reports whether it
// did.
func (m *Body) Grow(ctx context.Context, bytes int64) (waited bool, err error) {
	if m.exclusive || bytes <= m.small+m.large {
		return false, nil
	}
	if bytes <= smallBody {
		more := bytes - m.small
		if waited, err = m.b.take(ctx, m.b.smallBodies, more); err != nil {
			return waited, err
		}
		m.small = bytes
		m.b.observer.AddMemory(more)
		return waited, nil
	}
	if m.b.largeBodies.TryAcquire(bytes - m.large) {
		m.b.observer.AddMemory(bytes - m.large - m.small)
		m.large = bytes
		m.releaseSmall()
		return false, nil
	}
	if m.b.exclusiveBody.Acquire(ctx, 1) != nil {
		return true, ErrOverloaded
	}
	m.b.observer.AddMemory(MaxBody - m.large - m.small)
	m.exclusive = true
	m.releaseSmall()
	m.b.largeBodies.Release(m.large)
	m.large = 0
	return true, nil
}

func (m *Body) releaseSmall() {
	m.b.smallBodies.Release(m.small)
	m.small = 0
}

// Release gives the memory back. It may be called more than once.
func (m *Body) Release() {
	bytes := m.small + m.large
	m.releaseSmall()
	m.b.largeBodies.Release(m.large)
	m.large = 0
	if m.exclusive {
		bytes += MaxBody
		m.b.exclusiveBody.Release(1)
		m.exclusive = false
	}
	m.b.observer.AddMemory(-bytes)
}

// Evaluation is the memory of the objects of one request, while they are evaluated. It is safe for concurrent use.
type Evaluation struct {
	b     *Budget
	from  *semaphore.Weighted
	bytes int64
	// patience is how long it may run past its deadline.
	patience time.Duration

	// The mutex of the Budget protects these.
	deadline                 time.Time
	overdue, released, ended bool
}

// Evaluate takes memory for an evaluation, at most MaxEvaluation. It waits for it until ctx ends. The deadline of ctx is
// that of the evaluation. The caller calls End.
func (b *Budget) Evaluate(ctx context.Context, bytes int64) (*Evaluation, error) {
	e := &Evaluation{b: b, from: b.large, bytes: bytes, patience: minStuck}
	if deadline, ok := ctx.Deadline(); ok {
		e.deadline, e.patience = deadline, max(minStuck, stuckFactor*time.Until(deadline))
	}
	switch {
	case bytes > smallEvaluation:
		if b.large.Acquire(ctx, bytes) != nil {
			return nil, ErrOverloaded
		}
	case b.small.TryAcquire(bytes):
		e.from = b.small
		b.served()
	case b.large.TryAcquire(bytes):
	default:
		if _, err := b.take(ctx, b.small, bytes); err != nil {
			return nil, err
		}
		e.from = b.small
	}
	b.observer.AddMemory(bytes)
	return e, nil
}

// Begin sets the deadline of an evaluation that Defer returned.
func (e *Evaluation) Begin(deadline time.Time) {
	e.b.mu.Lock()
	defer e.b.mu.Unlock()
	e.deadline = deadline
}

// Overdue is called when the deadline has passed and the evaluation is still running. It gives the share back, unless too
// many evaluations that are running have done so.
func (e *Evaluation) Overdue() {
	b := e.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.ended || e.overdue {
		return
	}
	e.overdue = true
	b.overdue[e] = struct{}{}
	b.observer.AddOverdue(1)
	if b.overdueCount < maxOverdue && b.overdueBytes+e.bytes <= maxOverdueBytes {
		e.released = true
		b.overdueCount++
		b.overdueBytes += e.bytes
		e.from.Release(e.bytes)
	}
}

// End gives back the memory. It may be called more than once.
func (e *Evaluation) End() {
	b := e.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.ended {
		return
	}
	e.ended = true
	b.observer.AddMemory(-e.bytes)
	if e.overdue {
		delete(b.overdue, e)
		b.observer.AddOverdue(-1)
	}
	if e.released {
		b.overdueCount--
		b.overdueBytes -= e.bytes
		return
	}
	e.from.Release(e.bytes)
}
