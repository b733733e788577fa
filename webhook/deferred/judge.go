// Package deferred does what no admission waits for: it judges releases whose chart came too late for their review, and has charts read before the first
// review needs them.
package deferred

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/validators"
)

const (
	// patience is how long the background waits for one chart.
	patience = 90 * time.Second
	// maxWaiting bounds the requests that are kept until they can be judged.
	maxWaiting = 256
	// workers is how many charts are waited for at a time.
	workers = 4
)

// Reviewer evaluates a request; *policy.Policy is one.
type Reviewer interface {
	Evaluate(ctx context.Context, r validators.Request, l validators.Lookup) policy.Decision
}

// Verdict is how a late judgement ended, for metrics: a small fixed set.
type Verdict string

// The verdicts.
const (
	Valid   Verdict = "valid"
	Invalid Verdict = "invalid"
	Unknown Verdict = "unknown"
)

// Reevaluator judges requests again whose review could not wait for a chart. The verdict goes to the log and to Observe: the answer was given long ago. It is a
// manager.Runnable.
type Reevaluator struct {
	// Policy returns the policy in force; nil before there is one.
	Policy func() Reviewer
	Lookup validators.Lookup
	// Observe is told each verdict; nil for nobody.
	Observe func(rule string, v Verdict)
	Log     logr.Logger

	once    sync.Once
	queue   workqueue.TypedInterface[subject]
	mu      sync.Mutex
	waiting map[subject]task
}

// subject is the object of a request. Of several requests about one, the last is judged.
type subject struct {
	gk  schema.GroupKind
	key types.NamespacedName
}

type task struct {
	request validators.Request
	// rules are the names of those that had no verdict.
	rules map[string]bool
}

func (j *Reevaluator) init() {
	j.once.Do(func() {
		j.queue = workqueue.NewTyped[subject]()
		j.waiting = map[subject]task{}
	})
}

// Later takes up a request whose review said that a chart is still being read; of others it takes no notice. It returns at once, and forgets the request when too
// many wait already.
func (j *Reevaluator) Later(r validators.Request, d policy.Decision) {
	rules := map[string]bool{}
	for _, u := range d.Unknown {
		if _, ok := errors.AsType[*validators.Pending](u.Cause); ok {
			rules[u.Rule.Name] = true
		}
	}
	if len(rules) == 0 {
		return
	}
	j.init()
	s := subject{r.Object.GroupVersionKind().GroupKind(), named(r.Object)}
	j.mu.Lock()
	_, there := j.waiting[s]
	full := !there && len(j.waiting) >= maxWaiting
	if !full {
		j.waiting[s] = task{r, rules}
	}
	j.mu.Unlock()
	if full {
		j.Log.V(1).Info("too many releases wait for their charts, this one is not judged later", "object", s.key.String())
		return
	}
	j.queue.Add(s)
}

// Start implements manager.Runnable: it judges until the context ends.
func (j *Reevaluator) Start(ctx context.Context) error {
	j.init()
	work(ctx, j.queue, func(s subject) {
		j.mu.Lock()
		t, ok := j.waiting[s]
		delete(j.waiting, s)
		j.mu.Unlock()
		if ok && ctx.Err() == nil {
			j.judge(ctx, t)
		}
	})
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica judges what it has reviewed.
func (j *Reevaluator) NeedLeaderElection() bool { return false }

func (j *Reevaluator) judge(ctx context.Context, t task) {
	p := j.Policy()
	if p == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	d := p.Evaluate(chartsource.WithBudget(ctx, patience), t.request, j.Lookup)
	if ctx.Err() != nil && len(d.Deny)+len(d.Warn)+len(d.Audit) == 0 {
		return // the process stops, or nothing came in all that time
	}
	verdicts := map[string]Verdict{}
	var found, reasons []string
	for rule := range t.rules {
		verdicts[rule] = Valid
	}
	for _, list := range [][]policy.NotEvaluated{d.Unknown, d.Errors} {
		for _, u := range list {
			if t.rules[u.Rule.Name] {
				verdicts[u.Rule.Name] = Unknown
				reasons = append(reasons, u.Rule.ID+": "+u.Reason)
			}
		}
	}
	for _, list := range [][]*validators.Finding{d.Deny, d.Warn, d.Audit} {
		for _, f := range list {
			if t.rules[f.Rule.Name] {
				verdicts[f.Rule.Name] = Invalid
				found = append(found, f.Rule.ID+" "+f.Path.String()+": "+f.Message)
			}
		}
	}
	for rule, v := range verdicts {
		if j.Observe != nil {
			j.Observe(rule, v)
		}
	}
	o := t.request.Object
	j.Log.Info("Judged a release after its review", "kind", o.GetKind(), "namespace", o.GetNamespace(), "name", o.GetName(), "verdict", string(worst(verdicts)),
		"findings", found, "unknown", reasons)
}

func worst(verdicts map[string]Verdict) Verdict {
	out := Valid
	for _, v := range verdicts {
		if v == Invalid || v == Unknown && out == Valid {
			out = v
		}
	}
	return out
}

// named is the key of an object.
func named(o *unstructured.Unstructured) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// work does what is queued, several at a time, until the context ends; then it waits for what is being done.
func work[T comparable](ctx context.Context, queue workqueue.TypedInterface[T], do func(T)) {
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for {
				item, stopped := queue.Get()
				if stopped {
					return
				}
				do(item)
				queue.Done(item)
			}
		})
	}
	<-ctx.Done()
	queue.ShutDown()
	running.Wait()
}
