package chartsource_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/helmrelease"

	"github.com/flux-admission/flux-admission/internal/chartsource"
)

// shared holds real charts and the history of a real repository; it is no part of this one.
const shared = "../../../shared"

const release = "kubernetes/apps/airflow/airflow/app/helmrelease.yaml"

// replayed returns a HelmRelease as it stood in a tree of the real repository.
func replayed(t testing.TB, tree string) map[string]any {
	t.Helper()
	bundle, err := filepath.Abs(filepath.Join(shared, "replay", "trees.bundle"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, args := range [][]string{
		{"clone", "--quiet", "--no-checkout", bundle, dir},
		{"-C", dir, "show", tree + ":" + release},
	} {
		out, err := exec.CommandContext(t.Context(), "git", args...).Output()
		if err != nil {
			t.Fatalf("git %v: %v", args, err)
		}
		if args[0] == "-C" {
			return object(t, string(out)).Object
		}
	}
	return nil
}

// The release that the chart's schema refused in a real cluster is refused here, in Helm's words; the one that replaced it is admitted.
func TestAirflowBeforeAndAfter(t *testing.T) {
	if _, err := os.Stat(filepath.Join(shared, "replay")); err != nil {
		t.Logf("%s is not there: nothing was replayed", shared)
		return
	}
	suite, err := validators.NewSuite(helmrelease.ValuesSchema)
	if err != nil {
		t.Fatal(err)
	}
	m := lookup.NewMemory()
	m.Complete = false // Secrets of the cluster are not in the tree
	m.Charts = resolver(t, chartsource.Options{Dirs: []string{filepath.Join(shared, "charts", "airflow-1.16.0")}})
	for tree, want := range map[string][]string{
		"t-28185b2": {"/data/metadataConnection", "'existingSecret'", "'existingSecretKey'"},
		"t-a8a58c1": nil,
	} {
		t.Run(tree, func(t *testing.T) {
			o := object(t, "{}")
			o.Object = replayed(t, tree)
			res := suite.Evaluate(t.Context(), validators.Request{Operation: validators.Create, Object: o}, m)
			var text strings.Builder
			for _, f := range res.Findings {
				fmt.Fprintf(&text, "%s: %s\n", f.Path, f.Message)
			}
			t.Logf("%sskipped: %+v", text.String(), res.Skipped)
			if len(res.Errors) > 0 || (len(res.Findings) > 0) != (want != nil) {
				t.Errorf("%d findings, errors %v", len(res.Findings), res.Errors)
			}
			for _, w := range want {
				if !strings.Contains(text.String(), w) {
					t.Errorf("%q is not in the findings", w)
				}
			}
		})
	}
}

// size is a chart to measure with: its directory's content, and a release's values.
type size struct {
	name   string
	chart  func() *chart.Chart
	values map[string]any
}

// sizes returns a small chart and one of Airflow's size: Airflow's own where it is at hand, else one generated like it.
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
	dir := filepath.Join(shared, "charts", "airflow-1.16.0")
	if _, err := os.Stat(dir); err == nil {
		out = append(out, size{"airflow", read(dir), values})
		return append(out, size{"umbrella", umbrella(read(dir)), map[string]any{"one": values}})
	}
	b.Logf("%s is not there: a schema of its size is generated", dir)
	out = append(out, size{"generated", generated(b), values})
	return append(out, size{"umbrella", umbrella(generated(b)), map[string]any{"one": values}})
}

// umbrella is a chart with three subcharts of the size of another.
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

// generated makes a chart with 118 definitions of some 30 properties each, used over and over: about 600 KB, as Airflow's schema.
func generated(b *testing.B) func() *chart.Chart {
	b.Helper()
	definitions, properties, defaults := map[string]any{}, map[string]any{}, map[string]any{}
	pad := strings.Repeat("What this is good for, in so many words. ", 3)
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

// The cost of one verdict: Helm's own, ours with the chart seen for the first time, and with the chart known.
func BenchmarkVerdict(b *testing.B) {
	log.SetOutput(io.Discard) // Helm warns of the values it merges
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
				verdict(b, chartsource.NewChart(s.chart(), nil), s.values)
			}
		})
		b.Run(s.name+"/warm", func(b *testing.B) {
			b.ReportAllocs()
			c := chartsource.NewChart(s.chart(), nil)
			for b.Loop() {
				verdict(b, c, s.values)
			}
		})
	}
}

func verdict(b *testing.B, c validators.Chart, values map[string]any) {
	v, err := c.Validate(b.Context(), validators.Values{Namespace: "apps", Inline: values})
	if err != nil || len(v.Violations) > 0 || !v.HasSchema {
		b.Fatalf("verdict %+v, %v", v, err)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// The memory that Airflow's chart takes, as the cache counts it and as it is.
func BenchmarkChartMemory(b *testing.B) {
	for _, s := range sizes(b) {
		b.Run(s.name, func(b *testing.B) {
			for b.Loop() {
				before := heap()
				c := chartsource.NewChart(s.chart(), nil)
				verdict(b, c, s.values)
				b.ReportMetric(float64(heap()-before), "heap-B")
				b.ReportMetric(float64(c.Bytes()), "estimated-B")
				runtime.KeepAlive(c)
			}
		})
	}
}

// The cost of one review does not grow with the number of charts that are known.
func BenchmarkCachedCharts(b *testing.B) {
	for _, n := range []int{1, 10, 100, 500} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			server := newRepo(b)
			var index strings.Builder
			index.WriteString("apiVersion: v1\nentries:\n")
			for i := range n {
				name := fmt.Sprintf("app%d", i)
				server.set("/"+name+".tgz", chartArchive(b, name, "1.0.0", map[string]string{"values.yaml": "port: 1\n", "values.schema.json": strictSchema}))
				fmt.Fprintf(&index, "  %s:\n  - {apiVersion: v2, name: %s, version: 1.0.0, urls: [%s.tgz]}\n", name, name, name)
			}
			server.set("/index.yaml", []byte(index.String()))
			seen := &observer{}
			r := resolver(b, chartsource.Options{Wait: time.Minute, Observer: seen})
			m := lookup.NewMemory(helmRepository(b, server.URL, ""))
			review := func(i int) {
				c, presence, err := r.Resolve(b.Context(), m, ref(fmt.Sprintf("app%d", i), "1.x"))
				if presence != validators.Present {
					b.Fatal(presence, err)
				}
				verdict(b, c, map[string]any{"port": int64(1)})
			}
			before := heap()
			for i := range n {
				review(i)
			}
			held := heap() - before
			i := 0
			for b.Loop() {
				review(i % n)
				i++
			}
			b.ReportMetric(float64(seen.bytes.Load())/float64(n), "estimated-B/chart")
			b.ReportMetric(float64(held)/float64(n), "heap-B/chart")
		})
	}
}
