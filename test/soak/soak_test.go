package soak_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flux-admission/flux-admission/test/hostile"
)

// The phases, in this order.
const (
	quietPhase   = "quiet"
	attackPhase  = "attacked"
	faultsPhase  = "attacked, with faults"
	strictPhase  = "strict, attacked, with faults"
	settledPhase = "strict, quiet again"
)

var phases = []string{quietPhase, attackPhase, faultsPhase, strictPhase, settledPhase}

// share is the part of the time that each phase has, in percent.
var share = map[string]int{quietPhase: 15, attackPhase: 25, faultsPhase: 30, strictPhase: 25, settledPhase: 5}

const (
	burstSize = 500
	// settleTimeout is how long goroutines and memory have to fall again after the load. It is longer than the fetches and
	// deferred evaluations that the last attacks have left.
	settleTimeout = 3 * time.Minute
	// moreGoroutines is how many more than before the attacks there may be: idle connections of the API server among them.
	moreGoroutines = 60
	// moreMemory is how much more there may be: the cache of charts has 96 MiB, of which the quiet phase fills little.
	moreMemory = 112 << 20
)

func TestSoak(t *testing.T) {
	ctx := t.Context()
	c, err := newClient(shared.ControlPlane)
	if err != nil {
		t.Fatal(err)
	}
	s := &soak{client: c, writes: honestWrites()}
	host := newChartHost(shared.Charts.Config.Handler)
	shared.Charts.Config.Handler = host
	prepare(t, s)

	background, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	var kubelets []*kubelet
	for _, w := range shared.Webhooks {
		k := &kubelet{webhook: w}
		kubelets = append(kubelets, k)
		running.Go(func() { k.run(background) })
	}
	running.Go(func() { s.coldSources(background) })

	a := newAttacker(c)
	defer a.close()
	attacks := a.attacks()
	faults := s.faults(host, kubelets)
	nextFault := 0
	before := map[*kubelet]state{}
	for _, phase := range phases {
		length := duration * time.Duration(share[phase]) / 100
		t.Logf("%s: %s, for %s", time.Now().Format(time.TimeOnly), phase, length)
		if phase == strictPhase {
			if err := retried(ctx, func(ctx context.Context) error { return shared.InstallOverlay(ctx, "strict") }); err != nil {
				t.Fatal(err)
			}
			if err := strict(ctx); err != nil {
				t.Fatal(err)
			}
		}
		s.setPhase(phase)
		during, end := context.WithTimeout(ctx, length)
		var load sync.WaitGroup
		load.Go(func() { s.steady(during, perSecond) })
		if phase != quietPhase && phase != settledPhase {
			for range attackers {
				load.Go(func() { a.run(during, attacks) })
			}
			load.Go(func() {
				size := burstSize
				if short {
					size = burstSize / 5
				}
				for sleep(during, 2*time.Second); during.Err() == nil; sleep(during, 20*time.Second) {
					s.burst(during, size)
				}
			})
		}
		if phase == faultsPhase || phase == strictPhase {
			load.Go(func() {
				logged := func(format string, args ...any) {
					t.Logf("%s: %s", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
				}
				if err := s.fail(during, faults, &nextFault, logged); err != nil {
					t.Error(err)
				}
			})
		}
		load.Wait()
		end()
		if phase == quietPhase {
			for _, k := range kubelets {
				if before[k], err = k.state(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	after := settle(t, kubelets, before)
	stop()
	running.Wait()
	s.ledger.resolve(annotations(t))
	report(t, s, kubelets, before, after)
}

// prepare creates the namespaces and sources, and waits until every replica has read the chart.
func prepare(t *testing.T, s *soak) {
	t.Helper()
	for _, ns := range append([]string{team}, tenants...) {
		if err := shared.Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}); err != nil {
			t.Fatal(err)
		}
	}
	git := `apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 1h, url: "https://git.example.com/fleet.git"}
`
	for _, manifest := range []string{git, hostile.Repository(team, "charts", shared.Charts.URL), hostile.Repository(team, "cold-0", shared.Charts.URL), release(team, "stored", "charts", goodValues)} {
		if err := shared.Client.Create(t.Context(), parse(manifest)); err != nil {
			t.Fatal(err)
		}
	}
	for range 40 { // some for each replica
		s.write(t.Context(), s.writes[5], false)
	}
}

// annotations returns the audit annotations of all writes, by audit ID.
func annotations(t *testing.T) map[string]map[string]string {
	t.Helper()
	events, err := shared.ControlPlane.AuditEvents()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]map[string]string{}
	for _, e := range events {
		out[string(e.AuditID)] = e.Annotations
	}
	return out
}

// settle waits until the replicas use no more than before the attacks.
func settle(t *testing.T, kubelets []*kubelet, before map[*kubelet]state) map[*kubelet]state {
	t.Helper()
	after := map[*kubelet]state{}
	for end := time.Now().Add(settleTimeout); ; sleep(t.Context(), time.Second) {
		settled := true
		for _, k := range kubelets {
			now, err := k.state(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			after[k] = now
			settled = settled && now.goroutines <= before[k].goroutines+moreGoroutines && now.heap <= before[k].heap+moreMemory
		}
		if settled {
			return after
		}
		if time.Now().After(end) {
			t.Error("the replicas use more than before the attacks; see the table")
			return after
		}
	}
}

func report(t *testing.T, s *soak, kubelets []*kubelet, before, after map[*kubelet]state) {
	t.Helper()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "phase\tright\twrong\tundecided\tunavailable\topen\tp50\tp99\t")
	for _, p := range phases {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t\n", p, s.ledger.count(p, right), s.ledger.count(p, wrong), s.ledger.count(p, undecided),
			s.ledger.count(p, unavailable), s.ledger.count(p, open), s.ledger.percentile(p, 50).Round(100*time.Microsecond), s.ledger.percentile(p, 99).Round(100*time.Microsecond))
	}
	fmt.Fprintln(w, "\t\t\t\t\t\t\t\t")
	fmt.Fprintln(w, "replica\tstarts\tMiB before\tMiB after\theap before\theap after\tgoroutines before\tgoroutines after\t")
	for i, k := range kubelets {
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t%d\t%.0f\t%.0f\t\n", i, 1+k.restarts, before[k].rss>>20, after[k].rss>>20, before[k].heap>>20, after[k].heap>>20, before[k].goroutines, after[k].goroutines)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	writes, lost := s.ledger.totals()
	t.Logf("%d honest writes, %d without a verdict\n%s", writes, lost, b.String())
	for _, p := range s.ledger.problems() {
		t.Error(p)
	}
	for i, k := range kubelets {
		for _, p := range k.problems {
			t.Errorf("replica %d: %s", i, p)
		}
		if k.webhook.OutOfMemory() {
			t.Errorf("replica %d was killed for taking more than %d MiB", i, k.webhook.MemoryLimit()>>20)
		}
	}
	for _, p := range phases[:3] {
		if s.ledger.count(p, right) == 0 {
			t.Errorf("no honest write in the phase %q got its verdict", p)
		}
	}
}
