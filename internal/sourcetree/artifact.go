package sourcetree

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/validators"
)

// Artifact is what a source provides to Flux's controllers: files by their path in the artifact, and the directories
// that hold any.
type Artifact struct {
	tree  *Tree
	files map[string]*File
	dirs  map[string][]string // directory → names of its entries, sorted; the root is "."
	// paths are the paths of files by their names in positions, where they differ from those in the tree; nil where they do not.
	paths map[string]string
	// from is the directory of the tree that is the artifact's root; empty for the tree's own root.
	from string
	// mount is the directory of the artifact that the tree's root is; empty for the artifact's own root.
	mount string
	// composed means that the files were put together by copy operations: paths say nothing about where a file is in the tree.
	composed bool
}

// NewArtifact returns an artifact with one file that is not on disk. Name is the file's name in positions.
func NewArtifact(name string, data []byte, limits Limits) *Artifact {
	f := &File{path: name, data: data, tree: &Tree{limits: limits.WithDefaults(), files: map[string]*File{}}}
	f.load.Do(func() {
		if limit := f.tree.limits.FileBytes; int64(len(data)) > limit {
			f.data, f.err = nil, tooLarge(limit)
		}
	})
	return &Artifact{tree: f.tree, files: map[string]*File{name: f}, dirs: map[string][]string{}}
}

func (a *Artifact) add(p string, f *File) {
	a.files[p] = f
	for {
		dir, name := path.Dir(p), path.Base(p)
		names, known := a.dirs[dir]
		a.dirs[dir] = append(names, name)
		if known {
			return
		}
		p = dir
	}
}

// put adds a file at a path, and remembers the path where it is not the file's own.
func (a *Artifact) put(p string, f *File) {
	a.add(p, f)
	if a.paths != nil {
		if _, known := a.paths[f.Name()]; !known {
			a.paths[f.Name()] = p
		}
	}
}

// sort sorts the entries of the directories, once all files are added.
func (a *Artifact) sort() {
	for _, names := range a.dirs {
		slices.Sort(names)
	}
}

// Tree returns the tree that the artifact's files are in.
func (a *Artifact) Tree() *Tree { return a.tree }

// Paths returns the paths of all files, sorted.
func (a *Artifact) Paths() []string { return slices.Sorted(maps.Keys(a.files)) }

// Manifests returns the paths of the YAML files, and of the JSON files with a Kubernetes object, that are no chart's templates, sorted.
func (a *Artifact) Manifests() []string {
	return slices.DeleteFunc(a.Paths(), func(p string) bool {
		return !IsYAML(p) && !a.files[p].isJSONManifest() || a.InChartTemplates(p)
	})
}

// Composed reports whether the artifact was put together by copy operations.
func (a *Artifact) Composed() bool { return a.composed }

// Outside reports whether a path of the artifact is outside of the directory that was opened, or in one that cannot be listed, so that nothing
// is known of it.
func (a *Artifact) Outside(p string) bool {
	if in, ok := a.TreePath(p); ok && a.tree.unlistedAbove(in) != "" {
		return true
	}
	return a.mount != "" && p != a.mount && !strings.HasPrefix(p, a.mount+"/") && !strings.HasPrefix(a.mount, p+"/") && p != "."
}

// TreePath returns the path in the tree of a path of the artifact; false where there is none.
func (a *Artifact) TreePath(p string) (string, bool) {
	switch {
	case a.composed:
		return "", false
	case a.from != "":
		return path.Join(a.from, p), true
	case a.mount == "" || p == ".":
		return p, true
	case p == a.mount:
		return ".", true
	}
	return strings.CutPrefix(p, a.mount+"/")
}

// File returns the file at a path; nil when there is none.
func (a *Artifact) File(p string) *File { return a.files[p] }

// FileNamed returns the file with a name in positions; nil when it is not in the artifact.
func (a *Artifact) FileNamed(name string) *File { return a.files[a.PathOf(name)] }

// IsDir reports whether the path is a directory of the artifact.
func (a *Artifact) IsDir(p string) bool {
	_, ok := a.dirs[p]
	return ok
}

// ReadDir returns the sorted names of a directory's entries, and whether there is such a directory.
func (a *Artifact) ReadDir(p string) ([]string, bool) {
	names, ok := a.dirs[p]
	return names, ok
}

// Glob returns the paths that match a pattern, as path.Match does.
func (a *Artifact) Glob(pattern string) ([]string, error) {
	var out []string
	for p := range a.files {
		ok, err := path.Match(pattern, p)
		if err != nil {
			return nil, fmt.Errorf("matching %q: %w", pattern, err)
		}
		if ok {
			out = append(out, p)
		}
	}
	return out, nil
}

// Name returns the name in positions of the file at a path, whether it exists or not.
func (a *Artifact) Name(p string) string {
	if f := a.files[p]; f != nil {
		return f.Name()
	}
	if in, ok := a.TreePath(p); ok {
		p = in
	}
	return a.tree.prefix + p
}

// PathOf returns the path of the file with a name in positions.
func (a *Artifact) PathOf(name string) string {
	if p, ok := a.paths[name]; ok {
		return p
	}
	return strings.TrimPrefix(name, a.tree.prefix)
}

// Position returns a position in the file at a path, whether it exists or not; line and column count from 1, and 0 is
// unknown.
func (a *Artifact) Position(p string, line, column int) validators.Position {
	return validators.Position{File: a.Name(p), Line: line, Column: column}
}

// PositionInText returns the position in a file of a position in the text of one of its scalars, such as an inline
// patch.
func (a *Artifact) PositionInText(p string, scalar *yaml.Node, at validators.Position) validators.Position {
	out := a.Position(p, scalar.Line, scalar.Column)
	if scalar.Style&yaml.LiteralStyle == 0 {
		return out
	}
	out.Line += at.Line
	out.Column = at.Column
	if f := a.files[p]; f != nil {
		if data, err := f.Read(); err == nil {
			if lines := bytes.SplitN(data, []byte("\n"), scalar.Line+2); len(lines) > scalar.Line {
				out.Column += len(lines[scalar.Line]) - len(bytes.TrimLeft(lines[scalar.Line], " "))
			}
		}
	}
	return out
}

// Search returns the position of the first occurrence of a text in a file, from a line on.
func (a *Artifact) Search(p, text string, from int) (validators.Position, bool) {
	f := a.files[p]
	if f == nil {
		return validators.Position{}, false
	}
	data, err := f.Read()
	if err != nil {
		return validators.Position{}, false
	}
	for i, line := range strings.Split(string(data), "\n") {
		if i+1 < from {
			continue
		}
		if at := strings.Index(line, text); at >= 0 {
			return f.Position(i+1, at+1), true
		}
	}
	return validators.Position{}, false
}

// ParseText parses YAML that is embedded in the file at a path, such as an inline patch, within the limits of the
// tree. Positions are relative to the text.
func (a *Artifact) ParseText(p, text string) *Parsed { return parse([]byte(text), p, a.tree.limits) }

// InChartTemplates reports whether the file is a template of a Helm chart in the tree, which is YAML only once it is
// templated.
func (a *Artifact) InChartTemplates(p string) bool {
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if path.Base(dir) == "templates" {
			if _, ok := a.files[path.Join(path.Dir(dir), "Chart.yaml")]; ok {
				return true
			}
		}
	}
	return false
}

// InChart reports whether the file is in the directory of a Helm chart.
func (a *Artifact) InChart(p string) bool {
	for dir := path.Dir(p); ; dir = path.Dir(dir) {
		if a.files[path.Join(dir, "Chart.yaml")] != nil {
			return true
		}
		if dir == "." {
			return false
		}
	}
}

// ExplainMissing returns the reason why a path is not in the artifact.
func (a *Artifact) ExplainMissing(p string) string {
	if a.composed {
		return p + " is not in the artifact that the ArtifactGenerator makes"
	}
	shown := p
	p, known := a.TreePath(p)
	if !known {
		return shown + " is outside of the directory that was opened"
	}
	if target, ok := a.tree.links[p]; ok {
		return fmt.Sprintf("%s is a symbolic link to %s, which Flux leaves out of the artifact", p, target)
	}
	if dir := a.tree.unlistedAbove(p); dir != "" {
		return fmt.Sprintf("%s cannot be listed: %v", dir, a.tree.unlisted[dir])
	}
	if a.tree.exists(p) {
		return p + " is left out of the artifact by .sourceignore or the source's spec.ignore"
	}
	if strings.HasPrefix(p, "..") {
		return p + " is outside of the tree"
	}
	return p + " is not in the tree"
}

// NearestDir returns the directory that a missing one is likely to mean: one with a similar path, or the same name
// elsewhere. It is empty when there is none.
func (a *Artifact) NearestDir(missing string) string {
	var dirs, same []string
	for d := range a.dirs {
		dirs = append(dirs, d)
		if path.Base(d) == path.Base(missing) {
			same = append(same, d)
		}
	}
	if n := suggest.NearestPath(missing, dirs); n != "" {
		return n
	}
	// A name such as "app" can occur many times; then the parent directory must have the same name, too.
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
