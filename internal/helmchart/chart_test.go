package helmchart_test

import (
	"encoding/base64"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/helmchart"
	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/validators"
)

// newChart returns the chart app 1.0.0 with the given files, by their path in it.
func newChart(t testing.TB, files map[string]string, opts helmchart.Options) *helmchart.Chart {
	t.Helper()
	all := map[string]string{"Chart.yaml": "apiVersion: v2\nname: app\nversion: 1.0.0\n"}
	maps.Copy(all, files)
	fsys := fstest.MapFS{}
	for name, text := range all {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	limits := archive.DefaultLimits()
	limits.AllFiles = opts.Templates
	ch, err := archive.ReadFS(fsys, ".", limits)
	if err != nil {
		t.Fatal(err)
	}
	return helmchart.New(ch, opts)
}

func object(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	data, err := yaml.YAMLToJSON([]byte(text))
	if err == nil {
		err = utiljson.Unmarshal(data, &o.Object) // whole numbers as the API server's client has them
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// from returns a source of values that could be read.
func from(kind, name, targetPath, content string) validators.ValuesSource {
	data := map[string]any{"values.yaml": content}
	if kind == "Secret" {
		data["values.yaml"] = base64.StdEncoding.EncodeToString([]byte(content))
	}
	return validators.ValuesSource{
		Kind: kind, Name: name, TargetPath: targetPath, Presence: validators.Present,
		Object: &unstructured.Unstructured{Object: map[string]any{"kind": kind, "data": data}},
	}
}

func TestChart_ValidateReportsOrigins(t *testing.T) {
	c := newChart(t, map[string]string{
		"values.yaml":                     "own: wrong\nmap: {}\n",
		"values.schema.json":              `{"properties": {"own": {"type": "integer"}, "a": {"type": "integer"}, "b": {"type": "integer"}, "map": {"required": ["c"]}, "d": {"properties": {"e": {"type": "integer"}}}}}`,
		"charts/db/Chart.yaml":            "apiVersion: v2\nname: db\nversion: 1.0.0\n",
		"charts/db/values.schema.json":    `{"properties": {"global": {"properties": {"zone": {"type": "integer"}}}}}`,
		"charts/spare/Chart.yaml":         "apiVersion: v2\nname: spare\nversion: 1.0.0\n",
		"charts/spare/values.schema.json": `{"required": ["x"]}`,
	}, helmchart.Options{})
	result, err := c.Validate(t.Context(), validators.Values{
		Namespace: "apps",
		From: []validators.ValuesSource{
			from("ConfigMap", "one", "", "a: wrong\nb: wrong\n"), from("Secret", "two", "", "a: wrong\n"), from("Secret", "three", "d.e", "hunter2"),
		},
		Inline: object(t, "{b: wrong, global: {zone: wrong}}").Object,
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range result.Violations {
		got = append(got, fmt.Sprintf("%s %s %s at '%s': %s; inline %t, from %d", v.Chart, v.Path, v.Keyword, v.Pointer, v.Message, v.Inline, v.From))
	}
	want := []string{
		"app a type at '/a': got string, want integer; inline false, from 2",
		"app b type at '/b': got string, want integer; inline true, from 0",
		"app d.e type at '/d/e': got string, want integer; inline false, from 3",
		"db global.zone type at '/global/zone': got string, want integer; inline true, from 0",
		"app map.c required at '/map': missing property 'c'; inline false, from 0",
		"app own type at '/own': got string, want integer; inline false, from 0",
		"spare spare.x required at '': missing property 'x'; inline false, from 0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("violations (-want +got):\n%s", diff)
	}
}

func TestChart_ValidateWithInvalidSchema(t *testing.T) {
	c := newChart(t, map[string]string{"values.schema.json": `{"type": "text"}`}, helmchart.Options{})
	result, err := c.Validate(t.Context(), validators.Values{})
	if err != nil || len(result.Violations) != 0 || !result.HasSchema || len(result.Missing) != 1 || !strings.HasPrefix(result.Missing[0], "the schema of chart app, which cannot be used: the schema is not valid: at #/type: ") {
		t.Errorf("Validate() = %+v, %v", result, err)
	}
}
