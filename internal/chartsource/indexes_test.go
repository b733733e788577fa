package chartsource

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flux-admission/flux-admission/internal/chartsource/repository"
)

// TestIndexes_Bounded: an index that is too large to be kept is kept for the charts that were wanted, and all indexes
// together are bounded.
func TestIndexes_Bounded(t *testing.T) {
	limits := repository.AdmissionIndexLimits()
	var text strings.Builder
	text.WriteString(`{"apiVersion": "v1", "entries": {`)
	for c := range 3 {
		fmt.Fprintf(&text, `"chart%d": [`, c)
		for v := range 8_000 {
			fmt.Fprintf(&text, `{"name": "chart%d", "version": "1.0.%d", "digest": "%064d"},`, c, v, v)
		}
		text.WriteString("null],")
	}
	text.WriteString(`"last": []}}`)
	reads := 0
	x := newIndexes(time.Hour, time.Now)
	get := func(key, chart string) {
		t.Helper()
		index, err := x.get(t.Context(), key, chart, func() (*repository.Index, error) {
			reads++
			return repository.ReadIndex(strings.NewReader(text.String()), chart, limits)
		})
		if err != nil {
			t.Fatal(err)
		}
		if v, err := index.Find(chart, ""); err != nil || v.Version != "1.0.7999" {
			t.Fatalf("Find(%s) = %+v, %v", chart, v, err)
		}
	}
	get("one", "chart0")
	get("one", "chart0")
	get("one", "chart2")
	get("one", "chart2")
	if reads != 2 {
		t.Errorf("%d reads of an index for two charts, want 2", reads)
	}
	for i := range 20 {
		get(fmt.Sprint(i), "chart1")
	}
	var sum int64
	for _, item := range x.items {
		sum += item.index.Memory()
	}
	if sum != x.bytes || sum > maxIndexesBytes || sum < maxIndexesBytes/2 {
		t.Errorf("the cached indexes have %d bytes, accounted as %d, want at most %d", sum, x.bytes, maxIndexesBytes)
	}
}
