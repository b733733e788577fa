package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/internal/check"
)

// TestCheck_SchemaLocation has a kind that only a catalog of JSON schemas knows.
func TestCheck_SchemaLocation(t *testing.T) {
	const catalog = `{"type": "object", "additionalProperties": false, "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"},
		"metadata": {"type": "object"}, "spec": {"type": "object", "additionalProperties": false, "properties": {"size": {"type": "integer"}}}}}`
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		if r.URL.Path != "/example.com/widget_v1.json" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write([]byte(catalog))
	}))
	defer server.Close()
	files := repository("flux-system", "enablePodMonitor")
	files["apps/db/widget.yaml"] = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w, namespace: apps}\nspec: {siez: 1}\n"
	dir := writeTree(t, files)
	form := "/{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json"
	checked := func(locations ...string) (string, error) {
		var out bytes.Buffer
		o := checkOptions{Options: input(check.Input{SchemaLocations: locations}), reportOptions: reportOptions{output: "text", failOn: "never"}}
		err := runCheckIn(t, o, dir, nil, &out, &out)
		return out.String(), err
	}
	out, err := checked("default", server.URL+form)
	if err != nil || !strings.Contains(out, "spec.siez is not a field of Widget (example.com/v1)") {
		t.Errorf("error %v\n%s", err, out)
	}
	if strings.Contains(out, "Widget (example.com)") {
		t.Errorf("the kind is listed as not evaluated:\n%s", out)
	}
	if requests == 0 {
		t.Error("nothing was fetched")
	}
	if out, err = checked(); err != nil || strings.Contains(out, "siez") {
		t.Errorf("without the location: error %v\n%s", err, out)
	}
	server.Close()
	if _, err = checked(server.URL + form); err == nil || !strings.HasPrefix(err.Error(), "--schema-location: ") || !strings.Contains(err.Error(), "fetching a schema") {
		t.Errorf("without the server: error %v", err)
	}
}
