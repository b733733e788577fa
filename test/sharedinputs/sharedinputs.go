// Package sharedinputs finds the directory with recorded repositories, charts and reviews that some tests compare with.
package sharedinputs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// RequireVariable is the environment variable that, set to 1, makes a missing directory a failure instead of a skip.
// .ci/run sets it.
const RequireVariable = "FLUX_ADMISSION_REQUIRE_SHARED"

// directory is relative to the root of the module.
const directory = "../shared"

// Dir returns the absolute path of the directory shared next to the root of the module. If it does not exist, Dir
// skips the test, or fails it when RequireVariable is 1.
func Dir(t testing.TB) string {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatalf("find the shared inputs: %v", err)
	}
	return dir(t, root)
}

func dir(t testing.TB, root string) string {
	t.Helper()
	path := filepath.Join(root, filepath.FromSlash(directory))
	switch info, err := os.Stat(path); {
	case err == nil && info.IsDir():
		return path
	case os.Getenv(RequireVariable) == "1":
		t.Fatalf("%s is not a directory (%v), and %s=1 requires it", path, err, RequireVariable)
	default:
		t.Skipf("%s is not a directory (%v): this test compares with inputs outside of the repository", path, err)
	}
	return ""
}

// ModuleDir returns the directory of a module that test/controlplane/modules/crds pins, in Go's module cache. If the module
// is not downloaded, ModuleDir skips the test, or fails it when RequireVariable is 1. `make test` downloads these modules.
func ModuleDir(t testing.TB, module string) string {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatalf("find the module %s: %v", module, err)
	}
	pins := filepath.Join(root, "test", "controlplane", "modules", "crds")
	out, err := exec.CommandContext(t.Context(), "go", "-C", pins, "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Fatalf("find the module %s: go list: %v", module, err)
	}
	dir := strings.TrimSpace(string(out))
	switch {
	case dir != "":
	case os.Getenv(RequireVariable) == "1":
		t.Fatalf("the module %s is not downloaded, and %s=1 requires it", module, RequireVariable)
	default:
		t.Skipf("the module %s is not downloaded; go run ./test/controlplane/cmd/testenv build does it", module)
	}
	return dir
}

// moduleRoot returns the closest parent of the working directory that has a go.mod. Go runs a test in the directory of
// its package.
func moduleRoot() (string, error) {
	at, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		_, err := os.Stat(filepath.Join(at, "go.mod"))
		if err == nil {
			return at, nil
		}
		parent := filepath.Dir(at)
		if parent == at {
			return "", err
		}
		at = parent
	}
}
