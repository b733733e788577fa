package soak_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/hostile"
)

const (
	// perSecond is the rate of the steady load. The control plane and both replicas share the cores of the machine.
	perSecond = 15
	// verdictTimeout is how long an honest write is tried again when there is no verdict.
	verdictTimeout = 3 * time.Minute
	// retryEvery is the pause before it is tried again the first time; every pause is longer than the one before, up to
	// maxRetryEvery: clients that retry at once keep a server overloaded.
	retryEvery     = 500 * time.Millisecond
	maxRetryEvery  = 20 * time.Second
	requestTimeout = 30 * time.Second
)

// honest is one kind of honest write.
type honest struct {
	name string
	// rule is the ID of the rule that has to refuse it; empty if it has to be allowed.
	rule     string
	manifest func(s *soak, name string) string
	// stored is set for a write that is not a dry-run; it is deleted again.
	stored bool
	// cold is set when the chart is of a source that no review has read yet.
	cold bool
}

const (
	goodValues = "{data: {metadataConnection: {user: airflow}}}"
	badValues  = "{data: {metadataConnection: {existingSecret: db, existingSecretKey: uri}}}"
)

func release(ns, name, source, values string) string {
	return fmt.Sprintf(`apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: %s, namespace: %s}
spec:
  interval: 10m
  chart: {spec: {chart: airflow, version: 1.x, sourceRef: {kind: HelmRepository, name: %s}}}
  values: %s
`, name, ns, source, values)
}

// manyValues are values of 39 KB that the schema accepts.
func manyValues() string {
	var b strings.Builder
	b.WriteString("{data: {metadataConnection: {user: airflow}}, postgresql: {env: [")
	for i := range 600 {
		fmt.Fprintf(&b, "{name: VARIABLE_%04d, value: 'the value of the variable with number %04d'}, ", i, i)
	}
	b.WriteString("]}}")
	return b.String()
}

const monitoringPatch = `  patches:
    - target: {kind: Cluster, group: postgresql.cnpg.io}
      patch: |
        - op: add
          path: /spec/monitoring/enabled
          value: true
`

func honestWrites() []honest {
	large := manyValues()
	return []honest{
		{name: "Kustomization", manifest: func(_ *soak, n string) string { return hostile.Kustomization("flux-system", n, "") }},
		{name: "Kustomization in a wrong namespace", rule: "KS001", manifest: func(_ *soak, n string) string { return hostile.Kustomization(team, n, "") }},
		{name: "Kustomization with a patch of CloudNativePG", rule: "PG001", manifest: func(_ *soak, n string) string { return hostile.Kustomization("flux-system", n, monitoringPatch) }},
		{name: "HelmRelease", manifest: func(_ *soak, n string) string { return release(team, n, "charts", goodValues) }},
		{name: "HelmRelease with 39 KB of values", manifest: func(_ *soak, n string) string { return release(team, n, "charts", large) }},
		{name: "HelmRelease with wrong values", rule: "HR001", manifest: func(_ *soak, n string) string { return release(team, n, "charts", badValues) }},
		{name: "HelmRelease of a new source", cold: true, manifest: func(s *soak, n string) string { return release(team, n, s.coldSource(), goodValues) }},
		{name: "HelmRelease of a new source with wrong values", cold: true, rule: "HR001", manifest: func(s *soak, n string) string { return release(team, n, s.coldSource(), badValues) }},
		{name: "HelmRelease that is stored", stored: true, manifest: func(_ *soak, n string) string { return release(team, n, "charts", goodValues) }},
		{name: "Kustomization that is stored", stored: true, manifest: func(_ *soak, n string) string { return hostile.Kustomization("flux-system", n, "") }},
	}
}

// team is the namespace of honest releases.
const team = "team"

type auditIDKey struct{}

// auditIDs sends the audit ID of a request's context, so that its audit event is found.
type auditIDs struct{ http.RoundTripper }

func (a auditIDs) RoundTrip(r *http.Request) (*http.Response, error) {
	if id, ok := r.Context().Value(auditIDKey{}).(string); ok {
		r = r.Clone(r.Context())
		r.Header.Set("Audit-ID", id)
	}
	return a.RoundTripper.RoundTrip(r) //nolint:wrapcheck // it is the client's
}

// newClient returns a client for the load.
func newClient(cp *controlplane.ControlPlane) (client.Client, error) {
	config := cp.Config()
	config.Timeout = requestTimeout
	config.QPS = -1
	config.WarningHandler = rest.NoWarnings{}
	config.Wrap(func(rt http.RoundTripper) http.RoundTripper { return auditIDs{rt} })
	return client.New(config, client.Options{})
}

// soak is the state of the run.
type soak struct {
	client client.Client
	ledger ledger
	writes []honest
	count  atomic.Int64
	cold   atomic.Int64
	// auditOnly is set while a policy that refuses nothing may be in force.
	auditOnly atomic.Bool

	mu    sync.Mutex
	phase string
}

func (s *soak) setPhase(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase = name
}

func (s *soak) inPhase() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.phase
}

func (s *soak) coldSource() string { return fmt.Sprintf("cold-%d", s.cold.Load()) }

func parse(manifest string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(manifest), &o.Object); err != nil {
		panic(err)
	}
	return o
}

// steady sends honest writes at a rate until ctx ends, and waits for their verdicts.
func (s *soak) steady(ctx context.Context, rate int) {
	ticker := time.NewTicker(time.Second / time.Duration(rate))
	defer ticker.Stop()
	var running sync.WaitGroup
	defer running.Wait()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		h := s.writes[n%len(s.writes)]
		running.Go(func() { s.write(context.WithoutCancel(ctx), h, true) })
	}
}

// burst sends that many honest writes at once and waits for their verdicts.
func (s *soak) burst(ctx context.Context, n int) {
	var running sync.WaitGroup
	for range n {
		h := s.writes[rand.IntN(len(s.writes))] //nolint:gosec // not a secret
		running.Go(func() { s.write(context.WithoutCancel(ctx), h, false) })
	}
	running.Wait()
}

// coldSources adds a source that no review has read until ctx ends.
func (s *soak) coldSources(ctx context.Context) {
	for ctx.Err() == nil {
		n := s.cold.Load() + 1
		o := parse(hostile.Repository(team, fmt.Sprintf("cold-%d", n), shared.Charts.URL))
		if err := s.client.Create(ctx, o); err == nil {
			s.cold.Store(n)
		}
		if n > 20 {
			_ = s.client.Delete(ctx, parse(hostile.Repository(team, fmt.Sprintf("cold-%d", n-20), shared.Charts.URL))) // tried once
		}
		sleep(ctx, 2*time.Second)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// write sends one honest write until there is a verdict, and records every attempt.
func (s *soak) write(ctx context.Context, h honest, steady bool) {
	o := parse(h.manifest(s, fmt.Sprintf("honest-%d", s.count.Add(1))))
	opts := []client.CreateOption{}
	if !h.stored {
		opts = append(opts, client.DryRunAll)
	}
	end := time.Now().Add(verdictTimeout)
	pause := retryEvery
	var last attempt
	for first := true; first || time.Now().Before(end); first = false {
		id := string(uuid.NewUUID())
		phase, recorded := s.inPhase(), s.auditOnly.Load()
		start := time.Now()
		err := s.client.Create(context.WithValue(ctx, auditIDKey{}, id), o.DeepCopy(), opts...)
		last = attempt{kind: h.name, phase: phase, took: time.Since(start), steady: steady && first, auditID: id, answer: classify(err, h.rule)}
		if err != nil {
			last.text = err.Error()
		}
		if h.stored && !first && apierrors.IsAlreadyExists(err) { // an attempt without a response had stored it
			last.answer = right
		}
		if last.answer == admitted && (recorded || s.auditOnly.Load()) {
			last.answer = right
		}
		s.ledger.add(last)
		if last.answer != unavailable && (last.answer != undecided || h.cold) {
			break
		}
		sleep(ctx, pause/2+rand.N(pause)) //nolint:gosec // not a secret
		pause = min(2*pause, maxRetryEvery)
	}
	lost := ""
	if last.answer == unavailable || last.answer == undecided && !h.cold {
		lost = fmt.Sprintf("%s got no verdict in %s: %s", h.name, verdictTimeout, last.text)
	}
	s.ledger.done(lost)
	if h.stored {
		s.remove(ctx, o)
	}
}

// remove deletes a stored object: deletions are never refused.
func (s *soak) remove(ctx context.Context, o *unstructured.Unstructured) {
	var err error
	for end := time.Now().Add(verdictTimeout); time.Now().Before(end); sleep(ctx, retryEvery) {
		err = s.client.Delete(ctx, o.DeepCopy())
		if err == nil || apierrors.IsNotFound(err) {
			return
		}
		if strings.Contains(err.Error(), "denied the request") || strings.Contains(err.Error(), "failed calling webhook") {
			break
		}
	}
	s.ledger.add(attempt{kind: "deletion", phase: s.inPhase(), answer: wrong, text: fmt.Sprint(err)})
}
