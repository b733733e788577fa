package webhook_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// asServer makes the test binary a webhook server in its own process, to separate its CPU time from the client's.
const asServer = "FLUX_ADMISSION_BENCHMARK_SERVER"

// benchmarkCharts names additional directories of charts, as a list of paths.
const benchmarkCharts = "FLUX_ADMISSION_BENCHMARK_CHARTS"

// benchmarkCounter is replaced by another number in each review.
const benchmarkCounter = "0000000000"

func TestMain(m *testing.M) {
	if kind := os.Getenv(asServer); kind != "" {
		if err := benchmarkServer(kind); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// benchmarkServer serves until its standard input is closed: the webhooks with all rules, or controller-runtime's
// webhook with a handler that always allows, which is the floor.
func benchmarkServer(kind string) error {
	mux := http.NewServeMux()
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	certificate, err := throwaway()
	if err != nil {
		return err
	}
	switch kind {
	case "webhook":
		g, err := denyAll()
		if err != nil {
			return err
		}
		objects, err := benchmarkObjects()
		if err != nil {
			return err
		}
		mux.Handle(webhookconfig.ValidatePath, newTestServerWith(g, objects, logr.Discard()).handler)
	case "floor":
		hook, err := admission.StandaloneWebhook(&admission.Webhook{Handler: admission.HandlerFunc(func(context.Context, admission.Request) admission.Response {
			return admission.Allowed("")
		})}, admission.StandaloneOptions{Logger: logr.Discard(), MetricsPath: webhookconfig.ValidatePath})
		if err != nil {
			return err
		}
		mux.Handle(webhookconfig.ValidatePath, hook)
	}
	mux.HandleFunc("/cpu", func(w http.ResponseWriter, _ *http.Request) {
		var usage syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, usage.Utime.Nano()+usage.Stime.Nano())
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = server.Close()
	}()
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}}
	if err := server.Serve(tls.NewListener(listener, config)); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// benchmarkObjects returns a lookup with the chart of the release.
func benchmarkObjects() (*lookup.Memory, error) {
	dirs := []string{filepath.Join("testdata", "charts")}
	if more := os.Getenv(benchmarkCharts); more != "" {
		dirs = append(dirs, filepath.SplitList(more)...)
	}
	resolver, err := chartsource.New(chartsource.Options{Dirs: dirs})
	if err != nil {
		return nil, err
	}
	repository := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "HelmRepository", "metadata": map[string]any{"namespace": "flux-system", "name": "app"},
		"spec": map[string]any{"url": "https://charts.example.com"},
	}}
	// The objects that the Kustomization refers to exist, so that no rule reports it.
	source := repository.DeepCopy()
	source.SetKind("GitRepository")
	source.SetName("home")
	dependency := repository.DeepCopy()
	dependency.SetAPIVersion("kustomize.toolkit.fluxcd.io/v1")
	dependency.SetKind("Kustomization")
	dependency.SetName("cnpg")
	objects := lookup.NewMemory(repository, source, dependency)
	objects.Charts = resolver
	return objects, nil
}

func throwaway() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, err
}

// benchmarkClient connects to a server as the API server does: HTTP/1.1 over persistent TLS connections.
type benchmarkClient struct {
	url    string
	client *http.Client
}

func startServer(b *testing.B, kind string) *benchmarkClient {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), asServer+"="+kind)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	line := make([]byte, 64)
	n, err := out.Read(line)
	if err != nil {
		b.Fatal(err)
	}
	return &benchmarkClient{
		url: "https://" + strings.TrimSpace(string(line[:n])),
		client: &http.Client{Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}, //nolint:gosec // a throwaway certificate
			MaxIdleConnsPerHost: 16,
		}},
	}
}

// post sends a review and fails if it is not allowed, or is, as want has it.
func (c *benchmarkClient) post(ctx context.Context, body []byte, want bool) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+webhookconfig.ValidatePath+"?timeout=5s", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err == nil && !bytes.Contains(data, fmt.Appendf(nil, `"allowed":%t`, want)) {
		err = fmt.Errorf("the response is %s", data)
	}
	return err
}

func (c *benchmarkClient) cpu(b *testing.B) time.Duration {
	b.Helper()
	resp, err := c.client.Get(c.url + "/cpu")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	n, err := strconv.ParseInt(string(data), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return time.Duration(n)
}

// benchmarkReviews returns one review of each kind as Flux sends it: an update with managed fields and a status, which
// no rule reports.
func benchmarkReviews(tb testing.TB) map[string][]byte {
	tb.Helper()
	managed := make([]any, 0, 3)
	for i := range 3 {
		managed = append(managed, map[string]any{
			"apiVersion": "v1", "fieldsType": "FieldsV1", "manager": fmt.Sprintf("manager-%d", i), "operation": "Apply", "time": "2026-11-23T10:00:00Z",
			"fieldsV1": map[string]any{"f:metadata": map[string]any{"f:labels": map[string]any{"f:a": map[string]any{}, "f:b": map[string]any{}}},
				"f:spec": map[string]any{"f:interval": map[string]any{}, "f:path": map[string]any{}, "f:prune": map[string]any{}, "f:sourceRef": map[string]any{}}},
		})
	}
	object := func(apiVersion, kind string, spec map[string]any) map[string]any {
		return map[string]any{
			"apiVersion": apiVersion, "kind": kind, "spec": spec,
			"metadata": map[string]any{
				"name": "airflow", "namespace": "flux-system", "uid": "2f4c0b0e-0000-4000-8000-000000000000", "resourceVersion": "123456", "generation": 3,
				"annotations": map[string]any{"example.com/counter": benchmarkCounter},
				"labels":      map[string]any{"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system", "a": "b"},
				"finalizers":  []any{"finalizers.fluxcd.io"}, "managedFields": managed,
			},
			"status": map[string]any{"observedGeneration": 3, "lastAppliedRevision": "main@sha1:0000000000000000000000000000000000000000",
				"conditions": []any{map[string]any{"type": "Ready", "status": "True", "reason": "ReconciliationSucceeded", "message": strings.Repeat("Applied revision. ", 8)}}},
		}
	}
	values := map[string]any{}
	for i := range 40 {
		values[fmt.Sprintf("key%d", i)] = map[string]any{"enabled": true, "resources": map[string]any{"limits": map[string]any{"memory": "1Gi"}}}
	}
	out := map[string][]byte{}
	for name, o := range map[string]map[string]any{
		"Kustomization": object("kustomize.toolkit.fluxcd.io/v1", "Kustomization", map[string]any{
			"interval": "10m", "path": "./kubernetes/apps/airflow", "prune": true, "targetNamespace": "airflow",
			"sourceRef": map[string]any{"kind": "GitRepository", "name": "home"}, "dependsOn": []any{map[string]any{"name": "cnpg"}},
			"patches": []any{map[string]any{"patch": "- op: add\n  path: /spec/replicas\n  value: 2\n", "target": map[string]any{"kind": "Deployment"}}},
		}),
		"HelmRelease": object("helm.toolkit.fluxcd.io/v2", "HelmRelease", map[string]any{
			"interval": "10m", "values": values, "chart": map[string]any{"spec": map[string]any{"chart": "app", "version": "1.2.3",
				"sourceRef": map[string]any{"kind": "HelmRepository", "name": "app"}}},
		}),
		"Cluster": object("postgresql.cnpg.io/v1", "Cluster", map[string]any{
			"instances": 3, "storage": map[string]any{"size": "10Gi"}, "monitoring": map[string]any{"enablePodMonitor": true},
		}),
	} {
		raw, err := json.Marshal(o)
		if err != nil {
			tb.Fatal(err)
		}
		group, _, _ := strings.Cut(o["apiVersion"].(string), "/")
		request := &admissionv1.AdmissionRequest{
			UID: "705ab4f5-6393-11e8-b7cc-42010a800002", Kind: metav1.GroupVersionKind{Group: group, Version: "v1", Kind: name},
			Name: "airflow", Namespace: "flux-system", Operation: admissionv1.Update,
		}
		request.Object.Raw = raw
		request.OldObject.Raw = bytes.Replace(raw, []byte(`"interval":"10m"`), []byte(`"interval":"20m"`), 1)
		if name == "Cluster" {
			request.OldObject.Raw = bytes.Replace(raw, []byte(`"instances":3`), []byte(`"instances":2`), 1)
		}
		out[name], err = json.Marshal(admissionv1.AdmissionReview{
			TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: request,
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	return out
}

// benchmarkCase is a review that is sent to the webhook and to the floor.
type benchmarkCase struct {
	name, body string
	// refused means that the webhook refuses it.
	refused bool
	// helm is the CPU time of Helm's validation of the same values; 0 for a case without.
	helm time.Duration
}

// benchmarkCases returns a case of each kind, and one of each kind that the webhook refuses.
func benchmarkCases(tb testing.TB) []benchmarkCase {
	tb.Helper()
	reviews := benchmarkReviews(tb)
	var out []benchmarkCase
	for _, kind := range []string{"Kustomization", "HelmRelease", "Cluster"} {
		// The stored object is valid, so that nothing is excused for being there before.
		valid, wrong := "", ""
		switch kind {
		case "Kustomization":
			valid, wrong = `"namespace":"flux-system","resourceVersion"`, `"namespace":"app-systems","resourceVersion"`
		case "HelmRelease":
			valid, wrong = `{"key0":{`, `{"kay0":{`
		case "Cluster":
			valid, wrong = `{"enablePodMonitor":true}`, `{"enabled":true}`
		}
		refused := strings.Replace(string(reviews[kind]), valid, wrong, 1)
		if refused == string(reviews[kind]) {
			tb.Fatalf("%s has no %s", kind, valid)
		}
		out = append(out, benchmarkCase{name: kind, body: string(reviews[kind])}, benchmarkCase{name: kind + "Refused", body: refused, refused: true})
	}
	return out
}

// BenchmarkReviewAgainstFloor sends each review to the webhook and to the floor in turn, each in its own process. It
// reports the CPU seconds of each for 1,000 reviews, and their ratio. For a large release, it also reports how many times
// more CPU time Helm takes to validate the same values. No two reviews have the same object.
func BenchmarkReviewAgainstFloor(b *testing.B) {
	cases := benchmarkCases(b)
	var charts []string
	for _, c := range largeCharts(b) {
		charts = append(charts, c.dir)
		cases = append(cases, c.benchmarkCases(b)...)
	}
	b.Setenv(benchmarkCharts, strings.Join(charts, string(filepath.ListSeparator)))
	server, floor := startServer(b, "webhook"), startServer(b, "floor")
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) { c.run(b, server, floor) })
	}
}

func (c *benchmarkCase) run(b *testing.B, server, floor *benchmarkClient) {
	b.Helper()
	var n atomic.Int64
	before, after, ok := strings.Cut(c.body, benchmarkCounter)
	if !ok {
		b.Fatalf("%s has no counter", c.name)
	}
	both := func() error {
		body := fmt.Appendf(nil, "%s%0*d%s", before, len(benchmarkCounter), n.Add(1), after)
		return errors.Join(server.post(b.Context(), body, !c.refused), floor.post(b.Context(), body, true))
	}
	for range 200 { // fill connections, caches and heaps of both
		if err := both(); err != nil {
			b.Fatal(err)
		}
	}
	var failed atomic.Pointer[error]
	serverBefore, floorBefore := server.cpu(b), floor.cpu(b)
	b.SetBytes(int64(len(c.body)))
	b.SetParallelism(2)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := both(); err != nil {
				failed.Store(&err)
				return
			}
		}
	})
	b.StopTimer()
	if err := failed.Load(); err != nil {
		b.Fatal(*err)
	}
	serverCPU, floorCPU := server.cpu(b)-serverBefore, floor.cpu(b)-floorBefore
	per1000 := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(b.N) }
	b.ReportMetric(per1000(serverCPU), "webhook-cpu-s/1000")
	b.ReportMetric(per1000(floorCPU), "floor-cpu-s/1000")
	b.ReportMetric(serverCPU.Seconds()/floorCPU.Seconds(), "webhook/floor")
	if c.helm > 0 {
		b.ReportMetric(c.helm.Seconds()*1000, "helm-cpu-s/1000")
		b.ReportMetric(c.helm.Seconds()*float64(b.N)/serverCPU.Seconds(), "helm/webhook")
	}
}

// BenchmarkHandler calls the handler without HTTP, for its allocations per review.
func BenchmarkHandler(b *testing.B) {
	g, err := denyAll()
	if err != nil {
		b.Fatal(err)
	}
	objects, err := benchmarkObjects()
	if err != nil {
		b.Fatal(err)
	}
	handler := newTestServerWith(g, objects, logr.Discard()).handler
	for _, c := range benchmarkCases(b) {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(c.body)))
			for b.Loop() {
				req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, webhookconfig.ValidatePath, strings.NewReader(c.body))
				if err != nil {
					b.Fatal(err)
				}
				handler.ServeHTTP(discard{}, req)
			}
		})
	}
}

// discard is a response writer that drops everything.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}
