package assets

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// releases serves an index of releases and one archive, as setup-envtest's own server does.
type releases struct {
	version string   // of the only release
	files   []string // in the archive
	hash    string   // in the index in place of the archive's
	status  int      // of every response, if not 0
}

func (r releases) serve(t *testing.T) (index string, downloads *int) {
	t.Helper()
	name := fmt.Sprintf("envtest-v%s-%s-%s.tar.gz", r.version, runtime.GOOS, runtime.GOARCH)
	archive := archive(t, r.files)
	sum := sha512.Sum512(archive)
	hash := hex.EncodeToString(sum[:])
	if r.hash != "" {
		hash = r.hash
	}
	downloads = new(int)
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		switch {
		case r.status != 0:
			w.WriteHeader(r.status)
		case request.URL.Path == "/envtest-releases.yaml":
			fmt.Fprintf(w, "releases:\n  v%s:\n    %s:\n      hash: %s\n      selfLink: %s/%s\n", r.version, name, hash, server.URL, name)
		case request.URL.Path == "/"+name:
			*downloads++
			_, _ = w.Write(archive)
		default:
			http.NotFound(w, request)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL + "/envtest-releases.yaml", downloads
}

// archive returns a release with programs that print their name.
func archive(t *testing.T, files []string) []byte {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	w := tar.NewWriter(zip)
	for _, name := range files {
		text := "#!/bin/sh\necho " + name + "\n"
		if err := w.WriteHeader(&tar.Header{Name: "controller-tools/envtest/" + name, Mode: 0o755, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// newDownloader returns a builder with an empty cache, and a component of its tree in place of the control plane's,
// for the build from modules.
func newDownloader(t *testing.T, index string) (*builder, []component, *lines) {
	t.Helper()
	root, err := treeRoot()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(AssetsEnv, "")
	t.Setenv("ENVTEST_INSTALLED_ONLY", "")
	out := &lines{}
	return &builder{root: root, cache: t.TempDir(), out: out, index: index, kubernetes: "kubernetes"}, []component{supervisorComponent()}, out
}

func TestControlPlane_Download(t *testing.T) {
	index, downloads := releases{version: "1.37.9", files: []string{"etcd", "kube-apiserver", "kubectl"}}.serve(t)
	b, components, out := newDownloader(t, index)
	for range 2 { // the second time they are in the cache
		paths, err := b.controlPlane(t.Context(), components)
		if err != nil {
			t.Fatal(err)
		}
		var printed []string
		for _, path := range paths {
			text, err := exec.CommandContext(t.Context(), path).Output()
			if err != nil {
				t.Fatal(err)
			}
			printed = append(printed, strings.TrimSpace(string(text)))
		}
		if diff := cmp.Diff([]string{"etcd", "kube-apiserver", "kubectl"}, printed); diff != "" {
			t.Errorf("programs (-want +got):\n%s", diff)
		}
	}
	if *downloads != 1 {
		t.Errorf("the release was downloaded %d times, want once", *downloads)
	}
	if !strings.Contains(out.String(), "testenv: control plane 1.37.x: downloaded, ") {
		t.Errorf("the progress does not report the download:\n%s", out)
	}
}

func TestControlPlane_DownloadFails(t *testing.T) {
	all := []string{"etcd", "kube-apiserver", "kubectl"}
	tests := []struct {
		name     string
		releases releases
		closed   bool
		reason   string
	}{
		{name: "no server", closed: true, reason: "connection refused"},
		{name: "the server refuses", releases: releases{version: "1.37.9", files: all, status: http.StatusForbidden}, reason: "403"},
		{name: "no release of the minor version", releases: releases{version: "1.36.0", files: all}, reason: "1.37.x"},
		{name: "an archive with another checksum", releases: releases{version: "1.37.9", files: all, hash: strings.Repeat("0", 128)}, reason: "checksum"},
		{name: "an archive without kubectl", releases: releases{version: "1.37.9", files: all[:2]}, reason: "has no executable kubectl"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			index := ""
			if test.closed {
				server := httptest.NewServer(http.NotFoundHandler())
				index = server.URL
				server.Close()
			} else {
				index, _ = test.releases.serve(t)
			}
			b, components, out := newDownloader(t, index)
			paths, err := b.controlPlane(t.Context(), components)
			if err != nil {
				t.Fatal(err)
			}
			if len(paths) != 1 || filepath.Base(paths[0]) != "supervisor" {
				t.Errorf("paths %q, want the program built from modules", paths)
			}
			message := ""
			for line := range strings.Lines(out.String()) {
				if strings.HasPrefix(line, "testenv: cannot download the control plane; building it from Go modules once") {
					message = line
				}
			}
			if !strings.Contains(message, test.reason) {
				t.Errorf("the message %q lacks the reason %q", message, test.reason)
			}
		})
	}
}

func TestControlPlane_BuiltBefore(t *testing.T) {
	index, downloads := releases{version: "1.37.9", files: []string{"etcd", "kube-apiserver", "kubectl"}}.serve(t)
	b, components, _ := newDownloader(t, index)
	want, err := b.buildAll(t.Context(), components)
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.controlPlane(t.Context(), components)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" || *downloads > 0 {
		t.Errorf("%d downloads, paths (-want +got):\n%s", *downloads, diff)
	}
}

func TestControlPlane_InstalledOnly(t *testing.T) {
	index, downloads := releases{version: "1.37.9", files: []string{"etcd", "kube-apiserver", "kubectl"}}.serve(t)
	b, components, _ := newDownloader(t, index)
	t.Setenv("ENVTEST_INSTALLED_ONLY", "true")
	paths, err := b.controlPlane(t.Context(), components)
	if err != nil || *downloads > 0 {
		t.Errorf("%q with %d downloads, %v; want the program built from modules", paths, *downloads, err)
	}
}

func TestSetupEnvtest_Timeout(t *testing.T) {
	stuck := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stuck }))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(stuck) })
	b, _, _ := newDownloader(t, server.URL)
	tool, err := b.build(t.Context(), fromModule("setup-envtest", "setup-envtest", "sigs.k8s.io/controller-runtime/tools/setup-envtest", ""))
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.setupEnvtest(t.Context(), 100*time.Millisecond, tool, "1.37.x")
	if want := "setup-envtest use 1.37.x: it took longer than 100ms"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestMinorSelector(t *testing.T) {
	for version, want := range map[string]string{"v1.37.2\n": "1.37.x", "v2.0.0-rc.1": "2.0.x", "v1": ""} {
		got, err := minorSelector(version)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("minorSelector(%q) is %q, %v; want %q", version, got, err, want)
		}
	}
}
