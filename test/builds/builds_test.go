// Package builds_test has artifacts built ahead of Flux, on a real API server and with the limit of memory of the Deployment.
package builds_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluxcd/pkg/tar"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
)

var shared *env.Env

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "builds-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := env.Main(m, env.Options{
		ControlPlane: controlplane.Options{CRDSets: controlplane.DefaultCRDs(), CRDs: []string{"../audit/testdata/openreports.yaml"}},
		Components:   []string{"audit-reports", "audit-builds"}, Shipped: true,
		Args: []string{"--audit-reports=openreports", "--audit-build-dir=" + dir, "--artifact-host=127.0.0.1"},
	}, func(_ context.Context, e *env.Env) error {
		shared = e
		return nil
	})
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// artifacts serves artifacts as source-controller does.
type artifacts struct {
	server *httptest.Server

	mu    sync.Mutex
	files map[string][]byte
}

func serveArtifacts(t *testing.T) *artifacts {
	t.Helper()
	a := &artifacts{files: map[string][]byte{}}
	a.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		data, ok := a.files[r.URL.Path]
		a.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(data)
	}))
	t.Cleanup(a.server.Close)
	return a
}

// publish packs the files of a txtar archive and makes them the artifact of a source.
func (a *artifacts) publish(t *testing.T, source client.ObjectKey, revision string, files []txtar.File) {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		name := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var packed strings.Builder
	if _, err := tar.Tar(dir, &packed); err != nil {
		t.Fatal(err)
	}
	data := []byte(packed.String())
	path := "/" + source.Name + "/" + revision + ".tar.gz"
	a.mu.Lock()
	a.files[path] = data
	a.mu.Unlock()
	sum := sha256.Sum256(data)
	o := &unstructured.Unstructured{}
	o.SetAPIVersion("source.toolkit.fluxcd.io/v1")
	o.SetKind("GitRepository")
	if err := shared.Client.Get(t.Context(), source, o); err != nil {
		t.Fatal(err)
	}
	if err := unstructured.SetNestedMap(o.Object, map[string]any{
		"url": a.server.URL + path, "path": path, "digest": "sha256:" + hex.EncodeToString(sum[:]), "revision": revision,
		"lastUpdateTime": metav1.Now().UTC().Format(time.RFC3339),
	}, "status", "artifact"); err != nil {
		t.Fatal(err)
	}
	if err := unstructured.SetNestedField(o.Object, o.GetGeneration(), "status", "observedGeneration"); err != nil {
		t.Fatal(err)
	}
	if err := shared.Client.Status().Update(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// reported returns the results of builds as "RESULT RULE KIND/NAME FILE:LINE", sorted.
func reported(t *testing.T) []string {
	t.Helper()
	c, err := dynamic.NewForConfig(shared.ControlPlane.Config())
	if err != nil {
		t.Fatal(err)
	}
	list, err := c.Resource(schema.GroupVersionResource{Group: "openreports.io", Version: "v1alpha1", Resource: "reports"}).Namespace(env.Namespace).
		List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range list.Items {
		items, _, _ := unstructured.NestedSlice(r.Object, "results")
		for _, item := range items {
			one := item.(map[string]any)
			properties := one["properties"].(map[string]any)
			resource := one["resources"].([]any)[0].(map[string]any)
			if properties["source"] == "build" {
				out = append(out, fmt.Sprintf("%s %s %s/%s %v:%v", one["result"], one["rule"], resource["kind"], resource["name"], properties["file"], properties["line"]))
			}
		}
	}
	slices.Sort(out)
	return out
}

func waitReported(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	deadline := time.Now().Add(time.Minute)
	for {
		got := reported(t)
		if slices.Equal(want, got) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("results (-want +got):\n%s\n%s", cmp.Diff(want, got), shared.Webhook().LogTail())
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// waitBuilt waits until Kustomizations were built with an outcome, so often.
func waitBuilt(t *testing.T, outcome string, times float64) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		got, err := shared.Metric(t.Context(), "flux_admission_audit_builds_total", "outcome="+outcome)
		if err == nil && got >= times {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v builds, want %v: %v\n%s", outcome, got, times, err, shared.Webhook().LogTail())
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func archive(t *testing.T, name string) []txtar.File {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return a.Files
}

const fleet = `apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: fleet, namespace: flux-system}
spec: {interval: 1m, url: "https://git.invalid/fleet"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: flux-system}
data: {size: 1Gi}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: apps, namespace: flux-system}
spec:
  interval: 10m
  path: ./apps
  prune: true
  sourceRef: {kind: GitRepository, name: fleet}
  postBuild:
    substituteFrom: [{kind: ConfigMap, name: settings}, {kind: Secret, name: passwords}]
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: removed
  namespace: flux-system
  labels: {kustomize.toolkit.fluxcd.io/name: apps, kustomize.toolkit.fluxcd.io/namespace: flux-system}
spec: {interval: 10m, path: ./removed, prune: true, sourceRef: {kind: GitRepository, name: fleet}}
`

var source = client.ObjectKey{Namespace: "flux-system", Name: "fleet"}

// TestBuilds publishes a commit with mistakes that nobody applies, and its repair.
func TestBuilds(t *testing.T) {
	if err := shared.Apply(t.Context(), fleet); err != nil {
		t.Fatal(err)
	}
	a := serveArtifacts(t)
	a.publish(t, source, "main@sha1:1", archive(t, "bad.txtar"))
	waitReported(t,
		"fail PG001 Cluster/orders apps/db.yaml:10",
		"fail SC001 Cluster/orders apps/db.yaml:11",
		"fail SC001 Deployment/web web/deployment.yaml:6",
	)
	clusters := &unstructured.UnstructuredList{}
	clusters.SetAPIVersion("postgresql.cnpg.io/v1")
	clusters.SetKind("ClusterList")
	if err := shared.Client.List(t.Context(), clusters); err != nil || len(clusters.Items) > 0 {
		t.Errorf("the cluster has %d Clusters: %v", len(clusters.Items), err)
	}
	a.publish(t, source, "main@sha1:2", archive(t, "good.txtar"))
	waitReported(t)
}

// largeReviews is memory for concurrent reviews, in bytes.
const largeReviews = 32 << 20

// TestLarge publishes artifacts at and above the limits: the memory stays below the limit of the Deployment, and what is too large is counted.
func TestLarge(t *testing.T) {
	w := shared.Webhook()
	if err := w.ResetPeak(); err != nil {
		t.Fatal(err)
	}
	large := client.ObjectKey{Namespace: "flux-system", Name: "large"}
	if err := shared.Apply(t.Context(), `apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: large, namespace: flux-system}
spec: {interval: 1m, url: "https://git.invalid/large"}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: large, namespace: flux-system}
spec: {interval: 10m, path: ./, prune: true, sourceRef: {kind: GitRepository, name: large}}
`); err != nil {
		t.Fatal(err)
	}
	a := serveArtifacts(t)
	evaluated, err := shared.Metric(t.Context(), "flux_admission_audit_builds_total", "outcome=evaluated")
	if err != nil {
		t.Fatal(err)
	}
	a.publish(t, large, "fits", deployments(450, 1000))
	waitBuilt(t, "evaluated", evaluated+1)
	a.publish(t, large, "too-large", deployments(800, 1000))
	waitBuilt(t, "too-large", 1)
	a.publish(t, large, "many", deployments(600, 100))
	waitBuilt(t, "too-large", 2)
	usage, err := w.Memory()
	if err != nil {
		t.Fatal(err)
	}
	if w.OutOfMemory() || usage.Peak > w.MemoryLimit()-largeReviews {
		t.Errorf("the peak is %d MiB of %d", usage.Peak>>20, w.MemoryLimit()>>20)
	}
	t.Logf("peak %d MiB", usage.Peak>>20)
}

// deployments returns files with Deployments, each of about that many bytes, ten to a file.
func deployments(n, size int) []txtar.File {
	var out []txtar.File
	var resources strings.Builder
	for i := range n {
		text := fmt.Sprintf(`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web-%d, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: "example.com/web:1"
        env:
`, i)
		for j := 0; len(text) < size; j++ {
			text += fmt.Sprintf("        - {name: V%d, value: v%d}\n", j, j)
		}
		if i%10 == 0 {
			name := fmt.Sprintf("web-%d.yaml", i)
			out = append(out, txtar.File{Name: name})
			fmt.Fprintf(&resources, "- %s\n", name)
		}
		out[len(out)-1].Data = append(out[len(out)-1].Data, text...)
	}
	return append(out, txtar.File{Name: "kustomization.yaml", Data: []byte("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n" + resources.String())})
}
