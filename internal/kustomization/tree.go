package kustomization

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/fluxcd/pkg/sourceignore"
	"github.com/fluxcd/pkg/sourceignore/gitignore"
)

// Limits bound what is read from a tree. A zero field means its default.
type Limits struct {
	// FileBytes is the size above which a file is refused; default 8 MiB.
	FileBytes int64
	// Files is the number of files above which the whole tree is refused; default 200,000.
	Files int
	// Depth is how deeply the values of a YAML document may be nested; default 200.
	Depth int
	// Objects is how many objects one Kustomization may make; default 5,000. Kustomize compares each with all others, and a base can be
	// included many times over.
	Objects int
	// Nodes is how many values a YAML file may have once its aliases are written out; default 2,000,000.
	Nodes int
}

func (l Limits) withDefaults() Limits {
	if l.FileBytes == 0 {
		l.FileBytes = 8 << 20
	}
	if l.Files == 0 {
		l.Files = 200_000
	}
	if l.Depth == 0 {
		l.Depth = 200
	}
	if l.Objects == 0 {
		l.Objects = 5_000
	}
	if l.Nodes == 0 {
		l.Nodes = 2_000_000
	}
	return l
}

// tree is a directory on disk, listed once. Files are read when they are asked for, once.
type tree struct {
	label  string // prefix of places: empty for the tree itself, "NAME:" for a mapped source
	root   *os.Root
	limits Limits
	files  map[string]*file  // by path relative to the root, with slashes
	links  map[string]string // symbolic links, which Flux leaves out of an artifact, and what they point to
	ignore []gitignore.Pattern

	mu    sync.Mutex
	views map[string]*view
}

// file is one regular file. Its content, its parsed form and its reading as a kustomization are had once, by whoever asks first.
type file struct {
	tree *tree
	path string

	load sync.Once
	data []byte
	err  error // of reading, or a refusal

	parse sync.Once
	doc   *document

	kust     sync.Once
	kustRead *kustRead

	scan    sync.Once
	scanErr error
}

// refusedError is a file that breaks a limit.
type refusedError struct{ reason string }

func (e *refusedError) Error() string { return e.reason }

// openTree lists a directory. The caller closes the tree.
func openTree(ctx context.Context, dir, label string, limits Limits) (*tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the tree: %w", err)
	}
	t := &tree{label: label, root: root, limits: limits, files: map[string]*file{}, links: map[string]string{}, views: map[string]*view{}}
	if err := t.list(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("listing %s: %w", dir, err), root.Close())
	}
	return t, nil
}

func (t *tree) close() error { return t.root.Close() }

func (t *tree) list(ctx context.Context) error {
	return fs.WalkDir(t.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if p == "." {
				return err
			}
			// A directory that cannot be listed is as good as empty; what refers into it is reported.
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
			f := &file{tree: t, path: p}
			t.files[p] = f
			if d.Name() == sourceignore.IgnoreFile {
				if data, err := f.read(); err == nil {
					t.ignore = append(t.ignore, sourceignore.ReadPatterns(strings.NewReader(string(data)), domain(path.Dir(p)))...)
				}
			}
		}
		return nil
	})
}

func domain(dir string) []string {
	if dir == "." {
		return nil
	}
	return strings.Split(dir, "/")
}

// place returns the place in a file of the tree.
func (t *tree) place(p string, line, column int) Position {
	return Position{File: t.label + p, Line: line, Column: column}
}

// read returns the file's content, or why it is not to be had. The content must not be changed.
func (f *file) read() ([]byte, error) {
	f.load.Do(func() { f.data, f.err = f.readOnce() })
	return f.data, f.err
}

func (f *file) readOnce() (_ []byte, err error) {
	// os.Root refuses to leave the tree, also when a file was swapped for a link since the tree was listed.
	h, err := f.tree.root.Open(filepath.FromSlash(f.path))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.path, err)
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	info, err := h.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, &refusedError{"it is not a regular file"}
	}
	tooLarge := &refusedError{fmt.Sprintf("it is larger than %d bytes", f.tree.limits.FileBytes)}
	if info.Size() > f.tree.limits.FileBytes {
		return nil, tooLarge
	}
	data, err := io.ReadAll(io.LimitReader(h, f.tree.limits.FileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.path, err)
	}
	if int64(len(data)) > f.tree.limits.FileBytes {
		return nil, tooLarge
	}
	return data, nil
}

// content returns what a build may read: the bytes of the file, unless parsing them would not end well.
func (f *file) content() ([]byte, error) {
	data, err := f.read()
	if err != nil {
		return nil, err
	}
	if isYAMLName(f.path) || path.Base(f.path) == "Kustomization" { // what kustomize parses under another name is looked at before the build
		if d := f.document(); d.refused != nil {
			return nil, d.refused
		}
	}
	return data, nil
}

func isYAMLName(p string) bool {
	ext := path.Ext(p)
	return ext == ".yaml" || ext == ".yml"
}

// view is the tree as one source's artifact holds it: without ignored files, and with the directories that are left.
type view struct {
	tree  *tree
	files map[string]*file
	dirs  map[string][]string // directory → names of its entries, sorted; the root is "."
}

// view returns the tree without what .sourceignore files and the given text (a source's spec.ignore) leave out. The rules are
// source-controller's: any pattern of one's own replaces the default exclusions, but for those of version control.
func (t *tree) view(ignore string) *view {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v := t.views[ignore]; v != nil {
		return v
	}
	ps := slices.Clone(t.ignore)
	if ignore != "" {
		ps = append(ps, sourceignore.ReadPatterns(strings.NewReader(ignore), nil)...)
	}
	matcher := sourceignore.NewDefaultMatcher(ps, nil)
	if len(ps) > 0 {
		matcher = sourceignore.NewMatcher(append(sourceignore.VCSPatterns(nil), ps...))
	}
	v := &view{tree: t, files: make(map[string]*file, len(t.files)), dirs: map[string][]string{".": nil}}
	for p, f := range t.files {
		if !matcher.Match(strings.Split(p, "/"), false) {
			v.add(p, f)
		}
	}
	for _, names := range v.dirs {
		slices.Sort(names)
	}
	t.views[ignore] = v
	return v
}

func (v *view) add(p string, f *file) {
	v.files[p] = f
	for {
		dir, name := path.Dir(p), path.Base(p)
		names, known := v.dirs[dir]
		v.dirs[dir] = append(names, name)
		if known {
			return
		}
		p = dir
	}
}

func (v *view) isDir(p string) bool {
	_, ok := v.dirs[p]
	return ok
}

// explainMissing says more about a path that a build asks for and the artifact does not have.
func (v *view) explainMissing(p string) string {
	if target, ok := v.tree.links[p]; ok {
		return fmt.Sprintf("%s is a symbolic link to %s, which Flux leaves out of the artifact", p, target)
	}
	if v.tree.has(p) {
		return p + " is left out of the artifact by .sourceignore or the source's spec.ignore"
	}
	if strings.HasPrefix(p, "..") {
		return p + " is outside of the tree"
	}
	return p + " is not in the tree"
}

// has tells whether the path is a file or a directory with files, ignored ones included.
func (t *tree) has(p string) bool {
	for f := range t.files {
		if f == p || strings.HasPrefix(f, p+"/") {
			return true
		}
	}
	return false
}

// near returns the existing path, among candidates, that resembles the missing one most; empty when none does.
func near(missing string, candidates []string) string {
	best, bestCost := "", 1<<30
	for _, c := range candidates {
		if cost := distance(missing, c); cost < bestCost || (cost == bestCost && c < best) {
			best, bestCost = c, cost
		}
	}
	if limit := max(2, len(missing)/4); bestCost > limit {
		return ""
	}
	return best
}

// distance is the Levenshtein distance of two short strings.
func distance(a, b string) int {
	if d := len(a) - len(b); d > 16 || d < -16 {
		return 1 << 20
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		prev := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := prev
			if a[i-1] != b[j-1] {
				cost++
			}
			prev = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

// nearDir returns a directory of the view that resembles the missing one: the same name elsewhere, or a like spelling.
func (v *view) nearDir(missing string) string {
	var dirs, same []string
	for d := range v.dirs {
		dirs = append(dirs, d)
		if path.Base(d) == path.Base(missing) {
			same = append(same, d)
		}
	}
	if n := near(missing, dirs); n != "" {
		return n
	}
	// With one exemption the name at the end says little: "app" is everywhere, so its parent must be the same too.
	if len(same) == 1 {
		return same[0]
	}
	tail := path.Join(path.Base(path.Dir(missing)), path.Base(missing))
	same = slices.DeleteFunc(same, func(d string) bool { return !strings.HasSuffix("/"+d, "/"+tail) })
	if len(same) == 1 {
		return same[0]
	}
	return ""
}
