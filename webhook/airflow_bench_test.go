package webhook_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// largeChart is a chart with a schema of Airflow's size, and values that it accepts.
type largeChart struct {
	// name is the benchmark's; dir holds the chart, as chart at version.
	name, dir, chart, version string
	values                    map[string]any
}

// largeCharts returns a generated chart and, if it exists beside the project, that of Airflow.
func largeCharts(b *testing.B) []largeChart {
	b.Helper()
	out := []largeChart{generatedChart(b)}
	recorded := filepath.Join("..", "..", "shared", "charts", "airflow-1.16.0")
	if _, err := os.Stat(recorded); err != nil {
		b.Logf("without Airflow's chart: %v", err)
		return out
	}
	return append(out, largeChart{"Airflow", recorded, "airflow", "1.16.0", map[string]any{
		"executor": "KubernetesExecutor", "data": map[string]any{"metadataSecretName": "airflow-db"},
		"webserver": map[string]any{"replicas": int64(2)}, "dags": map[string]any{"gitSync": map[string]any{"enabled": true, "repo": "https://git.example.com/dags.git"}},
	}})
}

// generatedChart writes a chart with 118 definitions of 30 properties each, many of which refer to others.
func generatedChart(b *testing.B) largeChart {
	b.Helper()
	pad := strings.Repeat("what the property is for ", 4)
	definitions, properties, defaults := map[string]any{}, map[string]any{}, map[string]any{}
	for i := range 118 {
		props := map[string]any{}
		for j := range 30 {
			p := map[string]any{"type": []any{"string", "null"}, "description": pad}
			if j%5 == 0 && i < 117 {
				p = map[string]any{"$ref": fmt.Sprintf("#/definitions/d%d", i+1)}
			}
			props[fmt.Sprintf("p%d", j)] = p
		}
		definitions[fmt.Sprintf("d%d", i)] = map[string]any{"type": "object", "additionalProperties": false, "properties": props}
		properties[fmt.Sprintf("k%d", i)] = map[string]any{"$ref": fmt.Sprintf("#/definitions/d%d", i)}
		if i == 117 {
			break // it refers to no other
		}
		defaults[fmt.Sprintf("k%d", i)] = map[string]any{"p0": map[string]any{"p1": "x", "p2": "y"}, "p2": "y", "p5": map[string]any{"p1": "text", "p2": "text", "p3": "text", "p4": "text"}}
	}
	schema, err := json.Marshal(map[string]any{
		"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "additionalProperties": false, "properties": properties, "definitions": definitions,
	})
	if err != nil {
		b.Fatal(err)
	}
	values, err := yaml.Marshal(defaults)
	if err != nil {
		b.Fatal(err)
	}
	dir := filepath.Join(b.TempDir(), "large")
	if err := os.Mkdir(dir, 0o750); err != nil {
		b.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"Chart.yaml": []byte("apiVersion: v2\nname: large\nversion: 1.0.0\n"), "values.yaml": values, "values.schema.json": schema,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return largeChart{"generated", dir, "large", "1.0.0", map[string]any{
		"k0": map[string]any{"p1": "mine"}, "k7": map[string]any{"p0": map[string]any{"p3": "mine"}}, "k99": map[string]any{"p2": "mine"},
	}}
}

// review returns an update of a release of the chart, as Flux sends it, that changes its values.
func (c largeChart) review(b *testing.B) []byte {
	b.Helper()
	object := func(interval string) []byte {
		data, err := json.Marshal(map[string]any{
			"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease", "metadata": map[string]any{"name": "large", "namespace": "flux-system"},
			"spec": map[string]any{"interval": interval, "values": c.values, "chart": map[string]any{"spec": map[string]any{
				"chart": c.chart, "version": c.version, "sourceRef": map[string]any{"kind": "HelmRepository", "name": "app"},
			}}},
		})
		if err != nil {
			b.Fatal(err)
		}
		return data
	}
	request := &admissionv1.AdmissionRequest{
		UID: "705ab4f5-6393-11e8-b7cc-42010a800002", Kind: metav1.GroupVersionKind{Group: "helm.toolkit.fluxcd.io", Version: "v2", Kind: "HelmRelease"},
		Name: "large", Namespace: "flux-system", Operation: admissionv1.Update,
	}
	request.Object.Raw, request.OldObject.Raw = object("10m"), object("20m")
	out, err := json.Marshal(admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: request})
	if err != nil {
		b.Fatal(err)
	}
	return out
}

// helm returns the time that Helm's library takes for the same values, without reading the chart.
func (c largeChart) helm(b *testing.B) time.Duration {
	b.Helper()
	log.SetOutput(io.Discard) // Helm warns of the values it merges
	defer log.SetOutput(os.Stderr)
	ch, err := loader.LoadDir(c.dir)
	if err != nil {
		b.Fatal(err)
	}
	const rounds = 20
	var took time.Duration
	for range rounds {
		data, err := json.Marshal(c.values)
		if err != nil {
			b.Fatal(err)
		}
		values := map[string]any{}
		if err := json.Unmarshal(data, &values); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		if err := chartutil.ProcessDependencies(ch, values); err != nil {
			b.Fatal(err)
		}
		merged, err := util.CoalesceValues(ch, values)
		if err != nil {
			b.Fatal(err)
		}
		if err := util.ValidateAgainstSchema(ch, merged); err != nil {
			b.Fatal(err)
		}
		took += time.Since(began)
	}
	return took / rounds
}

// recorder keeps a response.
type recorder struct {
	bytes.Buffer
	header http.Header
}

func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) WriteHeader(int)     {}

// BenchmarkLargeRelease evaluates a release with all rules whose chart is in the cache, and compares it with Helm's
// validation of the same values.
func BenchmarkLargeRelease(b *testing.B) {
	for _, c := range largeCharts(b) {
		b.Run(c.name, func(b *testing.B) {
			b.Setenv(benchmarkCharts, c.dir)
			g, err := denyAll()
			if err != nil {
				b.Fatal(err)
			}
			objects, err := benchmarkObjects()
			if err != nil {
				b.Fatal(err)
			}
			handler := newTestServerWith(g, objects, logr.Discard()).handler
			body := c.review(b)
			once := func(w http.ResponseWriter) {
				req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, webhookconfig.ValidatePath, bytes.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				handler.ServeHTTP(w, req)
			}
			response := &recorder{header: http.Header{}}
			once(response) // the chart is compiled now
			if text := response.String(); !strings.Contains(text, `"allowed":true`) || strings.Contains(text, "unknown") || strings.Contains(text, "warnings") {
				b.Fatalf("the response is %s", text)
			}
			helm := c.helm(b)
			b.ReportAllocs()
			for b.Loop() {
				once(discard{})
			}
			webhook := b.Elapsed() / time.Duration(b.N)
			b.ReportMetric(float64(helm.Microseconds())/1000, "helm-ms")
			b.ReportMetric(helm.Seconds()/webhook.Seconds(), "helm/webhook")
		})
	}
}

// BenchmarkPaced sends 50 reviews per second of a release with a large chart to the webhook, and as many to the floor.
// It reports the median and the 99th percentile of the response times. One round takes twelve seconds.
func BenchmarkPaced(b *testing.B) {
	const perSecond, reviews = 50, 600
	for _, c := range largeCharts(b) {
		b.Run(c.name, func(b *testing.B) {
			b.Setenv(benchmarkCharts, c.dir)
			body := c.review(b)
			servers := map[string]*benchmarkClient{"webhook": startServer(b, "webhook"), "floor": startServer(b, "floor")}
			took := map[string][]time.Duration{}
			for range 20 {
				for _, s := range servers {
					if err := s.post(b.Context(), body); err != nil {
						b.Fatal(err)
					}
				}
			}
			tick := time.NewTicker(time.Second / perSecond)
			defer tick.Stop()
			for b.Loop() {
				for range reviews {
					<-tick.C
					for name, s := range servers {
						began := time.Now()
						if err := s.post(b.Context(), body); err != nil {
							b.Fatal(err)
						}
						took[name] = append(took[name], time.Since(began))
					}
				}
			}
			for name, list := range took {
				slices.Sort(list)
				b.ReportMetric(float64(list[len(list)/2].Microseconds())/1000, name+"-p50-ms")
				b.ReportMetric(float64(list[len(list)*99/100].Microseconds())/1000, name+"-p99-ms")
			}
		})
	}
}
