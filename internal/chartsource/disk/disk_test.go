package disk_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/internal/chartsource/disk"
)

func open(t *testing.T, dir string, limit int64) *disk.Store {
	t.Helper()
	s, err := disk.Open(dir, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestStore_SurvivesReopening(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	first := open(t, dir, 1000)
	digest, err := first.Put([]byte("chart"))
	if err != nil {
		t.Fatal(err)
	}
	if err := first.PutReference("key", digest); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, 1000)
	got, err := again.Reference("key")
	if err != nil || got != digest {
		t.Fatalf("Reference() = %q, %v; want %q", got, err, digest)
	}
	if data, err := again.Get(got); err != nil || string(data) != "chart" {
		t.Errorf("Get() = %q, %v", data, err)
	}
	if _, err := again.Reference("other"); !errors.Is(err, disk.ErrNotFound) {
		t.Errorf("Reference() of another reference: %v", err)
	}
	for _, d := range []string{"", "../../etc/passwd", strings.Repeat("0", 64)} {
		if _, err := again.Get(d); !errors.Is(err, disk.ErrNotFound) {
			t.Errorf("digest %q: %v", d, err)
		}
	}
}

func TestStore_GetDetectsCorruption(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1000)
	digest, err := s.Put([]byte("chart"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "objects", digest), []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(digest); err == nil || err.Error() != digest+" in the cache directory is corrupt" {
		t.Errorf("Get: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "objects", digest)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "objects", digest)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(digest); err == nil || !strings.HasSuffix(err.Error(), "is not a regular file within the limit") {
		t.Errorf("Get of a link: %v", err)
	}
}

func TestStore_EvictsOldArchives(t *testing.T) {
	s := open(t, t.TempDir(), 250)
	var digests []string
	for _, b := range []string{"a", "b", "c"} {
		d, err := s.Put([]byte(strings.Repeat(b, 100)))
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, d)
	}
	found := 0
	for _, d := range digests {
		if _, err := s.Get(d); err == nil {
			found++
		}
	}
	if found != 2 {
		t.Errorf("%d archives of 100 bytes are stored in 250 bytes", found)
	}
}

// TestStore_EvictsOldReferences spells a reference in many ways.
func TestStore_EvictsOldReferences(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1<<20)
	const maxReferences = 4096
	if err := os.Mkdir(filepath.Join(dir, "names", "directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range maxReferences {
		if err := os.WriteFile(filepath.Join(dir, "names", fmt.Sprint("old", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		if err := s.PutReference(fmt.Sprint("new", i), "text"); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(dir, "names"))
	if err != nil || len(entries) != maxReferences+1 {
		t.Errorf("%d entries, %v; want %d references and a directory", len(entries), err, maxReferences)
	}
	if text, err := s.Reference("new2"); err != nil || text != "text" {
		t.Errorf("%q, %v", text, err)
	}
}
