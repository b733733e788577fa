package kustomization

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// overlay is kustomize's view of a source: a view of the tree, with what Flux would have written into its working copy on top. The root
// of the tree is "/", so that no path of this machine gets into a message. It is made for one build and read by one goroutine.
type overlay struct {
	view    *view
	written map[string][]byte
	read    map[string]bool // files of the view that the build has read
	// clones lets through the directories that kustomize clones remote bases into; nil when these are not allowed.
	clones filesys.FileSystem
}

var errReadOnly = errors.New("the tree is not written to")

func rel(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+filepath.ToSlash(p)), "/")
	if p == "" {
		return "."
	}
	return p
}

// clone tells whether the path is in a directory that kustomize has cloned a remote base into.
func (o *overlay) clone(p string) bool {
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
	if o.clone(p) {
		return o.clones.RemoveAll(p)
	}
	return errReadOnly
}

// IsDir implements filesys.FileSystem.
func (o *overlay) IsDir(p string) bool {
	if o.clone(p) {
		return o.clones.IsDir(p)
	}
	return o.view.isDir(rel(p))
}

// Exists implements filesys.FileSystem.
func (o *overlay) Exists(p string) bool {
	if o.clone(p) {
		return o.clones.Exists(p)
	}
	r := rel(p)
	if _, ok := o.written[r]; ok {
		return true
	}
	if _, ok := o.view.files[r]; ok {
		return true
	}
	return o.view.isDir(r)
}

// ReadDir implements filesys.FileSystem.
func (o *overlay) ReadDir(p string) ([]string, error) {
	if o.clone(p) {
		return o.clones.ReadDir(p)
	}
	names, ok := o.view.dirs[rel(p)]
	if !ok {
		return nil, notExist(rel(p))
	}
	return names, nil
}

// CleanedAbs implements filesys.FileSystem.
func (o *overlay) CleanedAbs(p string) (filesys.ConfirmedDir, string, error) {
	if o.clone(p) {
		return o.clones.CleanedAbs(p)
	}
	r := rel(p)
	if o.view.isDir(r) {
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
	if o.clone(p) {
		return o.clones.ReadFile(p)
	}
	r := rel(p)
	f, onDisk := o.view.files[r]
	if onDisk {
		o.read[r] = true
	}
	if data, ok := o.written[r]; ok {
		return data, nil
	}
	if !onDisk {
		return nil, notExist(r)
	}
	return f.content()
}

// Glob implements filesys.FileSystem.
func (o *overlay) Glob(pattern string) ([]string, error) {
	var out []string
	for p := range o.view.files {
		ok, err := path.Match(rel(pattern), p)
		if err != nil {
			return nil, fmt.Errorf("matching %q: %w", pattern, err)
		}
		if ok {
			out = append(out, "/"+p)
		}
	}
	return out, nil
}

// Walk implements filesys.FileSystem. A build does not walk.
func (o *overlay) Walk(string, filepath.WalkFunc) error { return errReadOnly }

func notExist(p string) error { return fmt.Errorf("%s: %w", p, fs.ErrNotExist) }
