// Package deferred_test tests on a real API server what the webhook server does outside of reviews: it watches kinds
// whose CRDs are installed after its start, prefetches charts, and evaluates releases again whose chart was not
// available in time.
package deferred_test

import (
	"bytes"
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

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/controlplane/assets"
	"github.com/flux-admission/flux-admission/test/env"
	"github.com/flux-admission/flux-admission/test/writepath"
)

// chartWait is how long a review waits for a chart, far below what the slow source takes and what the API server waits
// for the webhook.
const chartWait = 500 * time.Millisecond

var shared *env.Env

func TestMain(m *testing.M) {
	os.Exit(env.Main(m, env.Options{
		// Flux's CRDs are not installed yet: the webhook server must become ready without them.
		ControlPlane: controlplane.Options{},
		Args:         []string{"--chart-wait=" + chartWait.String()},
		Charts:       []string{env.AirflowChart},
	}, func(ctx context.Context, e *env.Env) error {
		shared = e
		paths, err := assets.CRDs(ctx, assets.DefaultCRDs()...)
		if err != nil {
			return err
		}
		return e.ControlPlane.InstallCRDs(ctx, paths...)
	}))
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

func apply(t *testing.T, text string) writepath.Answer {
	t.Helper()
	return writepath.Kubectl("apply").Write(t.Context(), shared.ControlPlane, text)
}

// eventually waits for a metric to be at least some value.
func eventually(t *testing.T, want float64, name string, labels ...string) {
	t.Helper()
	var got float64
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		var err error
		got, err = shared.Webhook().Metric(ctx, name, labels...)
		return err == nil && got >= want, nil
	})
	if err != nil {
		t.Fatalf("%s%v is %v, want at least %v\n%s", name, labels, got, want, shared.Webhook().LogTail())
	}
}

func TestPrefetcher_ReadsChartsBeforeTheFirstReview(t *testing.T) {
	ns := shared.Namespace(t, "deferred-")
	if out := apply(t, manifests(ns, shared.Charts.URL, "", good)); out.Err != nil {
		t.Fatal(out.Err)
	}
	if err := shared.Webhook().Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	// There was no review since the start.
	eventually(t, 1, "flux_admission_cached_charts")
	if n, err := shared.Webhook().Metric(t.Context(), "flux_admission_reviews_total"); err != nil || n != 0 {
		t.Fatalf("%v reviews (error %v); want none", n, err)
	}
	before, err := shared.Webhook().Metric(t.Context(), "flux_admission_chart_lookups_total", "outcome=hit")
	if err != nil {
		t.Fatal(err)
	}
	if out := apply(t, release(ns, bad)); out.Err == nil || !strings.Contains(out.Err.Error(), "HR001") {
		t.Errorf("the first review: %v; want a denial by HR001", out.Err)
	}
	eventually(t, before+1, "flux_admission_chart_lookups_total", "outcome=hit")
}

func TestReevaluator_EvaluatesReleaseWhenItsChartIsRead(t *testing.T) {
	ns := shared.Namespace(t, "deferred-")
	var held atomic.Bool
	held.Store(true)
	open := make(chan struct{})
	index, err := os.ReadFile(filepath.Join(shared.ChartDir, "index.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	// A source must not lead to another one on a loopback address, so the URLs of the charts are relative.
	index = bytes.ReplaceAll(index, []byte(shared.Charts.URL+"/"), nil)
	files := http.FileServer(http.Dir(shared.ChartDir))
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if held.Load() {
			select {
			case <-open:
			case <-r.Context().Done():
				return
			}
		}
		if r.URL.Path == "/index.yaml" {
			http.ServeContent(w, r, "index.yaml", time.Time{}, bytes.NewReader(index))
			return
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(slow.Close)
	out := apply(t, manifests(ns, slow.URL, "", bad))
	if out.Err != nil {
		t.Fatalf("the release was denied while its chart was being read: %v", out.Err)
	}
	held.Store(false)
	close(open)
	eventually(t, 1, "flux_admission_deferred_evaluations_total", "rule=helm-values-schema", "outcome=invalid")
	for _, want := range []string{"Evaluated release after its review", ns, "existingSecret"} {
		if !strings.Contains(shared.Webhook().Log(), want) {
			t.Errorf("the log does not contain %q:\n%s", want, shared.Webhook().LogTail())
		}
	}
}
