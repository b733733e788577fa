package helmchart_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/validators"

	"github.com/flux-admission/flux-admission/internal/helmchart"
)

// size is a chart of some size with a release's values.
type size struct {
	name   string
	chart  func() *chart.Chart
	values map[string]any
}

// sizes returns a small chart, one of Airflow's size, and one with several of these: Airflow's own chart if it is
// available, else one generated like it.
func sizes(b *testing.B) []size {
	b.Helper()
	read := func(dir string) func() *chart.Chart {
		return func() *chart.Chart {
			c, err := archive.ReadPath(dir, archive.DefaultLimits())
			if err != nil {
				b.Fatal(err)
			}
			return c
		}
	}
	values := object(b, `
executor: KubernetesExecutor
data: {metadataConnection: {user: airflow, host: db, port: 5432, db: airflow, sslmode: require}}
workers: {replicas: 3, resources: {}}
`).Object
	out := []size{{"small", read("../../test/demo/charts/airflow"), values}}
	dir := filepath.Join("..", "..", "..", "shared", "charts", "airflow-1.16.0")
	if _, err := os.Stat(dir); err == nil {
		out = append(out, size{"airflow", read(dir), values})
		return append(out, size{"umbrella", umbrella(read(dir)), map[string]any{"one": values}})
	}
	out = append(out, size{"generated", generated(b), values})
	return append(out, size{"umbrella", umbrella(generated(b)), map[string]any{"one": values}})
}

// umbrella returns a chart with three subcharts of the size of another.
func umbrella(of func() *chart.Chart) func() *chart.Chart {
	return func() *chart.Chart {
		root := &chart.Chart{Metadata: &chart.Metadata{Name: "umbrella", Version: "1.0.0"}, Values: map[string]any{"global": map[string]any{}}}
		for _, name := range []string{"one", "two", "three"} {
			sub := of()
			sub.Metadata.Name, sub.Metadata.Dependencies = name, nil
			root.Metadata.Dependencies = append(root.Metadata.Dependencies, &chart.Dependency{Name: name, Version: ">=0.0.0-0", Condition: name + ".enabled"})
			root.AddDependency(sub)
		}
		return root
	}
}

// generated returns a chart with 118 definitions of some 30 properties each, used over and over: about 600 KB, as
// Airflow's schema.
func generated(b *testing.B) func() *chart.Chart {
	b.Helper()
	definitions, properties, defaults := map[string]any{}, map[string]any{}, map[string]any{}
	pad := strings.Repeat("A description of some length. ", 3)
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
		value := map[string]any{}
		for j := 1; j < 5; j++ {
			value[fmt.Sprintf("p%d", j)] = "text"
		}
		defaults[fmt.Sprintf("k%d", i)] = map[string]any{"p0": map[string]any{"p1": "x"}, "p2": "y", "p5": value}
	}
	defaults["k117"] = map[string]any{"p0": "x", "p2": "y", "p5": "z"} // the last definition refers to none
	properties["global"] = map[string]any{"type": "object"}            // Helm gives it to every subchart
	properties["data"], properties["executor"], properties["workers"] = map[string]any{"type": "object"}, map[string]any{"type": "string"}, map[string]any{"type": "object"}
	doc, err := json.Marshal(map[string]any{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "additionalProperties": false, "properties": properties, "definitions": definitions})
	if err != nil {
		b.Fatal(err)
	}
	text, err := yaml.Marshal(defaults)
	if err != nil {
		b.Fatal(err)
	}
	return func() *chart.Chart {
		var values map[string]any
		if err := yaml.Unmarshal(text, &values); err != nil {
			b.Fatal(err)
		}
		return &chart.Chart{Metadata: &chart.Metadata{Name: "generated", Version: "1.0.0"}, Values: values, Schema: doc}
	}
}

// clone copies values by way of JSON.
func clone(v map[string]any) map[string]any {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(b, &out); err != nil {
		panic(err)
	}
	return out
}

// BenchmarkValidate measures one validation: Helm's, ours of a new chart, and ours of a prepared one.
func BenchmarkValidate(b *testing.B) {
	log.SetOutput(io.Discard) // Helm logs warnings about values
	b.Cleanup(func() { log.SetOutput(os.Stderr) })
	for _, s := range sizes(b) {
		b.Run(s.name+"/helm", func(b *testing.B) {
			b.ReportAllocs()
			ch := s.chart()
			for b.Loop() {
				values := clone(s.values)
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
			}
		})
		b.Run(s.name+"/cold", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				validate(b, helmchart.New(s.chart(), helmchart.Options{}), s.values)
			}
		})
		b.Run(s.name+"/warm", func(b *testing.B) {
			b.ReportAllocs()
			c := helmchart.New(s.chart(), helmchart.Options{})
			for b.Loop() {
				validate(b, c, s.values)
			}
		})
	}
}

func validate(b *testing.B, c validators.Chart, values map[string]any) {
	v, err := c.Validate(b.Context(), validators.Values{Namespace: "apps", Inline: values})
	if err != nil || len(v.Violations) > 0 || !v.HasSchema {
		b.Fatalf("Validate() = %+v, %v", v, err)
	}
}

// heap returns the bytes in use after a garbage collection.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkChartMemory measures the memory of a chart, estimated and real.
func BenchmarkChartMemory(b *testing.B) {
	for _, s := range sizes(b) {
		b.Run(s.name, func(b *testing.B) {
			for b.Loop() {
				before := heap()
				c := helmchart.New(s.chart(), helmchart.Options{})
				validate(b, c, s.values)
				b.ReportMetric(float64(heap()-before), "heap-B")
				b.ReportMetric(float64(c.Memory()), "estimated-B")
				runtime.KeepAlive(c)
			}
		})
	}
}
