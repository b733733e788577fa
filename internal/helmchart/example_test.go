package helmchart_test

import (
	"context"
	"fmt"
	"log"
	"testing/fstest"

	"github.com/flux-admission/flux-admission/internal/helmchart"
	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/validators"
)

func ExampleChart_Validate() {
	files := fstest.MapFS{
		"Chart.yaml":         {Data: []byte("apiVersion: v2\nname: app\nversion: 1.0.0\n")},
		"values.schema.json": {Data: []byte(`{"properties": {"port": {"type": "integer"}}}`)},
	}
	ch, err := archive.ReadFS(files, ".", archive.DefaultLimits())
	if err != nil {
		log.Fatal(err)
	}
	c := helmchart.New(ch, helmchart.Options{})
	result, err := c.Validate(context.Background(), validators.Values{Inline: map[string]any{"port": "http"}})
	if err != nil {
		log.Fatal(err)
	}
	for _, v := range result.Violations {
		fmt.Printf("at '%s': %s\n", v.Pointer, v.Message)
	}
	// Output: at '/port': got string, want integer
}
