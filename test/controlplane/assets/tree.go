package assets

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// modulesDir holds the modules that the bench is built from, relative to the
// root of the tree.
const modulesDir = "test/controlplane/modules"

// treeRoot returns the root of the source tree that the working directory is
// in. go test runs every package's tests inside the tree.
func treeRoot() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the source tree: %w", err)
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		_, err := os.Stat(filepath.Join(dir, modulesDir))
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("finding the source tree: %w", err)
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no %s in %s or above it: run this inside the flux-admission source tree", modulesDir, wd)
		}
	}
}
