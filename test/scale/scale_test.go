// Package scale_test measures the webhook server at rest, on a real API server and with the flags and the memory limit of the
// Deployment: in a cluster with thousands of releases, how much memory it takes, how many requests its start takes and how
// often it reads a chart; and what two versions write while nothing changes.
package scale_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/flux-admission/flux-admission/test/chartrepo"
	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
)

const (
	// idleLimit is the resident memory of a server in a cluster without releases, in bytes.
	idleLimit = 64 << 20
	// valuesSize is the size of the values of each release, in bytes.
	valuesSize = 39 << 10
	// charts is how many charts the releases use together.
	charts = 10
	// settle is how long after its start a server has what it needs at rest, and no more.
	settle = 20 * time.Second
	// atRest is how long two versions run beside each other while nothing changes.
	atRest = time.Minute
)

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// cluster is an environment with releases, whose charts it serves.
type cluster struct {
	*env.Env

	releases int

	mu sync.Mutex
	// read counts the requests of each file of the Helm repository.
	read map[string]int
}

func start(tb testing.TB) *cluster {
	tb.Helper()
	c := &cluster{read: map[string]int{}, Env: startEnv(tb, env.Options{
		ControlPlane: controlplane.Options{CRDSets: controlplane.DefaultCRDs(), AuditUser: env.ServiceAccount}, Shipped: true,
	})}
	c.serveCharts(tb)
	return c
}

func startEnv(tb testing.TB, o env.Options) *env.Env {
	tb.Helper()
	e, err := env.Start(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := e.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return e
}

// serveCharts creates a HelmRepository of charts, and counts what is read of it.
func (c *cluster) serveCharts(tb testing.TB) {
	tb.Helper()
	dirs := make([]string, 0, charts)
	for i := range charts {
		dir := filepath.Join(tb.TempDir(), fmt.Sprintf("app%d", i))
		if err := os.Mkdir(dir, 0o750); err != nil {
			tb.Fatal(err)
		}
		for name, text := range map[string]string{
			"Chart.yaml": fmt.Sprintf("apiVersion: v2\nname: app%d\nversion: 1.0.0\n", i), "values.yaml": "config: {}\n",
			"values.schema.json": `{"type": "object", "properties": {"config": {"type": "object"}}}`,
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				tb.Fatal(err)
			}
		}
		dirs = append(dirs, dir)
	}
	dir := tb.TempDir()
	server, err := chartrepo.Serve(dir, dirs...)
	if err != nil {
		tb.Fatal(err)
	}
	server.Close()
	// The URLs of the charts become relative to the server that counts.
	index := filepath.Join(dir, "index.yaml")
	data, err := os.ReadFile(index)
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(index, []byte(strings.ReplaceAll(string(data), server.URL+"/", "")), 0o600); err != nil {
		tb.Fatal(err)
	}
	files := http.FileServer(http.Dir(dir))
	counting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.read[r.URL.Path]++
		c.mu.Unlock()
		files.ServeHTTP(w, r)
	}))
	tb.Cleanup(counting.Close)
	if err := createReady(tb.Context(), c.Client, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "HelmRepository",
		"metadata": map[string]any{"namespace": "flux-system", "name": "charts"},
		"spec":     map[string]any{"interval": "1h", "url": counting.URL},
	}}); err != nil {
		tb.Fatal(err)
	}
}

// grow creates releases that are ready, with the webhook server stopped, as many in each of its namespaces, until there are n. The
// background audit would look for the roots of those that are not.
func (c *cluster) grow(tb testing.TB, n int) {
	tb.Helper()
	if err := c.Webhook().Stop(); err != nil {
		tb.Fatal(err)
	}
	const perNamespace = 100
	group, ctx := errgroup.WithContext(tb.Context())
	group.SetLimit(8)
	for ; c.releases < n; c.releases++ {
		i := c.releases
		namespace := fmt.Sprintf("apps-%d", i/perNamespace)
		if i%perNamespace == 0 {
			if err := c.Client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
				tb.Fatal(err)
			}
		}
		group.Go(func() error { return createReady(ctx, c.Client, release(namespace, i)) })
	}
	if err := group.Wait(); err != nil {
		tb.Fatal(err)
	}
}

// createReady creates an object, and reports it as ready as its controller does.
func createReady(ctx context.Context, c client.Client, o *unstructured.Unstructured) error {
	if err := c.Create(ctx, o); err != nil {
		return fmt.Errorf("creating %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	o.Object["status"] = map[string]any{"observedGeneration": o.GetGeneration(), "conditions": []any{map[string]any{
		"type": "Ready", "status": "True", "reason": "Succeeded", "message": "", "observedGeneration": o.GetGeneration(),
		"lastTransitionTime": time.Now().UTC().Format(time.RFC3339),
	}}}
	if err := c.Status().Update(ctx, o); err != nil {
		return fmt.Errorf("reporting %s %s as ready: %w", o.GetKind(), o.GetName(), err)
	}
	return nil
}

// release returns a release with the fields that make real ones large.
func release(namespace string, i int) *unstructured.Unstructured {
	config := map[string]any{}
	for j := range valuesSize / 50 {
		config[fmt.Sprintf("setting%03d", j)] = fmt.Sprintf("the value of setting %d of %d", j, i)
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease",
		"metadata": map[string]any{"namespace": namespace, "name": fmt.Sprintf("release-%d", i)},
		"spec": map[string]any{"interval": "1h", "values": map[string]any{"config": config}, "chart": map[string]any{"spec": map[string]any{
			"chart": fmt.Sprintf("app%d", i%charts), "version": "1.0.0",
			"sourceRef": map[string]any{"kind": "HelmRepository", "name": "charts", "namespace": "flux-system"},
		}}},
	}}
}

// requests returns the requests of the webhook server so far, as method and path.
func (c *cluster) requests(tb testing.TB) []string {
	tb.Helper()
	events, err := c.ControlPlane.CallsOf(env.ServiceAccount)
	if err != nil {
		tb.Fatal(err)
	}
	out := make([]string, 0, len(events))
	for i := range events {
		path, _, _ := strings.Cut(events[i].RequestURI, "?")
		out = append(out, events[i].Verb+" "+path)
	}
	return out
}

// restart starts the webhook server again and waits until it has prefetched want charts. It returns its requests.
func (c *cluster) restart(tb testing.TB, want int) []string {
	tb.Helper()
	if err := c.Webhook().Stop(); err != nil {
		tb.Fatal(err)
	}
	before := len(c.requests(tb))
	c.mu.Lock()
	clear(c.read)
	c.mu.Unlock()
	if err := c.Webhook().Restart(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	cached := 0.0
	err := wait.PollUntilContextTimeout(tb.Context(), 100*time.Millisecond, 3*time.Minute, true, func(ctx context.Context) (bool, error) {
		var err error
		cached, err = c.Webhook().Metric(ctx, "flux_admission_cached_charts")
		return err == nil && cached >= float64(want), nil
	})
	if err != nil {
		tb.Fatalf("%v of %d charts were prefetched: %v\n%s", cached, want, err, c.Webhook().LogTail())
	}
	return c.requests(tb)[before:]
}

// check reports that something was read more than once, and returns how many charts were read.
func (c *cluster) check(tb testing.TB) int {
	tb.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	read := 0
	for path, n := range c.read {
		if path != "/index.yaml" {
			read++
		}
		if n > 1 {
			tb.Errorf("%s was read %d times, want once", path, n)
		}
	}
	return read
}

// BenchmarkReleases starts the webhook server in clusters of different sizes. It reports the requests to the API server until
// all charts are prefetched, the resident memory at rest after that, the part of it that is no file, and the peak since the start.
func BenchmarkReleases(b *testing.B) {
	c := start(b)
	for _, n := range []int{0, 1000, 5000} {
		name := fmt.Sprint(n)
		limit, want := c.Webhook().MemoryLimit(), charts
		if n == 0 {
			name, limit, want = "idle", idleLimit, 0
		}
		b.Run(name, func(b *testing.B) {
			c.grow(b, n)
			for b.Loop() {
				requests := c.restart(b, want)
				rest(b, settle)
				memory, err := c.Webhook().Memory()
				if err != nil {
					b.Fatal(err)
				}
				if memory.Now > limit || c.Webhook().OutOfMemory() {
					b.Errorf("the memory is %d bytes, want at most %d", memory.Now, limit)
				}
				b.ReportMetric(float64(n), "releases")
				b.ReportMetric(float64(len(requests)), "start-requests")
				b.ReportMetric(float64(c.check(b)), "chart-reads")
				b.ReportMetric(float64(memory.Now)/(1<<20), "rss-MiB")
				b.ReportMetric(float64(memory.Heap)/(1<<20), "anon-MiB")
				b.ReportMetric(float64(memory.Peak)/(1<<20), "peak-MiB")
				b.ReportMetric(0, "ns/op")
			}
		})
	}
}

// TestReleases_StartRequests has releases in numbers that must not matter: neither the requests of a start nor the reads of charts grow
// with them.
func TestReleases_StartRequests(t *testing.T) {
	c := start(t)
	var few int
	for _, n := range []int{charts, 10 * charts} {
		c.grow(t, n)
		requests := c.restart(t, charts)
		if read := c.check(t); read != charts {
			t.Errorf("%d releases: %d charts were read, want %d", n, read, charts)
		}
		if few == 0 {
			few = len(requests)
		} else if len(requests) > few+few/2 {
			t.Errorf("%d releases: %d requests, %d with a tenth of them:\n%s", n, len(requests), few, strings.Join(requests, "\n"))
		}
	}
}

// BenchmarkTwoVersions has two versions of the webhook server beside each other, as during a rollout that does not end, and
// reports the writes of the policy's status while nothing changes.
func BenchmarkTwoVersions(b *testing.B) {
	e := startEnv(b, env.Options{
		ControlPlane: controlplane.Options{CRDSets: controlplane.DefaultCRDs(), Audit: true}, Shipped: true,
		Versions: []string{"v1.0.0", "v1.1.0"},
		Policy:   "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\nspec: {mode: AuditOnly}\n",
	})
	for b.Loop() {
		rest(b, settle) // the first audit is in the status
		before := statusWrites(b, e)
		rest(b, atRest)
		written := statusWrites(b, e) - before
		if before == 0 || written > 0 {
			b.Errorf("the status of the policy was written %d times before, and %d times at rest; want some and none", before, written)
		}
		b.ReportMetric(float64(written), "status-writes/min")
		b.ReportMetric(0, "ns/op")
	}
}

// rest waits.
func rest(tb testing.TB, d time.Duration) {
	tb.Helper()
	select {
	case <-tb.Context().Done():
	case <-time.After(d):
	}
}

// statusWrites returns how often the status of the policy was written, by whomever.
func statusWrites(tb testing.TB, e *env.Env) int {
	tb.Helper()
	n, err := e.PolicyStatusWrites()
	if err != nil {
		tb.Fatal(err)
	}
	return n
}
