package check_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/flux-admission/flux-admission/internal/check"
)

// chartCount is the number of different charts of a generated repository.
const chartCount = 50

// BenchmarkRepository checks a generated repository of n Kustomizations, n HelmReleases of 50 charts and 10 n objects
// in all, from the first file to the report. It then changes one file and checks again. It reports seconds and the peak
// of the memory that the Go runtime holds.
func BenchmarkRepository(b *testing.B) {
	for _, n := range []int{100, 300, 1000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			dir := b.TempDir()
			generate(b, dir, n)
			var first, second time.Duration
			var objects int
			peak := watchMemory(b)
			for b.Loop() {
				began := time.Now()
				objects = checkGenerated(b, dir)
				first += time.Since(began)
				b.StopTimer()
				write(b, dir, "apps/app-0/config-0.yaml", configMap(0, 0, time.Now().String()))
				b.StartTimer()
				began = time.Now()
				checkGenerated(b, dir)
				second += time.Since(began)
			}
			b.ReportMetric(first.Seconds()/float64(b.N), "s/first")
			b.ReportMetric(second.Seconds()/float64(b.N), "s/one-file-changed")
			b.ReportMetric(float64(peak())/(1<<20), "MiB-peak")
			b.ReportMetric(float64(objects), "objects")
		})
	}
}

// watchMemory returns a function that returns the most memory that the Go runtime held since.
func watchMemory(b *testing.B) func() uint64 {
	b.Helper()
	runtime.GC()
	stop, ended := make(chan struct{}), make(chan uint64)
	go func() {
		var peak uint64
		var m runtime.MemStats
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			runtime.ReadMemStats(&m)
			peak = max(peak, m.Sys-m.HeapReleased)
			select {
			case <-stop:
				ended <- peak
				return
			case <-tick.C:
			}
		}
	}()
	return func() uint64 {
		close(stop)
		return <-ended
	}
}

func checkGenerated(b *testing.B, dir string) int {
	b.Helper()
	r, err := check.Run(
		b.Context(), check.Options{Input: check.Input{Path: dir, Charts: []string{filepath.Join(dir, "charts")}}},
	)
	if err != nil {
		b.Fatal(err)
	}
	if r.Summary.Deny > 0 || r.Summary.Errors > 0 {
		b.Fatalf("a repository without mistakes has %+v", r.Findings[0])
	}
	return r.Summary.Objects
}

func write(b *testing.B, dir, name, text string) {
	b.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
}

func configMap(app, i int, value string) string {
	return fmt.Sprintf(
		"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: config-%d-%d\ndata:\n  value: %q\n", app, i, value,
	)
}

// generate writes a repository: a Kustomization for each app, with a HelmRelease, a Deployment, a Service, and
// ConfigMaps up to ten objects.
func generate(b *testing.B, dir string, n int) {
	b.Helper()
	write(b, dir, "clusters/home/flux-system/gotk-sync.yaml", `apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 1m, url: https://git.example.com/x}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 10m, path: ./clusters/home, prune: true, sourceRef: {kind: GitRepository, name: flux-system}}
---
apiVersion: v1
kind: Namespace
metadata: {name: apps}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmRepository
metadata: {name: charts, namespace: flux-system}
spec: {interval: 1h, url: https://charts.example.com}
`)
	for i := range chartCount {
		chart := fmt.Sprintf("charts/chart-%d/", i)
		write(b, dir, chart+"Chart.yaml", fmt.Sprintf("apiVersion: v2\nname: chart-%d\nversion: 1.2.3\n", i))
		write(
			b, dir, chart+"values.yaml",
			"replicas: 1\nimage: {repository: example.com/app, tag: \"1\"}\nresources: {}\nservice: {port: 80}\n",
		)
		write(b, dir, chart+"values.schema.json", `{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "additionalProperties": false, "properties": {
 "replicas": {"type": "integer", "minimum": 0}, "image": {"type": "object", "properties": {"repository": {"type": "string"}, "tag": {"type": "string"}}},
 "resources": {"type": "object"}, "service": {"type": "object", "properties": {"port": {"type": "integer"}}}, "global": {"type": "object"}}}`)
		write(b, dir, chart+"templates/deployment.yaml", `apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec:
      containers:
        - name: app
          image: {{ .Values.image.repository }}:{{ .Values.image.tag }}
          resources: {{ toYaml .Values.resources | nindent 12 }}
`)
		write(
			b, dir, chart+"templates/service.yaml",
			"apiVersion: v1\nkind: Service\nmetadata: {name: {{ .Release.Name }}}\nspec: {selector: {app: {{ .Release.Name }}}, ports: [{port: {{ .Values.service.port }}}]}\n",
		)
	}
	for app := range n {
		depends := ""
		if app > 0 {
			depends = fmt.Sprintf("\n  dependsOn: [{name: app-%d}]", app/2)
		}
		if app == 1 {
			depends = "\n  dependsOn: [{name: app-0}]"
		}
		write(b, dir, fmt.Sprintf("clusters/home/app-%d.yaml", app), fmt.Sprintf(`apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: app-%d
  namespace: flux-system
spec:
  interval: 10m
  path: ./apps/app-%d
  prune: true
  targetNamespace: apps
  sourceRef: {kind: GitRepository, name: flux-system}
  postBuild: {substitute: {APP: app-%d}}%s
`, app, app, app, depends))
		at := fmt.Sprintf("apps/app-%d/", app)
		var list bytes.Buffer
		list.WriteString("resources:\n  - release.yaml\n  - workload.yaml\n")
		write(b, dir, at+"release.yaml", fmt.Sprintf(`apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata:
  name: ${APP}
spec:
  interval: 1h
  chart: {spec: {chart: chart-%d, version: 1.2.3, sourceRef: {kind: HelmRepository, name: charts, namespace: flux-system}}}
  values: {replicas: %d, image: {tag: v%d}, service: {port: 8080}}
`, app%chartCount, app%5, app))
		write(b, dir, at+"workload.yaml", fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata:
  name: web-%d
spec:
  selector: {matchLabels: {app: web-%d}}
  template:
    metadata: {labels: {app: web-%d}}
    spec: {containers: [{name: web, image: "example.com/web:1", envFrom: [{configMapRef: {name: config-%d-0}}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web-%d}
spec: {selector: {app: web-%d}, ports: [{port: 80}]}
`, app, app, app, app, app, app))
		for i := range 6 {
			name := fmt.Sprintf("config-%d.yaml", i)
			list.WriteString("  - " + name + "\n")
			write(b, dir, at+name, configMap(app, i, "x"))
		}
		write(b, dir, at+"kustomization.yaml", list.String())
	}
}
