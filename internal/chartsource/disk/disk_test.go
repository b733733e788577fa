package disk_test

import (
	"errors"
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

func TestStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	first := open(t, dir, 1000)
	digest, err := first.Put([]byte("chart"))
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Note("key", digest); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, 1000)
	noted, err := again.Noted("key")
	if err != nil || noted != digest {
		t.Fatalf("noted %q, %v", noted, err)
	}
	if data, err := again.Get(noted); err != nil || string(data) != "chart" {
		t.Errorf("got %q, %v", data, err)
	}
	if _, err := again.Noted("other"); !errors.Is(err, disk.ErrNotFound) {
		t.Errorf("another key: %v", err)
	}
	for _, d := range []string{"", "../../etc/passwd", strings.Repeat("0", 64)} {
		if _, err := again.Get(d); !errors.Is(err, disk.ErrNotFound) {
			t.Errorf("digest %q: %v", d, err)
		}
	}
}

func TestDamageIsSeen(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1000)
	digest, err := s.Put([]byte("chart"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "objects", digest), []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(digest); err == nil || err.Error() != digest+" in the cache directory is damaged" {
		t.Errorf("Get: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "objects", digest)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "objects", digest)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(digest); err == nil || !strings.HasSuffix(err.Error(), "is not a file of the cache") {
		t.Errorf("Get of a link: %v", err)
	}
}

func TestOldArchivesGo(t *testing.T) {
	s := open(t, t.TempDir(), 250)
	var digests []string
	for _, b := range []string{"a", "b", "c"} {
		d, err := s.Put([]byte(strings.Repeat(b, 100)))
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, d)
	}
	kept := 0
	for _, d := range digests {
		if _, err := s.Get(d); err == nil {
			kept++
		}
	}
	if kept != 2 {
		t.Errorf("%d archives of 100 bytes are kept in 250", kept)
	}
}
