package admission_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/test/writepath"
)

// chart packs the files of a chart as a repository would.
func chart(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// claimed is an archive whose header claims an entry of two gigabytes.
func claimed(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "hostile/values.yaml", Mode: 0o644, Size: 2 << 30}); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err == nil {
		t.Log("the archive ends before what it claims")
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A hostile chart can make its own release unknown, and nothing else: each write gets an answer, the server keeps running and
// denies other mistakes.
func TestWebhook_HostileCharts(t *testing.T) {
	setPolicy(t, deny, "")
	withSchema := func(schema string) []byte {
		return chart(t, map[string]string{
			"hostile/Chart.yaml": "apiVersion: v2\nname: hostile\nversion: 1.0.0\n", "hostile/values.yaml": "a: 1\n", "hostile/values.schema.json": schema,
		})
	}
	var chain strings.Builder
	chain.WriteString(`{"$ref": "#/definitions/d0", "definitions": {`)
	for i := range 100_000 {
		fmt.Fprintf(&chain, `"d%d": {"$ref": "#/definitions/d%d"}, `, i, i+1)
	}
	chain.WriteString(`"d100000": {"type": "object"}}}`)
	archives := map[string][]byte{
		"self-reference":     withSchema(`{"properties": {"a": {"$ref": "#"}}}`),
		"only-itself":        withSchema(`{"$ref": "#"}`),
		"file":               withSchema(`{"properties": {"a": {"$ref": "file:///etc/passwd"}}}`),
		"device":             withSchema(`{"properties": {"a": {"$ref": "file:///dev/zero"}}}`),
		"metadata-address":   withSchema(`{"properties": {"a": {"$ref": "http://169.254.169.254/latest"}}}`),
		"chain":              withSchema(chain.String()),
		"deep":               withSchema(strings.Repeat(`{"not": `, 100_000) + "{}" + strings.Repeat("}", 100_000)),
		"not-json":           withSchema(`{"type": `),
		"nested-yaml":        chart(t, map[string]string{"hostile/Chart.yaml": "apiVersion: v2\nname: hostile\nversion: 1.0.0\n", "hostile/values.yaml": strings.Repeat("[", 10<<20)}),
		"two-gigabytes":      claimed(t),
		"path-traversal":     chart(t, map[string]string{"hostile/../../etc/x": "x", "hostile/Chart.yaml": "apiVersion: v2\nname: hostile\nversion: 1.0.0\n"}),
		"no-archive":         []byte("not an archive"),
		"endless-repetition": withSchema(`{"properties": {"a": {"pattern": "((a{1000}){1000}){1000}"}}}`),
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, file, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		if file == "index.yaml" {
			fmt.Fprint(w, "apiVersion: v1\nentries:\n  hostile:\n    - {apiVersion: v2, name: hostile, version: 1.0.0, urls: [hostile-1.0.0.tgz]}\n")
			return
		}
		_, _ = w.Write(archives[name])
	}))
	defer server.Close()
	for name := range archives {
		t.Run(name, func(t *testing.T) {
			ns := namespace(t)
			if a := writepath.Kubectl("apply").Write(t.Context(), shared.ControlPlane, fmt.Sprintf(repository, ns, server.URL+"/"+name)); a.Err != nil {
				t.Fatal(a.Err)
			}
			o := strings.Replace(fmt.Sprintf(release, "hostile", ns, "{a: b}"), "chart: airflow", "chart: hostile", 1)
			if a := writepath.Create().Write(t.Context(), shared.ControlPlane, o); a.Err != nil {
				t.Errorf("a release is denied because of a hostile chart: %s", a)
			}
			if a := writepath.Create().Write(t.Context(), shared.ControlPlane, fmt.Sprintf(kustomization, "wrong", ns)); a.Err == nil || !strings.Contains(a.Err.Error(), "KS001") {
				t.Errorf("the webhook no longer denies mistakes: %s", a)
			}
			select {
			case <-shared.Webhook().Process().Ended():
				t.Fatal(shared.Webhook().Process().Failure())
			default:
			}
		})
	}
}
