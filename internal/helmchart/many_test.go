package helmchart_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flux-admission/flux-admission/internal/helmchart"
	"github.com/flux-admission/flux-admission/validators"
)

// TestChart_ManyViolations has thousands of wrong keys, a schema with thousands of similar ones, and values in a ConfigMap that
// must not be read again for each of them. Without the limits it takes minutes, and ends without a result.
func TestChart_ManyViolations(t *testing.T) {
	const count = 3000
	var properties, wrong []string
	for i := range count {
		properties = append(properties, fmt.Sprintf(`"someSetting%04dEnabled":{"type":"string"}`, i))
		wrong = append(wrong, fmt.Sprintf("someSettings%04dEnable: true\n", i))
	}
	c := newChart(t, map[string]string{
		"values.yaml":        "a: 1\n",
		"values.schema.json": `{"additionalProperties":false,"properties":{"a":{},` + strings.Join(properties, ",") + `}}`,
	}, helmchart.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	result, err := c.Validate(ctx, validators.Values{Namespace: "apps", From: []validators.ValuesSource{from("ConfigMap", "old", "", strings.Join(wrong, ""))}})
	if err != nil || ctx.Err() != nil {
		t.Fatalf("no result: %v, %v", err, ctx.Err())
	}
	if len(result.Violations)+result.More != count || len(result.Violations) != 200 {
		t.Errorf("%d violations and %d more; want %d, 200 of them listed", len(result.Violations), result.More, count)
	}
	for i, v := range result.Violations {
		if v.From != 1 {
			t.Fatalf("violation %d comes from %d, want the ConfigMap", i, v.From)
		}
		if want := fmt.Sprintf("someSettings%04dEnable", i); v.Path.String() != want {
			t.Fatalf("violation %d is at %s, want %s", i, v.Path, want)
		}
	}
}
