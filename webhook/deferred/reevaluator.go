// Package deferred does the work that no review waits for: it evaluates releases again whose chart was not read in time
// for their review, and prefetches charts.
package deferred

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/validators"
)

const (
	// evaluationTimeout limits one deferred evaluation or prefetch, which waits for a chart.
	evaluationTimeout = 90 * time.Second
	// maxQueued limits the requests that wait for their deferred evaluation.
	maxQueued = 256
	// workers is the number of concurrent evaluations.
	workers = 4
)

// Policy evaluates requests; *policy.Policy implements it.
type Policy interface {
	Evaluate(ctx context.Context, r validators.Request, l validators.Lookup) policy.Decision
}

// Outcome is how a deferred evaluation of a rule ended; it is a metric label.
type Outcome string

// The outcomes.
const (
	Valid   Outcome = "valid"   // no findings
	Invalid Outcome = "invalid" // findings
	Unknown Outcome = "unknown" // inconclusive again, or failed
)

// Memory is the memory of a request. budget.Evaluation implements it.
type Memory interface {
	// Begin is called when the evaluation begins.
	Begin(deadline time.Time)
	// Overdue is called when the evaluation still runs at its deadline. One that does not end makes the liveness check fail.
	Overdue()
	// End gives the memory back.
	End()
}

// freeMemory is that of a Reevaluator without a limit.
type freeMemory struct{}

func (freeMemory) Begin(time.Time) {}
func (freeMemory) Overdue()        {}
func (freeMemory) End()            {}

// A Reevaluator evaluates requests again whose review could not wait for a chart. The result is only logged and
// counted: the API server has its response already. It is a manager.Runnable.
type Reevaluator struct {
	// Policy returns the policy in force; nil before the first one is loaded.
	Policy func() Policy
	Lookup validators.Lookup
	// Reserve takes memory for a request of some bytes; it returns nil if there is none. It may be nil: then there is always
	// some.
	Reserve func(bytes int64) Memory
	// Observe receives the outcome for each rule; it may be nil.
	Observe func(rule string, o Outcome)
	Log     logr.Logger

	once   sync.Once
	queue  workqueue.TypedInterface[object]
	mu     sync.Mutex
	queued map[object]pending
}

// object identifies the object of a request. Of several requests for one object, the last is evaluated.
type object struct {
	gk  schema.GroupKind
	key types.NamespacedName
}

// pending is a request to evaluate again.
type pending struct {
	request validators.Request
	// rules are the names of the rules that were inconclusive.
	rules  map[string]bool
	memory Memory
}

func (e *Reevaluator) init() {
	e.once.Do(func() {
		e.queue = workqueue.NewTyped[object]()
		e.queued = map[object]pending{}
	})
}

// Enqueue enqueues a request whose decision is inconclusive because a chart is still being read; it ignores any other.
// It returns at once, and drops the request if the queue or its memory is full. Size is the estimated memory of the request, in
// bytes.
func (e *Reevaluator) Enqueue(r validators.Request, size int64, d policy.Decision) {
	rules := map[string]bool{}
	for _, u := range d.Unknown {
		if _, ok := errors.AsType[*validators.Pending](u.Cause); ok {
			rules[u.Rule.Name] = true
		}
	}
	if len(rules) == 0 {
		return
	}
	e.init()
	o := object{r.Object.GroupVersionKind().GroupKind(), client.ObjectKeyFromObject(r.Object)}
	e.mu.Lock()
	old, replaces := e.queued[o]
	if replaces {
		old.memory.End()
		delete(e.queued, o)
	}
	var memory Memory
	if len(e.queued) < maxQueued {
		memory = e.reserve(size)
	}
	if memory != nil {
		e.queued[o] = pending{r, rules, memory}
	}
	e.mu.Unlock()
	if memory == nil {
		e.Log.V(1).Info("Deferred evaluation queue is full; dropping release", "helmRelease", o.key.String())
		return
	}
	e.queue.Add(o)
}

func (e *Reevaluator) reserve(size int64) Memory {
	if e.Reserve == nil {
		return freeMemory{}
	}
	return e.Reserve(size)
}

// Start implements manager.Runnable: it evaluates enqueued requests until ctx ends.
func (e *Reevaluator) Start(ctx context.Context) error {
	e.init()
	work(ctx, workers, e.queue, func(o object) {
		e.mu.Lock()
		p, ok := e.queued[o]
		delete(e.queued, o)
		e.mu.Unlock()
		if !ok {
			return
		}
		if ctx.Err() != nil {
			p.memory.End()
			return
		}
		e.evaluate(ctx, p)
	})
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica evaluates the requests that it has
// reviewed.
func (e *Reevaluator) NeedLeaderElection() bool { return false }

// evaluate evaluates a request again, and gives its memory back when no rule uses it any longer.
func (e *Reevaluator) evaluate(ctx context.Context, p pending) {
	inForce := e.Policy()
	if inForce == nil {
		p.memory.End()
		return
	}
	ctx, cancel := context.WithTimeout(ctx, evaluationTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	p.memory.Begin(deadline)
	stop := context.AfterFunc(ctx, p.memory.Overdue)
	var running <-chan struct{}
	overrun := validators.WithOverrun(ctx, func(ended <-chan struct{}) { running = ended })
	d := inForce.Evaluate(chartsource.WithBudget(overrun, evaluationTimeout), p.request, e.Lookup)
	stop()
	if running == nil {
		p.memory.End()
	} else {
		p.memory.Overdue()
		go func() {
			<-running
			p.memory.End()
		}()
	}
	if ctx.Err() != nil && len(d.Deny)+len(d.Warn)+len(d.Audit) == 0 {
		return // shutdown, or the chart was not read within the timeout
	}
	outcomes := map[string]Outcome{}
	var findings, unknown []string
	for rule := range p.rules {
		outcomes[rule] = Valid
	}
	for _, list := range [][]policy.NotEvaluated{d.Unknown, d.Errors} {
		for _, u := range list {
			if p.rules[u.Rule.Name] {
				outcomes[u.Rule.Name] = Unknown
				unknown = append(unknown, u.Rule.ID+": "+u.Reason)
			}
		}
	}
	for _, list := range [][]*validators.Finding{d.Deny, d.Warn, d.Audit} {
		for _, f := range list {
			if p.rules[f.Rule.Name] {
				outcomes[f.Rule.Name] = Invalid
				findings = append(findings, f.Rule.ID+" "+f.Path.String()+": "+f.Message)
			}
		}
	}
	if e.Observe != nil {
		for rule, o := range outcomes {
			e.Observe(rule, o)
		}
	}
	e.Log.Info("Evaluated release after its review", "helmRelease", klog.KObj(p.request.Object).String(),
		"outcome", string(worst(outcomes)), "findings", findings, "unknown", unknown)
}

// worst returns Invalid if any outcome is Invalid, else Unknown if any is Unknown.
func worst(outcomes map[string]Outcome) Outcome {
	out := Valid
	for _, o := range outcomes {
		if o == Invalid || o == Unknown && out == Valid {
			out = o
		}
	}
	return out
}

// work processes the queue with several workers until ctx ends, and returns when they are done.
func work[T comparable](ctx context.Context, workers int, queue workqueue.TypedInterface[T], process func(T)) {
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for {
				item, stopped := queue.Get()
				if stopped {
					return
				}
				process(item)
				queue.Done(item)
			}
		})
	}
	<-ctx.Done()
	queue.ShutDown()
	running.Wait()
}
