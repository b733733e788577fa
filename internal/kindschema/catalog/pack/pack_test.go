package pack_test

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/internal/kindschema/catalog"
	"github.com/flux-admission/flux-admission/internal/kindschema/catalog/pack"
)

const dir = "../crds"

func TestDefinitions_MatchCatalog(t *testing.T) {
	index, defs, err := pack.Definitions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var have []catalog.Entry
	if err := json.Unmarshal(data, &have); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(index, have); diff != "" {
		t.Errorf("the index is stale; run go generate ./internal/kindschema/catalog (-want +got):\n%s", diff)
	}
	// The compressed bytes depend on the Go version, the content does not.
	for name, want := range defs {
		if got := unpack(t, filepath.Join(dir, name)); string(got) != string(want) {
			t.Errorf("%s is stale: run go generate ./internal/kindschema/catalog", name)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(defs)+1 {
		t.Errorf("the catalog has %d files, want %d and index.json", len(files), len(defs))
	}
}

func unpack(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
