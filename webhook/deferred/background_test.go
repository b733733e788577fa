package deferred

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

var meta = &validators.Meta{ID: "HR001", Name: "helm-values-schema"}

// reviewer answers every review with the same decision.
type reviewer policy.Decision

func (r reviewer) Evaluate(context.Context, validators.Request, validators.Lookup) policy.Decision {
	return policy.Decision(r)
}

func request(name string) validators.Request {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease"}}
	o.SetName(name)
	return validators.Request{Operation: validators.Create, Object: o}
}

func undecided(cause error) policy.Decision {
	return policy.Decision{Unknown: []policy.NotEvaluated{{Rule: meta, Reason: cause.Error(), Cause: cause}}}
}

func TestALateVerdict(t *testing.T) {
	pending := undecided(fmt.Errorf("the chart: %w", &validators.Pending{Text: "it is being read"}))
	for name, tc := range map[string]struct {
		first, later policy.Decision
		want         map[string]Verdict
	}{
		"the values turn out to be valid": {pending, policy.Decision{}, map[string]Verdict{"helm-values-schema": Valid}},
		"the values turn out to be invalid": {
			pending, policy.Decision{Deny: []*validators.Finding{{Rule: meta, Message: "no"}}}, map[string]Verdict{"helm-values-schema": Invalid},
		},
		"there is still no verdict":                             {pending, undecided(errors.New("401")), map[string]Verdict{"helm-values-schema": Unknown}},
		"what is unknown for another reason is not asked again": {undecided(errors.New("no permission")), policy.Decision{}, map[string]Verdict{}},
	} {
		t.Run(name, func(t *testing.T) {
			got := map[string]Verdict{}
			var mu sync.Mutex
			seen := make(chan struct{}, 1)
			j := &Reevaluator{
				Policy: func() Reviewer { return reviewer(tc.later) }, Lookup: &lookup.Memory{}, Log: logr.Discard(),
				Observe: func(rule string, v Verdict) {
					mu.Lock()
					got[rule] = v
					mu.Unlock()
					seen <- struct{}{}
				},
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- j.Start(ctx) }()
			j.Later(request("web"), tc.first)
			if len(tc.want) > 0 {
				<-seen
			}
			cancel()
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("verdicts %v, want %v", got, tc.want)
			}
		})
	}
}

func TestWhatWaitsIsBounded(t *testing.T) {
	j := &Reevaluator{Policy: func() Reviewer { return nil }, Lookup: &lookup.Memory{}, Log: logr.Discard()}
	d := undecided(&validators.Pending{Text: "it is being read"})
	for i := range 2 * maxWaiting {
		j.Later(request(fmt.Sprint("web-", i)), d)
		j.Later(request("web-0"), d)
	}
	if n := len(j.waiting); n != maxWaiting {
		t.Errorf("%d requests wait, want %d", n, maxWaiting)
	}
}

// asking tells which charts are asked for.
type asking chan string

func (c asking) Resolve(_ context.Context, _ validators.Lookup, ref validators.ChartRef) (validators.Chart, validators.Presence, error) {
	c <- ref.ReleaseName
	return nil, validators.Unknown, errors.New("not here")
}

func TestWarming(t *testing.T) {
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
	release := object("HelmRelease", "web", 1, "", map[string]any{
		"chart": map[string]any{"spec": map[string]any{"chart": "web", "sourceRef": map[string]any{"kind": "HelmRepository", "name": "charts"}}},
	})
	other := object("HelmRelease", "other", 1, "", map[string]any{"chartRef": map[string]any{"kind": "OCIRepository", "name": "other"}})
	asked := make(asking, 10)
	memory := lookup.NewMemory(release, other)
	memory.Charts = asked
	w := &Prefetcher{Lookup: memory, Log: logr.Discard()}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.Start(ctx) }()
	old, renewed := object("HelmRepository", "charts", 1, "one", nil), object("HelmRepository", "charts", 1, "two", nil)
	w.Changed(flux.HelmRepository, nil, old)      // the releases come by themselves
	w.Changed(flux.HelmRelease, release, release) // a resync
	w.Changed(flux.HelmRelease, nil, other)
	if got := <-asked; got != "other" {
		t.Errorf("asked for the chart of %s, want that of the release that is new", got)
	}
	w.Changed(flux.HelmRepository, old, renewed)
	if got := <-asked; got != "web" {
		t.Errorf("asked for the chart of %s, want that of the release whose source changed", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if len(asked) != 0 {
		t.Errorf("%d more charts were asked for", len(asked))
	}
}
