package assets

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"
)

// lines is a writer that several builds may share.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// newTinyBuilder returns a builder whose tree holds one small module with the
// given program, and the component to build.
func newTinyBuilder(t *testing.T, program string) (*builder, component, *lines) {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, modulesDir, "tiny")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"go.mod": "module example.org/tiny\n\ngo 1.26.0\n", "go.sum": "", "main.go": program} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := &lines{}
	return &builder{root: root, cache: t.TempDir(), out: out}, fromModule("tiny", "tiny", "example.org/tiny", ""), out
}

const goodProgram = "package main\n\nfunc main() { println(\"hello\") }\n"

func TestBuild_ConcurrentCallers(t *testing.T) {
	b, c, out := newTinyBuilder(t, goodProgram)
	var group sync.WaitGroup
	var paths [4]string
	for i := range paths {
		group.Go(func() {
			path, err := b.build(t.Context(), c)
			if err != nil {
				t.Error(err)
			}
			paths[i] = path
		})
	}
	group.Wait()
	for _, path := range paths {
		if path == "" || path != paths[0] {
			t.Fatalf("paths: %q", paths)
		}
	}
	if got, err := exec.CommandContext(t.Context(), paths[0]).CombinedOutput(); err != nil || string(got) != "hello\n" {
		t.Errorf("the program printed %q, %v", got, err)
	}
	if got := strings.Count(out.String(), "tiny: built, "); got != 1 {
		t.Errorf("it was built %d times:\n%s", got, out)
	}

	before := out.String()
	if _, err := b.build(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if out.String() != before {
		t.Errorf("a program from the cache is announced: %s", strings.TrimPrefix(out.String(), before))
	}
}

func TestCacheDir_GoSum(t *testing.T) {
	b, c, _ := newTinyBuilder(t, goodProgram)
	before, err := b.cacheDir(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.root, modulesDir, "tiny", "go.sum"), []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	after, err := b.cacheDir(c)
	if err != nil {
		t.Fatal(err)
	}
	if before == after {
		t.Errorf("both lie in %s", after)
	}
}

func TestBuild_AfterKilledBuild(t *testing.T) {
	b, c, _ := newTinyBuilder(t, goodProgram)
	dir, err := b.cacheDir(c)
	if err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, ".building")
	if err := os.MkdirAll(left, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, "tiny"), []byte("half a program"), 0o700); err != nil {
		t.Fatal(err)
	}
	path, err := b.build(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := exec.CommandContext(t.Context(), path).CombinedOutput(); err != nil || string(got) != "hello\n" {
		t.Errorf("the program printed %q, %v", got, err)
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", left, err)
	}
}

func TestBuild_Failure(t *testing.T) {
	b, c, out := newTinyBuilder(t, "package main\n\nfunc main() { undefinedThing() }\n")
	_, err := b.build(t.Context(), c)
	if err == nil || !strings.Contains(err.Error(), "undefined: undefinedThing") || !strings.HasPrefix(err.Error(), "building tiny (what is compiled so far is kept") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(out.String(), "testenv: tiny: not built, ") {
		t.Errorf("progress:\n%s", out)
	}
	dir, err := b.cacheDir(c)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestBuild_WaitEndsWithContext(t *testing.T) {
	b, c, _ := newTinyBuilder(t, goodProgram)
	lock := flock.New(filepath.Join(b.cache, "build.lock"))
	if err := lock.Lock(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lock.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := b.build(ctx, c)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "building tiny: waiting for another build: ") {
		t.Errorf("got %v", err)
	}
}

func TestBuildControlPlane_KubebuilderAssets(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(AssetsEnv, dir)
	for _, name := range []string{"etcd", "kubectl"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	want := `KUBEBUILDER_ASSETS is "` + dir + `", which holds no executable kube-apiserver: point it to a directory with etcd, kube-apiserver and kubectl, or unset it to have them downloaded or built`
	if _, err := BuildControlPlane(t.Context(), nil); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}

	if err := os.WriteFile(filepath.Join(dir, "kube-apiserver"), nil, 0o700); err != nil {
		t.Fatal(err)
	}
	got, err := BuildControlPlane(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if paths := []string{got.Etcd, got.APIServer, got.Kubectl}; !slices.Equal(paths, []string{dir + "/etcd", dir + "/kube-apiserver", dir + "/kubectl"}) {
		t.Errorf("got %q", paths)
	}
	if !isExecutable(got.Supervisor) {
		t.Errorf("the supervisor is %q", got.Supervisor)
	}
}

func TestVersionFlags(t *testing.T) {
	const prefix = "-X k8s.io/component-base/version."
	want := prefix + "gitVersion=v1.37.2 " + prefix + "gitMajor=1 " + prefix + "gitMinor=37 " + prefix + "gitCommit= " + prefix + "gitTreeState=clean"
	if got := versionFlags("v1.37.2"); got != want {
		t.Errorf("got %q", got)
	}
}

func TestTreeRoot_OutsideTree(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	want := "no test/controlplane/modules in " + dir + " or above it: run this inside the flux-admission source tree"
	if _, err := treeRoot(); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
