package sourcetree

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/fluxcd/pkg/sourceignore"
	"sigs.k8s.io/yaml"
)

// The strategies of a copy operation.
const (
	StrategyMerge   = "Merge"
	StrategyExtract = "Extract"
)

// ErrExtract means that an artifact holds the content of an archive that exceeds a limit.
var ErrExtract = errors.New("the archive is too large to be read")

var errNoMatch = errors.New("no file matches")

// CopyOperation is one entry of spec.artifacts[].copy of an ArtifactGenerator.
type CopyOperation struct {
	From, To string
	Exclude  []string
	Strategy string
}

// Compose returns the artifact that copy operations make of others, by their aliases, as source-watcher 2.3 does. The files are those of the
// sources, so that positions are where the text is. An error means that the ArtifactGenerator fails, or ErrExtract.
func Compose(sources map[string]*Artifact, operations []CopyOperation) (*Artifact, error) {
	if len(operations) == 0 || len(sources) == 0 {
		return nil, errors.New("nothing is copied")
	}
	c := &composer{sources: sources, files: map[string]*File{}, dirs: map[string]bool{".": true}}
	for _, op := range operations {
		if err := c.apply(op); err != nil {
			return nil, fmt.Errorf("copy from %s to %s: %w", op.From, op.To, err)
		}
	}
	out := &Artifact{files: map[string]*File{}, dirs: map[string][]string{".": nil}, paths: map[string]string{}, composed: true}
	for _, alias := range slices.Sorted(maps.Keys(sources)) {
		out.tree = sources[alias].tree
	}
	matcher := sourceignore.NewDefaultMatcher(nil, nil)
	for _, p := range slices.Sorted(maps.Keys(c.files)) {
		if !matcher.Match(strings.Split(p, "/"), false) {
			out.put(p, c.files[p])
		}
	}
	out.sort()
	return out, nil
}

// composer holds the artifact that is being made.
type composer struct {
	sources map[string]*Artifact
	files   map[string]*File
	dirs    map[string]bool
	// bytes and entries are what was read of archives.
	bytes   int64
	entries int
}

func (c *composer) apply(op CopyOperation) error {
	alias, pattern, ok := strings.Cut(strings.TrimPrefix(op.From, "@"), "/")
	if !ok || !strings.HasPrefix(op.From, "@") {
		return errors.New("the source must be @alias/pattern")
	}
	to, ok := strings.CutPrefix(op.To, "@artifact/")
	if !ok {
		return errors.New("the destination must start with @artifact/")
	}
	source := c.sources[alias]
	if source == nil {
		return fmt.Errorf("there is no source %s", alias)
	}
	for _, x := range op.Exclude {
		if !doublestar.ValidatePattern(x) {
			return fmt.Errorf("the exclude pattern %q is invalid", x)
		}
	}
	if op.Strategy == StrategyExtract {
		return c.extract(source, op, pattern, to)
	}
	if !isPattern(pattern) {
		return c.copySingle(source, op, pattern, to)
	}
	matches, err := source.entries(pattern)
	if err != nil {
		return err
	}
	base := selectionRoot(pattern)
	matches = slices.DeleteFunc(matches, func(m string) bool { return excluded(m, base, op.Exclude) })
	if len(matches) == 0 {
		return errNoMatch
	}
	for _, m := range matches {
		dest := path.Join(to, m)
		if prefix, all := strings.CutSuffix(pattern, "/**"); all {
			if rest, below := strings.CutPrefix(m, prefix+"/"); below {
				dest = path.Join(to, rest)
			}
		}
		if err := c.copy(source, op, m, dest, base); err != nil {
			return err
		}
	}
	return nil
}

// copySingle copies what a path without wildcards names, as cp does.
func (c *composer) copySingle(source *Artifact, op CopyOperation, from, to string) error {
	from = path.Clean(from)
	switch {
	case source.IsDir(from):
		return c.copy(source, op, from, path.Join(to, path.Base(from)), from)
	case source.File(from) == nil:
		return fmt.Errorf("%s does not exist", from)
	case excluded(from, ".", op.Exclude):
		return nil
	case strings.HasSuffix(op.To, "/"), c.dirs[Rel(to)]:
		to = path.Join(to, path.Base(from))
	}
	return c.copy(source, op, from, to, ".")
}

// copy copies a file, or a directory with all that is below it.
func (c *composer) copy(source *Artifact, op CopyOperation, from, to, base string) error {
	to = Rel(to)
	if f := source.File(from); f != nil {
		if has := c.files[to]; has != nil && op.Strategy == StrategyMerge {
			merged, err := mergeFiles(has, f)
			if err != nil {
				return err
			}
			f = merged
		}
		c.put(to, f)
		return nil
	}
	c.mkdir(to)
	names, _ := source.ReadDir(from)
	for _, name := range names {
		p := path.Join(from, name)
		if excluded(p, base, op.Exclude) {
			continue
		}
		// Only a file that the pattern itself matches is merged.
		below := op
		below.Strategy = ""
		if err := c.copy(source, below, p, path.Join(to, name), base); err != nil {
			return err
		}
	}
	return nil
}

func (c *composer) put(p string, f *File) {
	c.files[p] = f
	c.mkdir(path.Dir(p))
}

func (c *composer) mkdir(d string) {
	for ; !c.dirs[d]; d = path.Dir(d) {
		c.dirs[d] = true
	}
}

// entries returns the sorted files and directories that match a pattern, as fs.Glob does: a star does not match a slash, and two are one.
func (a *Artifact) entries(pattern string) ([]string, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, fmt.Errorf("the pattern %q is invalid", pattern)
	}
	return a.matching(func(p string) bool {
		ok, _ := path.Match(pattern, p)
		return ok
	}), nil
}

// matching returns the sorted files and directories that match.
func (a *Artifact) matching(match func(string) bool) []string {
	var out []string
	for _, list := range [][]string{slices.Collect(maps.Keys(a.files)), slices.Collect(maps.Keys(a.dirs))} {
		for _, p := range list {
			if p != "." && match(p) {
				out = append(out, p)
			}
		}
	}
	slices.Sort(out)
	return out
}

func isPattern(text string) bool { return strings.ContainsAny(text, "*?[]") }

// selectionRoot returns the part of a pattern before its first wildcard, in whole path elements.
func selectionRoot(pattern string) string {
	var out []string
	for part := range strings.SplitSeq(path.Clean(pattern), "/") {
		if isPattern(part) {
			break
		}
		out = append(out, part)
	}
	if len(out) == 0 {
		return "."
	}
	return path.Join(out...)
}

// excluded reports whether one of the patterns matches a path: from the root of the source, from a base directory in it, or by its name alone.
func excluded(p, base string, patterns []string) bool {
	candidates := []string{p}
	if base != "." {
		if rel, ok := strings.CutPrefix(p, base+"/"); ok {
			candidates = append(candidates, rel)
		}
	}
	for _, pattern := range patterns {
		for _, candidate := range candidates {
			if doublestar.MatchUnvalidated(pattern, candidate) ||
				!strings.Contains(pattern, "/") && doublestar.MatchUnvalidated(pattern, path.Base(candidate)) {
				return true
			}
		}
	}
	return false
}

// mergeFiles merges the YAML of a file over that of another, as Helm merges values: maps are merged, anything else is replaced. The result
// has the name of the first.
func mergeFiles(base, over *File) (*File, error) {
	var values [2]map[string]any
	for i, f := range []*File{base, over} {
		data, err := f.Content()
		if err != nil {
			return nil, err
		}
		if err := yaml.Unmarshal(data, &values[i]); err != nil {
			return nil, fmt.Errorf("%s cannot be merged: it is not a YAML mapping", f.Path())
		}
	}
	data, err := yaml.Marshal(mergeMaps(values[0], values[1]))
	if err != nil {
		return nil, fmt.Errorf("merging %s and %s: %w", base.Path(), over.Path(), err)
	}
	out := &File{tree: base.tree, path: base.path}
	out.load.Do(func() { out.data = data })
	return out, nil
}

func mergeMaps(base, over map[string]any) map[string]any {
	out := make(map[string]any, len(base)+len(over))
	maps.Copy(out, base)
	for k, v := range over {
		inner, isMap := v.(map[string]any)
		has, hadMap := out[k].(map[string]any)
		if isMap && hadMap {
			v = mergeMaps(has, inner)
		}
		out[k] = v
	}
	return out
}

// Dirs returns all directories but the root, sorted.
func (a *Artifact) Dirs() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(a.dirs)), func(d string) bool { return d == "." })
}

// Include returns the artifact with a directory of another one in it, as source-controller includes repositories. Files of the other one take the
// place of those of the same path.
func (a *Artifact) Include(other *Artifact, from, to string) *Artifact {
	out := *a
	out.files, out.dirs, out.paths = maps.Clone(a.files), map[string][]string{".": nil}, map[string]string{}
	for p, f := range other.files {
		if from != "." {
			rest, ok := strings.CutPrefix(p, from+"/")
			if !ok {
				continue
			}
			p = rest
		}
		out.files[path.Join(to, p)] = f
	}
	files := out.files
	out.files = make(map[string]*File, len(files))
	for _, p := range slices.Sorted(maps.Keys(files)) {
		out.put(p, files[p])
	}
	out.sort()
	return &out
}
