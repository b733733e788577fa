package location_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/kindschema/location"
	"github.com/flux-admission/flux-admission/validators"
)

// widget is a schema as tools derive it from a CustomResourceDefinition for kubeconform.
const widget = `{
  "$schema": "http://json-schema.org/schema#", "type": "object", "additionalProperties": false,
  "properties": {
    "apiVersion": {"type": ["string", "null"]}, "kind": {"type": "string", "enum": ["Widget"]},
    "metadata": {"$ref": "_definitions.json#/definitions/ObjectMeta"},
    "spec": {
      "type": "object", "additionalProperties": false, "required": ["size"],
      "properties": {
        "size": {"type": "integer", "minimum": 1}, "port": {"format": "int-or-string", "oneOf": [{"type": "string"}, {"type": "integer"}]},
        "mode": {"type": ["string", "null"], "enum": ["a", "b", null]}, "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "free": {"additionalProperties": true, "type": "object"}, "list": {"type": "array", "items": {"type": "string"}},
        "kindOf": {"const": "x", "type": "string"}
      }
    }
  }
}`

var gvk = schema.GroupVersionKind{Group: "example.com", Version: "v1alpha1", Kind: "Widget"}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLocation_Schema(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "example.com/widget_v1alpha1.json", widget)
	write(t, dir, "master-standalone/widget-example-v1alpha1.json", widget)
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	for _, text := range []string{
		dir,
		dir + "/{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json",
		dir + "/{{ .NormalizedKubernetesVersion }}-standalone{{ .StrictSuffix }}/{{ .ResourceKind }}{{ .KindSuffix }}.json",
		server.URL + "/",
		server.URL + "/{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json",
	} {
		l, err := location.Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		defer l.Close()
		if content, at, err := l.Schema(t.Context(), gvk); err != nil || content == nil {
			t.Errorf("%s: %v at %s, error %v", text, content, at, err)
		}
		if content, _, err := l.Schema(t.Context(), gvk.GroupKind().WithVersion("v2")); err != nil || content != nil {
			t.Errorf("%s: a version that it lacks: %v, error %v", text, content, err)
		}
	}
}

func TestParse_Errors(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		filepath.Join(dir, "none") + "/{{.Group}}.json": "there is no directory",
		dir + "/{{.Kind}}.json":                         "template",
		dir + "/{{.Group}.json":                         "template",
	} {
		if _, err := location.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", text, err, want)
		}
	}
	if l, err := location.Parse("default"); l != nil || err != nil {
		t.Errorf("default: %v, %v", l, err)
	}
}

func TestLocation_UnreadableSchema(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "widget.json", "{")
	l, err := location.Parse(dir + "/{{.ResourceKind}}.json")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Schema(t.Context(), gvk); err == nil || !strings.Contains(err.Error(), "widget.json is no JSON schema") {
		t.Errorf("error %v", err)
	}
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	defer failing.Close()
	if l, err = location.Parse(failing.URL + "/{{.ResourceKind}}.json"); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, _, err := l.Schema(t.Context(), gvk); err == nil || !strings.Contains(err.Error(), "502") {
		t.Errorf("error %v", err)
	}
}

func TestDefinition(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "widget_v1alpha1.json", widget)
	l, err := location.Parse(dir + "/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json")
	if err != nil {
		t.Fatal(err)
	}
	found, err := location.Definition(t.Context(), []*location.Location{l}, gvk.GroupKind(), []string{"v1alpha1"}, validators.ScopeNamespaced)
	if err != nil || found == nil {
		t.Fatalf("%v, error %v", found, err)
	}
	if lacking, err := location.Definition(
		t.Context(), []*location.Location{l}, gvk.GroupKind(), []string{"v1alpha1", "v1"}, validators.ScopeUnknown,
	); lacking != nil || err != nil {
		t.Errorf("a version is missing: %v, error %v", lacking, err)
	}
	set, err := kindschema.NewSet(kindschema.Options{})
	if err != nil {
		t.Fatal(err)
	}
	set.AddSchemas(gvk.GroupKind(), found)
	kind, presence, _ := set.Kind(t.Context(), gvk.GroupKind())
	if kind == nil || presence != validators.Present || !kind.Uncertain {
		t.Fatalf("%+v, %v", kind, presence)
	}
	s, err := kind.Schemas.Schema("v1alpha1")
	if err != nil {
		t.Fatal(err)
	}
	object := func(spec map[string]any) *unstructured.Unstructured {
		o := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
		o.SetGroupVersionKind(gvk)
		o.SetName("w")
		return o
	}
	valid := object(map[string]any{
		"size": int64(1), "port": "http", "mode": nil, "labels": map[string]any{"a": "b"}, "free": map[string]any{"x": []any{int64(1)}},
		"list": []any{"a"}, "kindOf": "x",
	})
	if unknown, invalid := s.UnknownFields(valid), s.InvalidValues(t.Context(), valid); len(unknown)+len(invalid) > 0 {
		t.Errorf("a valid object: %v, %v", unknown, invalid)
	}
	wrong := object(map[string]any{"sise": int64(1), "list": "c", "kindOf": "y"})
	if unknown := s.UnknownFields(wrong); len(unknown) != 1 || unknown[0].Path.String() != "spec.sise" {
		t.Errorf("unknown fields: %v", unknown)
	}
	var at []string
	for _, v := range s.InvalidValues(t.Context(), wrong) {
		at = append(at, v.Path.String())
	}
	if got := strings.Join(at, " "); got != "spec.kindOf spec.list" { // size is misspelled, not missing
		t.Errorf("invalid values at %s", got)
	}
}
