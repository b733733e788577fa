package pack_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/flux-admission/flux-admission/internal/kindschema/catalog"
	"github.com/flux-admission/flux-admission/internal/kindschema/catalog/pack"
)

const packed = "../crds"

// maxTotal is what the catalog may add to the size of the program.
const maxTotal = 6 << 20

func TestCatalogIsUpToDate(t *testing.T) {
	if err := pack.Verify(packed); err != nil {
		t.Errorf("%v\nrun go generate ./internal/kindschema/catalog", err)
	}
}

func TestCatalogIsSmall(t *testing.T) {
	files, err := os.ReadDir(packed)
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > maxTotal {
		t.Errorf("the CRD catalog has %d bytes, want at most %d", total, maxTotal)
	}
}

// A source that is read again gives what is packed: here one of a small module and one whose definitions are generated from Go types. The
// others differ in nothing but their name.
func TestWriteIsDeterministic(t *testing.T) {
	dir := t.TempDir()
	index := readIndex(t, packed)
	again := func(e catalog.Entry) bool {
		return e.Project == "external-snapshotter" || e.Module == "github.com/fluxcd/image-automation-controller/api"
	}
	kept := catalog.Index{}
	for _, e := range index.Entries {
		if again(e) {
			continue
		}
		kept.Entries = append(kept.Entries, e)
		copyFile(t, filepath.Join(packed, e.File), filepath.Join(dir, e.File))
	}
	text, err := json.Marshal(kept)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	if pack.Verify(dir) == nil {
		t.Fatal("a catalog without two of its sources verifies")
	}
	if err := pack.Write(t.Context(), dir, false); err != nil {
		t.Fatal(err)
	}
	if err := pack.Verify(dir); err != nil {
		t.Error(err)
	}
	got, want := readIndex(t, dir), index
	if len(got.Entries) != len(want.Entries) {
		t.Fatalf("%d entries, want %d", len(got.Entries), len(want.Entries))
	}
	for i := range want.Entries {
		if got.Entries[i] != want.Entries[i] {
			t.Errorf("have %+v\nwant %+v", got.Entries[i], want.Entries[i])
		}
	}
}

func TestVerifyFindsChanges(t *testing.T) {
	dir := t.TempDir()
	index := readIndex(t, packed)
	for _, e := range index.Entries {
		copyFile(t, filepath.Join(packed, e.File), filepath.Join(dir, e.File))
	}
	copyFile(t, filepath.Join(packed, "index.json"), filepath.Join(dir, "index.json"))
	if err := pack.Verify(dir); err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(dir, "stray.json.gz")
	copyFile(t, filepath.Join(dir, index.Entries[0].File), stray)
	if pack.Verify(dir) == nil {
		t.Error("a file of no source verifies")
	}
	if err := os.Remove(stray); err != nil {
		t.Fatal(err)
	}
	copyFile(t, filepath.Join(packed, index.Entries[1].File), filepath.Join(dir, index.Entries[0].File))
	if index.Entries[0].File != index.Entries[1].File && pack.Verify(dir) == nil {
		t.Error("a file with other content verifies")
	}
}

func readIndex(t *testing.T, dir string) catalog.Index {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index catalog.Index
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	return index
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
