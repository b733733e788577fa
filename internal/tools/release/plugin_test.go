package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWritePlugin(t *testing.T) {
	a, b, c := strings.Repeat("a", 64), strings.Repeat("b", 64), strings.Repeat("c", 64)
	file := filepath.Join(t.TempDir(), "checksums.txt")
	text := c + "  flux-admission_0.1.0_windows_amd64.zip\n" + a + " *flux-admission_0.1.0_linux_amd64.tar.gz\n" +
		b + "  flux-admission_0.1.0_linux_arm64.tar.gz\n" + b + "  flux-admission_0.1.0_sbom.json\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(t.TempDir(), "admission.yaml")
	if err := writePlugin("0.1.0", file, manifest); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	const from = "https://github.com/flux-admission/flux-admission/releases/download/v0.1.0/flux-admission_0.1.0_"
	want := `
apiVersion: cli.fluxcd.io/v1beta1
bin: flux-admission
description: Check a Git tree with the rules of the admission webhook
homepage: https://github.com/flux-admission/flux-admission
kind: Plugin
name: admission
source: https://github.com/flux-admission/flux-admission
versions:
- platforms:
  - arch: amd64
    checksum: sha256:` + a + `
    os: linux
    url: ` + from + `linux_amd64.tar.gz
  - arch: arm64
    checksum: sha256:` + b + `
    os: linux
    url: ` + from + `linux_arm64.tar.gz
  - arch: amd64
    checksum: sha256:` + c + `
    os: windows
    url: ` + from + `windows_amd64.zip
  version: 0.1.0
`
	if string(got) != want[1:] {
		t.Errorf("wrote\n%s\nwant%s", got, want)
	}
}

func TestNewManifest_RefusesWhatIsNoRelease(t *testing.T) {
	sum := strings.Repeat("a", 64)
	cases := map[string]struct{ version, checksums, want string }{
		"a version with a v":                {"v0.1.0", sum + "  flux-admission_0.1.0_linux_amd64.tar.gz\n", `version "v0.1.0" is not like 0.1.0, without a v`},
		"checksums of another release":      {"0.1.0", sum + "  flux-admission_0.2.0_linux_amd64.tar.gz\n", "no file is called flux-admission_0.1.0_OS_ARCH.tar.gz or .zip"},
		"a line without a name":             {"0.1.0", sum + "  a\n" + sum + "\n", "line 2 is not a SHA-256 sum and the name of a file"},
		"a sum of another kind":             {"0.1.0", sum[:40] + "  flux-admission_0.1.0_linux_amd64.tar.gz\n", "line 1 is not a SHA-256 sum and the name of a file"},
		"a file of checksums that is empty": {"0.1.0", "", "line 1 is not a SHA-256 sum and the name of a file"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if m, err := newManifest(c.version, []byte(c.checksums)); err == nil || err.Error() != c.want {
				t.Errorf("error %v, manifest %+v; want %q", err, m, c.want)
			}
		})
	}
}
