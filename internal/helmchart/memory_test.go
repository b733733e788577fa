package helmchart_test

import (
	"fmt"
	"maps"
	"runtime"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/internal/helmchart"
	"github.com/flux-admission/flux-admission/validators"
)

// TestChart_Memory: the cache is bounded by what charts report, so that must be what they hold. 40 charts whose templates
// have many words held 343 MiB and reported 169 KiB.
func TestChart_Memory(t *testing.T) {
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	patterns := func(n int, text string) string {
		return `{"additionalProperties": {}, "properties": {` + many(n, `"a%d": {"pattern": "`+text+`"},`) + `"last": {}}}`
	}
	for name, files := range map[string]map[string]string{
		"words":        {"templates/a.yaml": many(40_000, "{{ .Values.w%05dxxxxxxxxxxxxxxxxxxxx }}\n")},
		"too many":     {"templates/a.yaml": many(120_000, "{{ .Values.w%05dxxxxxxxxxxxxxxxxxxxx }}\n")},
		"one word":     {"templates/a.yaml": "{{ .Values.word }}" + strings.Repeat(" ", 4<<20)},
		"comments":     {"values.yaml": "a: 1\n" + many(20_000, "# w%05d: x\n")},
		"values":       {"values.yaml": many(20_000, "k%d: 1\n")},
		"texts":        {"values.yaml": many(2_000, "k%d: "+strings.Repeat("x", 500)+"\n")},
		"small maps":   {"values.yaml": many(10_000, "k%d: {a: b}\n")},
		"small lists":  {"values.yaml": "l: [" + many(20_000, "[%d],") + "]\n"},
		"a schema":     {"values.schema.json": `{"properties": {` + many(2_000, `"a%d": {"type": "string", "minLength": 1},`) + `"last": {}}}`},
		"enumerations": {"values.schema.json": `{"properties": {` + many(100, `"a%d": {"enum": [`+strings.TrimSuffix(strings.Repeat(`"`+strings.Repeat("x", 50)+`",`, 1)+many(200, `"v%[1]d",`), ",")+`]},`) + `"last": {}}}`},
		"patterns":     {"values.schema.json": patterns(40, "^(%[1]d|[a-z]{0,60}){0,30}$")},
		"classes":      {"values.schema.json": patterns(8, `^%[1]d`+strings.Repeat(`\\pL`, 50)+`$`)},
	} {
		t.Run(name, func(t *testing.T) {
			all := map[string]string{"values.yaml": "a: 1\n"}
			maps.Copy(all, files)
			const charts = 4
			kept := make([]*helmchart.Chart, charts)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			var accounted int64
			for i := range kept {
				kept[i] = newChart(t, all, helmchart.Options{})
				// What a review adds is kept as well.
				if _, err := kept[i].Validate(t.Context(), validators.Values{Inline: map[string]any{"a": "x"}}); err != nil {
					t.Log(err)
				}
				accounted += kept[i].Memory()
			}
			runtime.GC()
			runtime.GC() // pools
			runtime.ReadMemStats(&after)
			held := int64(after.HeapAlloc) - int64(before.HeapAlloc)
			runtime.KeepAlive(kept)
			t.Logf("held %d KiB, accounted %d KiB", held>>10, accounted>>10)
			if held > accounted*3/2+128<<10 {
				t.Errorf("%d charts hold %d KiB, accounted as %d KiB", charts, held>>10, accounted>>10)
			}
			if accounted > 6*held+256<<10 {
				t.Errorf("%d charts hold only %d KiB, accounted as %d KiB", charts, held>>10, accounted>>10)
			}
		})
	}
}
