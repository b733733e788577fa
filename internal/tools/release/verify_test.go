package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

// published writes the files of a release with their checksums, and returns it.
func published(t *testing.T) *release {
	t.Helper()
	r := &release{version: "0.1.0", dist: t.TempDir(), charts: t.TempDir(), out: io.Discard}
	names := []string{"flux-admission-0.1.0.tgz"}
	for _, system := range systems {
		for _, arch := range architectures {
			names = append(names, archiveName(r.version, system, arch), sbomName(r.version, system, arch))
		}
	}
	var sums bytes.Buffer
	for _, name := range names {
		if err := os.WriteFile(r.find(name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256([]byte(name)), name)
	}
	if err := os.WriteFile(r.find(checksumsName(r.version)), sums.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRelease_VerifyChecksums(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, r *release)
		want   string
	}{
		"as it was built": {func(*testing.T, *release) {}, ""},
		"an archive that changed": {func(t *testing.T, r *release) {
			rewrite(t, r.find("flux-admission_0.1.0_linux_amd64.tar.gz"), "", "x")
		}, "flux-admission_0.1.0_linux_amd64.tar.gz has the checksum"},
		"an archive without a checksum": {func(t *testing.T, r *release) {
			rewrite(t, r.find(checksumsName(r.version)), "windows_arm64.zip", "windows_arm64.exe")
		}, "flux-admission_0.1.0_windows_arm64.exe is not expected"},
		"a chart that is not there": {func(t *testing.T, r *release) {
			if err := os.Remove(r.find("flux-admission-0.1.0.tgz")); err != nil {
				t.Fatal(err)
			}
		}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			r := published(t)
			c.change(t, r)
			err := r.verifyChecksums(t.Context())
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// rewrite replaces a part of a file.
func rewrite(t *testing.T, file, old, replacement string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.Replace(text, []byte(old), []byte(replacement), 1), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRelease_VerifySBOM(t *testing.T) {
	r := &release{dist: t.TempDir()}
	document := `{"bomFormat": "CycloneDX", "components": [{"name": "a.example/m", "version": "v1.0.0"}, {"name": "b.example/fork", "version": "v2.0.0"}]}`
	if err := os.WriteFile(filepath.Join(r.dist, "sbom"), []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	linked := &buildinfo.BuildInfo{Deps: []*debug.Module{
		{Path: "a.example/m", Version: "v1.0.0"},
		{Path: "b.example/m", Version: "v1.0.0", Replace: &debug.Module{Path: "b.example/fork", Version: "v2.0.0"}},
	}}
	if err := r.verifySBOM("sbom", linked); err != nil {
		t.Error(err)
	}
	linked.Deps = append(linked.Deps, &debug.Module{Path: "c.example/m", Version: "v3.0.0"})
	if err := r.verifySBOM("sbom", linked); err == nil || err.Error() != "sbom lacks c.example/m v3.0.0" {
		t.Errorf("a module that it does not name: %v", err)
	}
}
