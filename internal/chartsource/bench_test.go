package chartsource_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
)

// BenchmarkCachedCharts measures a lookup and a validation with a growing number of cached charts.
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
			lookUp := func(i int) {
				c, presence, err := r.Resolve(b.Context(), m, ref(fmt.Sprintf("app%d", i), "1.x"))
				if presence != validators.Present {
					b.Fatal(presence, err)
				}
				if v, err := c.Validate(b.Context(), validators.Values{Inline: map[string]any{"port": int64(1)}}); err != nil || len(v.Violations) > 0 {
					b.Fatalf("Validate() = %+v, %v", v, err)
				}
			}
			before := heap()
			for i := range n {
				lookUp(i)
			}
			used := heap() - before
			i := 0
			for b.Loop() {
				lookUp(i % n)
				i++
			}
			b.ReportMetric(float64(seen.bytes.Load())/float64(n), "estimated-B/chart")
			b.ReportMetric(float64(used)/float64(n), "heap-B/chart")
		})
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
