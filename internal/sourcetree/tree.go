package sourcetree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/fluxcd/pkg/sourceignore"
	"github.com/fluxcd/pkg/sourceignore/gitignore"
)

// Tree is a directory on disk, listed once. Its files are read on first use.
type Tree struct {
	prefix string // of names in positions: empty for the tree itself, "NAME:" for a mapped source
	root   *os.Root
	limits Limits
	files  map[string]*File  // by path relative to the root, with slashes
	links  map[string]string // symbolic links, which Flux leaves out of an artifact, and their targets
	// unlisted are the directories that could not be listed, and the errors.
	unlisted map[string]error
	ignore   []gitignore.Pattern
	texts    map[string][]byte // of files that are read as if they had been edited, by path

	// bytes is how much was read; exceeded means that a file was refused because of a limit.
	bytes    atomic.Int64
	exceeded atomic.Bool

	mu        sync.Mutex
	artifacts map[viewKey]*Artifact
}

// Open lists a directory. Prefix is put before the names of its files in positions. The caller closes the tree.
func Open(ctx context.Context, dir, prefix string, limits Limits) (*Tree, error) {
	// A pipe would keep the process waiting for a writer.
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("opening the tree: %s is neither a directory nor a file; use - to read manifests from standard input", dir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the tree: %w", err)
	}
	t := &Tree{
		prefix: prefix, root: root, limits: limits.WithDefaults(), files: map[string]*File{}, links: map[string]string{},
		unlisted: map[string]error{}, artifacts: map[viewKey]*Artifact{},
	}
	if err := t.list(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("listing %s: %w", dir, err), root.Close())
	}
	return t, nil
}

// OpenEdited opens a tree as Open does, with other texts for some of its files, by path: what the tree would be after an edit.
func OpenEdited(ctx context.Context, dir string, limits Limits, texts map[string][]byte) (*Tree, error) {
	t, err := Open(ctx, dir, "", limits)
	if err != nil {
		return nil, err
	}
	t.texts = texts
	return t, nil
}

// Close closes the directory.
func (t *Tree) Close() error { return t.root.Close() }

// Limits returns the limits of the tree, defaults filled in.
func (t *Tree) Limits() Limits { return t.limits }

// Exceeded reports whether a file was refused so far because of a limit.
func (t *Tree) Exceeded() bool { return t.exceeded.Load() }

// Files returns all files of the tree by path, also those that ignore rules leave out of an artifact.
func (t *Tree) Files() []*File {
	out := make([]*File, 0, len(t.files))
	for _, p := range slices.Sorted(maps.Keys(t.files)) {
		out = append(out, t.files[p])
	}
	return out
}

func (t *Tree) list(ctx context.Context) error {
	return fs.WalkDir(t.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if p == "." {
				return err
			}
			if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
				err = pathErr.Err
			}
			t.unlisted[p] = err
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		switch mode := d.Type(); {
		case d.IsDir():
			if d.Name() == ".git" {
				return fs.SkipDir
			}
		case mode&fs.ModeSymlink != 0:
			target, err := t.root.Readlink(p)
			if err != nil {
				target = ""
			}
			t.links[p] = target
		case mode.IsRegular():
			if len(t.files) >= t.limits.Files {
				return fmt.Errorf("more than %d files: point at a smaller tree or raise the limit", t.limits.Files)
			}
			f := &File{tree: t, path: p}
			t.files[p] = f
			if d.Name() == sourceignore.IgnoreFile {
				if data, err := f.Read(); err == nil {
					t.ignore = append(t.ignore, sourceignore.ReadPatterns(strings.NewReader(string(data)), domain(path.Dir(p)))...)
				}
			}
		}
		return nil
	})
}

// Unlisted returns the directories that could not be listed, so that nothing is known of what is in them, with the errors.
func (t *Tree) Unlisted() map[string]error { return t.unlisted }

// unlistedAbove returns the directory that could not be listed and is the path or has it; empty if there is none.
func (t *Tree) unlistedAbove(p string) string {
	for ; ; p = path.Dir(p) {
		if t.unlisted[p] != nil || p == "." {
			return notRoot(p)
		}
	}
}

func domain(dir string) []string {
	if dir == "." {
		return nil
	}
	return strings.Split(dir, "/")
}

// exists reports whether the path is a file or a directory with files, ignored ones included.
func (t *Tree) exists(p string) bool {
	for f := range t.files {
		if f == p || strings.HasPrefix(f, p+"/") {
			return true
		}
	}
	return false
}

// Artifact returns the artifact of a source: the tree without what .sourceignore files and ignore, the source's spec.ignore, leave out. The
// rules are source-controller's: any pattern replaces the default exclusions, except those of version control. The same text gives the same
// artifact.
func (t *Tree) Artifact(ignore string) *Artifact { return t.View(ignore, "", "") }

// View returns the artifact of a source whose root is not that of the tree: from is the directory of the tree that is the artifact's root, as
// for an OCI artifact of a subdirectory; mount is the directory of the artifact that the tree's root is, as for a tree that is itself a
// subdirectory of its repository. Both are empty for the same root. The same arguments give the same artifact.
func (t *Tree) View(ignore, from, mount string) *Artifact {
	from, mount = notRoot(from), notRoot(mount)
	key := viewKey{ignore, from, mount}
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.artifacts[key]; a != nil {
		return a
	}
	patterns := slices.Clone(t.ignore)
	if ignore != "" {
		patterns = append(patterns, sourceignore.ReadPatterns(strings.NewReader(ignore), nil)...)
	}
	matcher := sourceignore.NewDefaultMatcher(patterns, nil)
	if len(patterns) > 0 {
		matcher = sourceignore.NewMatcher(append(sourceignore.VCSPatterns(nil), patterns...))
	}
	a := &Artifact{tree: t, files: make(map[string]*File, len(t.files)), dirs: map[string][]string{".": nil}, from: from, mount: mount}
	if from != "" || mount != "" {
		a.paths = make(map[string]string, len(t.files))
	}
	for p, f := range t.files {
		if matcher.Match(strings.Split(p, "/"), false) {
			continue
		}
		in, ok := p, true
		if from != "" {
			in, ok = strings.CutPrefix(p, from+"/")
		}
		if !ok {
			continue
		}
		a.put(path.Join(mount, in), f)
	}
	a.sort()
	t.artifacts[key] = a
	return a
}

type viewKey struct{ ignore, from, mount string }

// notRoot returns a directory as Rel does, but the root as the empty text.
func notRoot(dir string) string {
	if dir = Rel(dir); dir == "." {
		return ""
	}
	return dir
}

// Rel returns a path relative to the root of an artifact, cleaned and with slashes; "." for the root. A path cannot leave the root.
func Rel(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+filepath.ToSlash(p)), "/")
	if p == "" {
		return "."
	}
	return p
}

// IsYAML reports whether the name of a file ends as that of a YAML file.
func IsYAML(p string) bool {
	ext := path.Ext(p)
	return ext == ".yaml" || ext == ".yml"
}
