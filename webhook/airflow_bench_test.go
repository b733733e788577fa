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
	"syscall"
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

// largeValues is the size of the values of a large release as JSON, in bytes.
const largeValues = 39 << 10

// benchmarkCases returns reviews of a release that sets 39 KB of values: the chart's own and more. One is valid, the other has
// a misspelled key.
func (c largeChart) benchmarkCases(b *testing.B) []benchmarkCase {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, "values.yaml"))
	if err != nil {
		b.Fatal(err)
	}
	c.values = map[string]any{}
	if err := yaml.Unmarshal(text, &c.values); err != nil {
		b.Fatal(err)
	}
	add, object := c.addVariable, `"metadataConnection":{`
	if c.chart == "large" {
		add, object = c.addProperty, `"k0":{`
	}
	for i := 0; ; i++ {
		data, err := json.Marshal(c.values)
		if err != nil {
			b.Fatal(err)
		}
		if len(data) >= largeValues {
			break
		}
		add(i)
	}
	helm := c.helm(b)
	body := string(c.review(b))
	return []benchmarkCase{
		{name: c.name + "39KB", body: body, helm: helm},
		{name: c.name + "39KBRefused", body: strings.Replace(body, object, object+`"existingSecret":"x",`, 1), refused: true, helm: helm},
	}
}

// addVariable adds an environment variable to the values of Airflow's chart.
func (c largeChart) addVariable(i int) {
	env, _ := c.values["env"].([]any)
	value := map[string]any{"name": fmt.Sprintf("AIRFLOW_VAR_%d", i), "value": "some value of an environment variable"}
	if i == 0 {
		value["value"] = benchmarkCounter
	}
	c.values["env"] = append(env, value)
}

// addProperty adds properties to the values of the generated chart.
func (c largeChart) addProperty(i int) {
	v := c.values[fmt.Sprintf("k%d", i%117)].(map[string]any)
	value := "some text that the schema allows"
	if i == 0 {
		value = benchmarkCounter
	}
	round := i / 117
	v[fmt.Sprintf("p%d", 6+round+round/4)] = value // every fifth property is an object
}

// review returns an update of a release of the chart, as Flux sends it, that changes its values.
func (c largeChart) review(b *testing.B) []byte {
	b.Helper()
	object := func(interval string) []byte {
		data, err := json.Marshal(map[string]any{
			"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease", "metadata": map[string]any{"name": "large", "namespace": "flux-system", "annotations": map[string]any{"example.com/counter": benchmarkCounter}},
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

// helm returns the CPU time that Helm's library takes for the same values, without reading the chart.
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
		began := cpuTime(b)
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
		took += cpuTime(b) - began
	}
	return took / rounds
}

// cpuTime returns the CPU time of this process.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// recorder keeps a response.
type recorder struct {
	bytes.Buffer
	header http.Header
}

func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) WriteHeader(int)     {}

// BenchmarkLargeRelease evaluates a release with all rules whose chart is in the cache, and compares its CPU time with that of
// Helm's validation of the same values: one that sets few values, and one that sets 39 KB of them. No two reviews have the
// same object.
func BenchmarkLargeRelease(b *testing.B) {
	for _, c := range largeCharts(b) {
		b.Setenv(benchmarkCharts, c.dir)
		objects, err := benchmarkObjects()
		if err != nil {
			b.Fatal(err)
		}
		g, err := denyAll()
		if err != nil {
			b.Fatal(err)
		}
		handler := newTestServerWith(g, objects, logr.Discard()).handler
		few := benchmarkCase{name: c.name, body: string(c.review(b)), helm: c.helm(b)}
		for _, c := range append([]benchmarkCase{few}, c.benchmarkCases(b)...) {
			b.Run(c.name, func(b *testing.B) { c.evaluate(b, handler) })
		}
	}
}

// evaluate calls the handler without HTTP.
func (c *benchmarkCase) evaluate(b *testing.B, handler http.Handler) {
	b.Helper()
	before, after, ok := strings.Cut(c.body, benchmarkCounter)
	if !ok {
		b.Fatalf("%s has no counter", c.name)
	}
	n := 0
	once := func(w http.ResponseWriter) {
		n++
		body := fmt.Appendf(nil, "%s%0*d%s", before, len(benchmarkCounter), n, after)
		req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, webhookconfig.ValidatePath, bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		handler.ServeHTTP(w, req)
	}
	response := &recorder{header: http.Header{}}
	once(response) // the chart is compiled now
	if text := response.String(); !strings.Contains(text, fmt.Sprintf(`"allowed":%t`, !c.refused)) ||
		strings.Contains(text, `"unknown"`) || strings.Contains(text, "warnings") {
		b.Fatalf("the response is %s", text)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(c.body)))
	began := cpuTime(b)
	for b.Loop() {
		once(discard{})
	}
	webhook := (cpuTime(b) - began) / time.Duration(b.N)
	b.ReportMetric(float64(webhook.Microseconds())/1000, "webhook-cpu-ms")
	b.ReportMetric(float64(c.helm.Microseconds())/1000, "helm-cpu-ms")
	b.ReportMetric(c.helm.Seconds()/webhook.Seconds(), "helm/webhook")
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
					if err := s.post(b.Context(), body, true); err != nil {
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
						if err := s.post(b.Context(), body, true); err != nil {
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
