package pack_test

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/flux-admission/flux-admission/internal/kindschema/builtin"
	"github.com/flux-admission/flux-admission/internal/kindschema/builtin/pack"
)

const stock = "../crds"

func TestTheStockIsWhatItsModulesShip(t *testing.T) {
	index, defs, err := pack.Definitions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(stock, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var have []builtin.Entry
	if err := json.Unmarshal(data, &have); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(have, index) {
		t.Errorf("the stock's index is stale: run go generate ./internal/kindschema/builtin\nhave %v\nwant %v", have, index)
	}
	// The compressed bytes may differ with the release of Go; what is in them may not.
	for name, want := range defs {
		if got := unpack(t, filepath.Join(stock, name)); string(got) != string(want) {
			t.Errorf("%s is stale: run go generate ./internal/kindschema/builtin", name)
		}
	}
	files, err := os.ReadDir(stock)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(defs)+1 {
		t.Errorf("%d files in the stock, want %d and index.json", len(files), len(defs))
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
