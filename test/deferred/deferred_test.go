// Package background_test shows on a real API server what the gate does behind reviews: it watches kinds that are installed after its start, has charts
// read before they are needed, and judges releases whose chart came too late for their review.
package deferred_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/chartrepo"
	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/controlplane/assets"
	"github.com/flux-admission/flux-admission/test/env"
	"github.com/flux-admission/flux-admission/test/writepath"
)

// patience is what the gate may wait for a chart, far below what the slow source takes and what the API server waits for the gate.
const patience = 500 * time.Millisecond

var shared struct {
	cp     *controlplane.ControlPlane
	gate   *env.Gate
	client client.Client
	web    string // the directory with the packaged chart and its index
	plain  *httptest.Server
}

func TestMain(m *testing.M) {
	os.Exit(controlplane.Main(m, controlplane.Options{}, setUp))
}

func setUp(cp *controlplane.ControlPlane) error {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	shared.cp = cp
	var err error
	// Flux's CRDs are not installed yet: the gate has to become ready without them.
	if shared.gate, err = env.Deploy(ctx, cp, "--chart-wait="+patience.String()); err != nil {
		return err
	}
	if shared.client, err = client.New(cp.Config(), client.Options{Scheme: scheme.Scheme}); err != nil {
		return err
	}
	root, err := env.Root()
	if err != nil {
		return err
	}
	shared.web = filepath.Join(cp.Dir(), "charts")
	if err := os.Mkdir(shared.web, 0o750); err != nil {
		return err
	}
	if shared.plain, err = chartrepo.Serve(shared.web, filepath.Join(root, "test", "demo", "charts", "airflow")); err != nil {
		return err
	}
	paths, err := assets.CRDs(ctx, assets.DefaultCRDs()...)
	if err != nil {
		return err
	}
	return cp.InstallCRDs(ctx, paths...)
}

const bad, good = "{data: {metadataConnection: {existingSecret: db}}}", "{data: {metadataSecretName: db}}"

func manifests(ns, url, extra, values string) string {
	return fmt.Sprintf(`apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmRepository
metadata: {name: charts, namespace: %[1]s}
spec: {interval: 1h, url: %[2]q%[3]s}
---
%[4]s`, ns, url, extra, release(ns, values))
}

func release(ns, values string) string {
	return fmt.Sprintf(`apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: airflow, namespace: %s}
spec:
  interval: 1h
  chart: {spec: {chart: airflow, sourceRef: {kind: HelmRepository, name: charts}}}
  values: %s
`, ns, values)
}

func namespace(t *testing.T) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "background-"}}
	if err := shared.client.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	return ns.Name
}

func apply(t *testing.T, text string) writepath.Answer {
	t.Helper()
	return writepath.Kubectl("apply").Write(t.Context(), shared.cp, text)
}

// eventually waits for a metric to be at least some value.
func eventually(t *testing.T, want float64, name string, labels ...string) {
	t.Helper()
	var got float64
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		var err error
		got, err = shared.gate.Metric(ctx, name, labels...)
		return err == nil && got >= want, nil
	})
	if err != nil {
		t.Fatalf("%s%v is %v, want at least %v\n%s", name, labels, got, want, shared.gate.LogTail())
	}
}

func TestChartsAreThereBeforeTheFirstReview(t *testing.T) {
	ns := namespace(t)
	if out := apply(t, manifests(ns, shared.plain.URL, "", good)); out.Err != nil {
		t.Fatal(out.Err)
	}
	if err := shared.gate.Stop(); err != nil {
		t.Fatal(err)
	}
	var err error
	if shared.gate, err = shared.gate.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Nothing has asked for a review since the start.
	eventually(t, 1, "flux_admission_cached_charts")
	if n, err := shared.gate.Metric(t.Context(), "flux_admission_reviews_total"); err != nil || n != 0 {
		t.Fatalf("%v reviews before the first (%v)", n, err)
	}
	before, err := shared.gate.Metric(t.Context(), "flux_admission_chart_lookups_total", "outcome=hit")
	if err != nil {
		t.Fatal(err)
	}
	if out := apply(t, release(ns, bad)); out.Err == nil || !strings.Contains(out.Err.Error(), "HR001") {
		t.Errorf("the first review: %v; want a refusal by HR001", out.Err)
	}
	eventually(t, before+1, "flux_admission_chart_lookups_total", "outcome=hit")
}

func TestAReleaseIsJudgedWhenItsChartComesLate(t *testing.T) {
	ns := namespace(t)
	var held atomic.Bool
	held.Store(true)
	open := make(chan struct{})
	files := http.FileServer(http.Dir(shared.web))
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if held.Load() {
			select {
			case <-open:
			case <-r.Context().Done():
				return
			}
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(slow.Close)
	out := apply(t, manifests(ns, slow.URL, "", bad))
	if out.Err != nil {
		t.Fatalf("while the chart is being read the release is refused: %v", out.Err)
	}
	held.Store(false)
	close(open)
	eventually(t, 1, "flux_admission_late_verdicts_total", "rule=helm-values-schema", "verdict=invalid")
	for _, want := range []string{"Judged a release after its review", ns, "existingSecret"} {
		if !strings.Contains(shared.gate.Log(), want) {
			t.Errorf("the log does not say %q:\n%s", want, shared.gate.LogTail())
		}
	}
}
