package deferred

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

var meta = &validators.Meta{ID: "HR001", Name: "helm-values-schema"}

// fixedPolicy has the same decision for every request.
type fixedPolicy policy.Decision

func (p fixedPolicy) Evaluate(context.Context, validators.Request, validators.Lookup) policy.Decision {
	return policy.Decision(p)
}

func request(name string) validators.Request {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease"}}
	o.SetName(name)
	return validators.Request{Operation: validators.Create, Object: o}
}

func undecided(cause error) policy.Decision {
	return policy.Decision{Unknown: []policy.NotEvaluated{{Rule: meta, Reason: cause.Error(), Cause: cause}}}
}

func TestReevaluator(t *testing.T) {
	pending := undecided(fmt.Errorf("the chart: %w", &validators.Pending{Text: "it is being read"}))
	for name, tc := range map[string]struct {
		first, later policy.Decision
		want         map[string]Outcome
	}{
		"the values turn out to be valid": {pending, policy.Decision{}, map[string]Outcome{"helm-values-schema": Valid}},
		"the values turn out to be invalid": {
			pending, policy.Decision{Deny: []*validators.Finding{{Rule: meta, Diagnostic: validators.Diagnostic{Message: "no"}}}}, map[string]Outcome{"helm-values-schema": Invalid},
		},
		"the chart cannot be read": {pending, undecided(errors.New("401")), map[string]Outcome{"helm-values-schema": Unknown}},
		"a rule that is unknown for another reason is not evaluated again": {undecided(errors.New("no permission")), policy.Decision{}, map[string]Outcome{}},
	} {
		t.Run(name, func(t *testing.T) {
			got := map[string]Outcome{}
			var mu sync.Mutex
			seen := make(chan struct{}, 1)
			j := &Reevaluator{
				Policy: func() Policy { return fixedPolicy(tc.later) }, Lookup: &lookup.Memory{}, Log: logr.Discard(),
				Observe: func(rule string, o Outcome) {
					mu.Lock()
					got[rule] = o
					mu.Unlock()
					seen <- struct{}{}
				},
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- j.Start(ctx) }()
			j.Enqueue(request("web"), 1, tc.first)
			if len(tc.want) > 0 {
				<-seen
			}
			cancel()
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("outcomes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReevaluator_QueueIsLimited(t *testing.T) {
	j := &Reevaluator{Policy: func() Policy { return nil }, Lookup: &lookup.Memory{}, Log: logr.Discard()}
	d := undecided(&validators.Pending{Text: "it is being read"})
	for i := range 2 * maxQueued {
		j.Enqueue(request(fmt.Sprint("web-", i)), 1, d)
		j.Enqueue(request("web-0"), 1, d)
	}
	if n := len(j.queued); n != maxQueued {
		t.Errorf("%d requests are queued; want %d", n, maxQueued)
	}
}

// TestReevaluator_MemoryIsLimited has memory for three requests.
func TestReevaluator_MemoryIsLimited(t *testing.T) {
	var free atomic.Int64
	free.Store(30)
	done := make(chan struct{}, 10)
	j := &Reevaluator{
		Policy: func() Policy { done <- struct{}{}; return nil }, Lookup: &lookup.Memory{}, Log: logr.Discard(),
		Reserve: func(bytes int64) Memory {
			if free.Load() < bytes {
				return nil
			}
			free.Add(-bytes)
			return &memory{end: func() { free.Add(bytes) }}
		},
	}
	d := undecided(&validators.Pending{Text: "it is being read"})
	for i := range 5 {
		j.Enqueue(request(fmt.Sprint("web-", i)), 10, d)
		j.Enqueue(request("web-0"), 10, d)
	}
	if n := len(j.queued); n != 3 || free.Load() != 0 {
		t.Errorf("%d requests are queued, %d bytes free; want 3 and none", n, free.Load())
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- j.Start(ctx) }()
	for range 3 {
		<-done
	}
	cancel()
	if err := <-ended; err != nil || free.Load() != 30 {
		t.Errorf("%v, %d bytes free; want all of them", err, free.Load())
	}
}

// memory records what an evaluation does with its memory.
type memory struct {
	mu             sync.Mutex
	deadline       time.Time
	overdue, ended bool
	end            func()
	// becameOverdue is closed by the first call of Overdue; it may be nil.
	becameOverdue chan struct{}
}

func (m *memory) Begin(deadline time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deadline = deadline
}

func (m *memory) Overdue() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.becameOverdue != nil && !m.overdue {
		close(m.becameOverdue)
	}
	m.overdue = true
}

func (m *memory) End() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended = true; m.end != nil {
		m.end()
	}
}

// stuck is a policy whose rule ignores its deadline.
type stuck chan struct{}

func (s stuck) Evaluate(ctx context.Context, r validators.Request, l validators.Lookup) policy.Decision {
	suite, err := validators.NewSuite(&validators.Rule{
		Meta: validators.Meta{
			ID: "HR001", Name: "helm-values-schema", Severity: validators.SeverityError, Stages: validators.StageAdmission, Defaults: validators.Defaults{Admission: v1alpha1.ActionDeny},
			Scope: validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}}, Reads: []schema.GroupKind{flux.HelmRepository},
			Doc: validators.Doc{Title: "It does not end", Why: "A test.", Fix: "None.", Since: "v0.1.0"},
		},
		Check: func(context.Context, *validators.Pass) error {
			<-s
			return nil
		},
	})
	if err != nil {
		panic(err)
	}
	suite.Evaluate(ctx, r, l)
	return policy.Decision{}
}

// TestReevaluator_StuckEvaluationKeepsItsMemory has a rule that ends long after its deadline.
func TestReevaluator_StuckEvaluationKeepsItsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(stuck)
		m := &memory{becameOverdue: make(chan struct{})}
		e := &Reevaluator{
			Policy: func() Policy { return end }, Lookup: &lookup.Memory{}, Log: logr.Discard(),
			Reserve: func(int64) Memory { return m },
		}
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error)
		go func() { stopped <- e.Start(ctx) }()
		began := time.Now()
		e.Enqueue(request("web"), 1, undecided(&validators.Pending{Text: "it is being read"}))
		<-m.becameOverdue
		synctest.Wait()
		m.mu.Lock()
		if m.ended || !m.deadline.Equal(began.Add(evaluationTimeout)) {
			t.Errorf("ended %v, deadline %s", m.ended, m.deadline)
		}
		m.mu.Unlock()
		close(end)
		synctest.Wait()
		m.mu.Lock()
		if !m.ended {
			t.Error("it still has its memory")
		}
		m.mu.Unlock()
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// requested receives the names of the releases whose chart is resolved.
type requested chan string

func (c requested) Resolve(_ context.Context, _ validators.Lookup, ref validators.ChartRef) (validators.Chart, validators.Presence, error) {
	c <- ref.ReleaseName
	return nil, validators.Unknown, errors.New("no chart")
}

func TestPrefetcher(t *testing.T) {
	object := func(kind, name string, generation int64, revision string, spec map[string]any) *unstructured.Unstructured {
		o := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": kind, "spec": spec,
			"status": map[string]any{"artifact": map[string]any{"revision": revision}},
		}}
		if kind != "HelmRelease" {
			o.SetAPIVersion("source.toolkit.fluxcd.io/v1")
		}
		o.SetNamespace("apps")
		o.SetName(name)
		o.SetGeneration(generation)
		return o
	}
	web := map[string]any{
		"chart": map[string]any{"spec": map[string]any{"chart": "web", "sourceRef": map[string]any{"kind": "HelmRepository", "name": "charts"}}},
	}
	release := object("HelmRelease", "web", 1, "", web)
	other := object("HelmRelease", "other", 1, "", map[string]any{"chartRef": map[string]any{"kind": "OCIRepository", "name": "other"}})
	resolved := make(requested, 10)
	memory := lookup.NewMemory(release, other)
	memory.Charts = resolved
	var full atomic.Bool
	w := &Prefetcher{Lookup: memory, Full: full.Load, Log: logr.Discard()}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.Start(ctx) }()
	want := func(name, why string) {
		t.Helper()
		if got := <-resolved; got != name {
			t.Errorf("the chart of %s was resolved; want %s", got, why)
		}
	}
	old, renewed := object("HelmRepository", "charts", 1, "one", nil), object("HelmRepository", "charts", 1, "two", nil)
	w.Changed(flux.HelmRepository, nil, old)      // there is an event for each release
	w.Changed(flux.HelmRelease, release, release) // a resync
	w.Changed(flux.HelmRelease, nil, release)
	want("web", "that of the first release")
	for i := range 5000 {
		w.Changed(flux.HelmRelease, nil, object("HelmRelease", fmt.Sprintf("web%d", i), 1, "", web))
	}
	w.Changed(flux.HelmRelease, release, object("HelmRelease", "web", 2, "", web)) // other values
	w.Changed(flux.HelmRelease, nil, other)
	want("other", "that of the other chart, after 5,000 releases of one chart")
	w.Changed(flux.HelmRepository, old, renewed)
	want("web", "that whose source changed")
	chart := func(revision string) *unstructured.Unstructured {
		o := object("HelmChart", "apps-web", 1, revision, nil)
		o.SetLabels(map[string]string{"helm.toolkit.fluxcd.io/name": "web", "helm.toolkit.fluxcd.io/namespace": "apps"})
		return o
	}
	w.Changed(flux.HelmChart, chart("one"), chart("two"))
	want("web", "that of the HelmChart that changed")
	full.Store(true)
	w.Changed(flux.HelmRepository, renewed, old)
	w.Changed(flux.HelmRelease, nil, object("HelmRelease", "third", 1, "", map[string]any{"chartRef": map[string]any{"kind": "OCIRepository", "name": "third"}}))
	for w.queue.Len() > 0 {
		<-time.After(time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if len(resolved) != 0 {
		t.Errorf("%d more charts were resolved", len(resolved))
	}
}
