package build

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
)

// overlay is the file system that kustomize reads: an artifact, and over it the files that Flux would write into its
// working copy. The root of the artifact is "/", so that no message contains a path of this machine. It is for one
// build in one goroutine.
type overlay struct {
	artifact *sourcetree.Artifact
	written  map[string][]byte
	read     map[string]bool // files of the artifact that the build has read
	// clones has the directories that kustomize clones remote bases into; nil when these are not allowed.
	clones filesys.FileSystem
}

var errReadOnly = errors.New("the file system is read-only")

// inClone reports whether the path is in a directory that kustomize has cloned a remote base into.
func (o *overlay) inClone(p string) bool {
	if o.clones == nil {
		return false
	}
	tmp, err := filepath.EvalSymlinks(os.TempDir())
	return err == nil && strings.HasPrefix(p, filepath.Join(tmp, "kustomize-"))
}

// Create implements filesys.FileSystem.
func (o *overlay) Create(string) (filesys.File, error) { return nil, errReadOnly }

// Mkdir implements filesys.FileSystem.
func (o *overlay) Mkdir(string) error { return errReadOnly }

// MkdirAll implements filesys.FileSystem.
func (o *overlay) MkdirAll(string) error { return errReadOnly }

// WriteFile implements filesys.FileSystem.
func (o *overlay) WriteFile(string, []byte) error { return errReadOnly }

// Open implements filesys.FileSystem. Kustomize reads whole files only.
func (o *overlay) Open(string) (filesys.File, error) { return nil, errReadOnly }

// RemoveAll implements filesys.FileSystem; kustomize removes its own clones with it.
func (o *overlay) RemoveAll(p string) error {
	if o.inClone(p) {
		return o.clones.RemoveAll(p)
	}
	return errReadOnly
}

// IsDir implements filesys.FileSystem.
func (o *overlay) IsDir(p string) bool {
	if o.inClone(p) {
		return o.clones.IsDir(p)
	}
	return o.artifact.IsDir(sourcetree.Rel(p))
}

// Exists implements filesys.FileSystem.
func (o *overlay) Exists(p string) bool {
	if o.inClone(p) {
		return o.clones.Exists(p)
	}
	r := sourcetree.Rel(p)
	if _, ok := o.written[r]; ok {
		return true
	}
	return o.artifact.File(r) != nil || o.artifact.IsDir(r)
}

// ReadDir implements filesys.FileSystem.
func (o *overlay) ReadDir(p string) ([]string, error) {
	if o.inClone(p) {
		return o.clones.ReadDir(p)
	}
	names, ok := o.artifact.ReadDir(sourcetree.Rel(p))
	if !ok {
		return nil, notExist(sourcetree.Rel(p))
	}
	return names, nil
}

// CleanedAbs implements filesys.FileSystem.
func (o *overlay) CleanedAbs(p string) (filesys.ConfirmedDir, string, error) {
	if o.inClone(p) {
		return o.clones.CleanedAbs(p)
	}
	r := sourcetree.Rel(p)
	if o.artifact.IsDir(r) {
		return filesys.ConfirmedDir("/" + strings.TrimPrefix(r, ".")), "", nil
	}
	if !o.Exists(p) {
		return "", "", notExist(r)
	}
	dir := path.Dir(r)
	return filesys.ConfirmedDir("/" + strings.TrimPrefix(dir, ".")), path.Base(r), nil
}

// ReadFile implements filesys.FileSystem.
func (o *overlay) ReadFile(p string) ([]byte, error) {
	if o.inClone(p) {
		return o.clones.ReadFile(p)
	}
	r := sourcetree.Rel(p)
	f := o.artifact.File(r)
	if f != nil {
		o.read[r] = true
	}
	if data, ok := o.written[r]; ok {
		return data, nil
	}
	if f == nil {
		return nil, notExist(r)
	}
	return f.Content()
}

// Glob implements filesys.FileSystem.
func (o *overlay) Glob(pattern string) ([]string, error) {
	paths, err := o.artifact.Glob(sourcetree.Rel(pattern))
	for i := range paths {
		paths[i] = "/" + paths[i]
	}
	return paths, err
}

// Walk implements filesys.FileSystem. A build does not walk.
func (o *overlay) Walk(string, filepath.WalkFunc) error { return errReadOnly }

func notExist(p string) error { return fmt.Errorf("%s: %w", p, fs.ErrNotExist) }
