package entrypoint

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// maxMount is how many directories above the tree are tried as the root of its repository.
const maxMount = 4

// finder finds the entry points of one tree.
type finder struct {
	tree           *sourcetree.Tree
	artifact       *sourcetree.Artifact
	mount          string
	kustomizations []candidate
	defined        map[string][]*sourcetree.File // files by the sources that they define, as KIND/NAME
	trees          map[string]bool               // sources that are likely to be this tree; nil until they are counted
}

// candidate is a Flux Kustomization in a file of the tree.
type candidate struct {
	path  string // of the file in the artifact
	index int    // of the document in the file
	dir   string // spec.path
	// source is KIND/NAME of the source.
	source string
}

func newFinder(t *sourcetree.Tree, dir string) *finder {
	f := &finder{tree: t, artifact: t.Artifact(""), defined: map[string][]*sourcetree.File{}}
	f.read()
	f.chooseMount(dir)
	return f
}

// read lists the Kustomizations and sources of the tree.
func (f *finder) read() {
	f.kustomizations, f.defined, f.trees = nil, map[string][]*sourcetree.File{}, nil
	for _, p := range f.artifact.Manifests() {
		if f.artifact.InChart(p) {
			continue
		}
		for i, doc := range f.artifact.File(p).Parse().Documents {
			id := sourcetree.Identify(doc)
			switch {
			case id.Group() == flux.GitRepository.Group:
				name := id.Kind + "/" + id.Name
				f.defined[name] = append(f.defined[name], f.artifact.File(p))
			case id.Kind == flux.Kustomization.Kind && id.Group() == flux.Kustomization.Group:
				dir, source := yamlposition.Scalar(doc, "spec", "path"), sourceOf(doc)
				// One without these fields is a base that kustomize completes, or a patch.
				whole := yamlposition.Scalar(doc, "spec", "interval") != "" && yamlposition.Scalar(doc, "spec", "prune") != ""
				if whole && source.Name != "" && id.Name != "" && !unresolved.HasVariable(dir) {
					f.kustomizations = append(f.kustomizations, candidate{p, i, sourcetree.Rel(dir), source.Kind + "/" + source.Name})
				}
			}
		}
	}
}

// chooseMount finds out whether the tree is a subdirectory of its repository: then the paths of its Kustomizations start with names of the
// directories above.
func (f *finder) chooseMount(dir string) {
	fits := func(mount string) int {
		a, n := f.tree.View("", "", mount), 0
		for _, k := range f.kustomizations {
			if k.dir != "." && k.dir != mount && a.IsDir(k.dir) {
				n++
			}
		}
		return n
	}
	best, most := "", fits("")
	if 2*most >= len(f.kustomizations) {
		return
	}
	mount := ""
	for range maxMount {
		name := filepath.Base(dir)
		if dir = filepath.Dir(dir); name == "." || name == string(filepath.Separator) {
			break
		}
		mount = path.Join(name, mount)
		if n := fits(mount); n > 2*most {
			best, most = mount, n
		}
	}
	if best == "" {
		return
	}
	f.mount, f.artifact = best, f.tree.View("", "", best)
	f.read()
}

// explicit returns the entry points that a file names as such.
func (f *finder) explicit() []*EntryPoint {
	var out []*EntryPoint
	for _, p := range f.artifact.Manifests() {
		out = append(out, inFile(f.artifact, p)...)
	}
	return out
}

// locate sets where in the tree the source of an entry point has its root, and reports whether its path is there.
func (f *finder) locate(e *EntryPoint) bool {
	e.Mount = f.mount
	if f.artifact.IsDir(e.Path) {
		return true
	}
	// The artifact may be of one directory of the tree.
	var below []string
	for _, d := range f.artifact.Dirs() {
		if from, ok := strings.CutSuffix(d, "/"+e.Path); ok {
			below = append(below, from)
		}
	}
	if len(below) != 1 || f.mount != "" {
		return false
	}
	e.From = below[0]
	return true
}

// applied returns the Kustomizations that somebody must have applied by hand: those that build the directory of their own file, and, in a tree
// without any other entry point, those that are beside their source. The outermost ones come first; of those, one that builds its own directory,
// which applies the others in its file.
func (f *finder) applied(others bool) []*EntryPoint {
	var out, missing []*EntryPoint
	for _, k := range f.kustomizations {
		beside := f.beside(k)
		self := k.dir == "." || k.path == k.dir || strings.HasPrefix(k.path, k.dir+"/")
		switch {
		case hidden(k.path):
		case f.artifact.IsDir(k.dir) && (self && k.dir != "." || beside && !others && f.isTree(k)):
			out = append(out, f.entry(Applied, k))
		case beside && !others && k.dir != "." && f.isTree(k):
			// The artifact of another source than a Git repository is often one directory of the tree, or made elsewhere.
			if e := f.entry(Applied, k); e.Source.Kind == flux.GitRepository.Kind {
				missing = append(missing, e)
			} else if f.locate(e) {
				out = append(out, e)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b *EntryPoint) int {
		return cmp.Or(cmp.Compare(depth(a.Path), depth(b.Path)), cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Path, b.Path))
	})
	if len(out) == 0 && !others {
		return missing
	}
	return out
}

// rank is 0 for an entry point that builds the directory of its own file, else 1.
func rank(e *EntryPoint) int {
	if strings.HasPrefix(e.Position.File, e.Path+"/") {
		return 0
	}
	return 1
}

// hidden reports whether a file is in a directory whose name starts with a dot: nobody applies what is kept there.
func hidden(p string) bool { return strings.HasPrefix(p, ".") || strings.Contains(p, "/.") }

func depth(dir string) int {
	if dir == "." {
		return 0
	}
	return 1 + strings.Count(dir, "/")
}

// beside reports whether a file in the directory of the Kustomization defines its source.
func (f *finder) beside(k candidate) bool {
	return slices.ContainsFunc(f.defined[k.source], func(file *sourcetree.File) bool {
		return path.Dir(file.Path()) == path.Dir(f.artifact.File(k.path).Path())
	})
}

// isTree reports whether the source of a Kustomization is likely to be this tree: most paths that Kustomizations have in it are there.
func (f *finder) isTree(k candidate) bool {
	if f.trees == nil {
		f.countPaths()
	}
	return f.trees[k.source]
}

// countPaths decides which sources are likely to be this tree.
func (f *finder) countPaths() {
	f.trees = map[string]bool{}
	balance := map[string]int{}
	fits := map[string]bool{}
	for _, k := range f.kustomizations {
		if k.dir == "." {
			continue
		}
		fit, known := fits[k.dir]
		if !known {
			fit = f.artifact.IsDir(k.dir) || f.artifact.NearestDir(k.dir) != ""
			fits[k.dir] = fit
		}
		if fit {
			balance[k.source]++
		} else {
			balance[k.source]--
		}
	}
	for source, n := range balance {
		f.trees[source] = n > 0
	}
}

// entry returns the entry point that a Kustomization is.
func (f *finder) entry(kind Kind, k candidate) *EntryPoint {
	file := f.artifact.File(k.path)
	e := ofKustomization(kind, file, k.index)
	e.Mount = f.mount
	if len(e.Objects) > 1 {
		return e
	}
	for _, other := range f.defined[k.source] {
		if path.Dir(other.Path()) == path.Dir(file.Path()) && e.addSource(other) {
			return e
		}
	}
	switch {
	case len(f.defined[k.source]) > 0:
		// What applies the source is in the tree; only its address is needed here.
		for i, doc := range f.defined[k.source][0].Parse().Documents {
			if id := sourcetree.Identify(doc); id.Kind == e.Source.Kind && id.Name == e.Source.Name && i >= 0 {
				e.URL, e.Ignore = yamlposition.Scalar(doc, "spec", "url"), yamlposition.Scalar(doc, "spec", "ignore")
			}
		}
	case e.Source.Kind != flux.ExternalArtifact.Kind:
		e.Objects = append(e.Objects, synthesized(e.Position, sourceObject(e.Source, "")))
	}
	return e
}

// at returns the entry point of a directory that was given. What the tree itself has for that directory defines the rest of it: an entry point
// that syncs it, or a Kustomization with that path.
func (f *finder) at(dir string) (*EntryPoint, error) {
	given := f.tree.Artifact("")
	if !given.IsDir(dir) {
		problem := fmt.Sprintf("entry point %s: %s", dir, given.ExplainMissing(dir))
		if n := given.NearestDir(dir); n != "" {
			problem += "; did you mean " + n + "?"
		}
		return nil, errors.New(problem)
	}
	for _, e := range f.explicit() {
		if f.locate(e) && sourcetree.Rel(path.Join(e.From, e.Path)) == sourcetree.Rel(path.Join(e.Mount, dir)) {
			return e, nil
		}
	}
	for _, k := range f.kustomizations {
		if kind, _, _ := strings.Cut(k.source, "/"); kind != flux.ExternalArtifact.Kind && k.dir == sourcetree.Rel(path.Join(f.mount, dir)) &&
			!hidden(k.path) && f.isTree(k) {
			return f.entry(Applied, k), nil
		}
	}
	e := synthesizedEntry(Directory, validators.Position{}, sourcetree.Rel(path.Join(f.mount, dir)), f.commonSource(dir))
	e.Mount = f.mount
	return e, nil
}

// commonSource returns the source that most Kustomizations below a directory have, if it is likely to be the tree; else the one of
// `flux bootstrap`.
func (f *finder) commonSource(dir string) validators.ObjectRef {
	counts := map[string]int{}
	best := validators.ObjectRef{
		Group: flux.GitRepository.Group, Kind: flux.GitRepository.Kind, Namespace: defaultNamespace, Name: defaultNamespace,
	}
	most := 0
	below := sourcetree.Rel(path.Join(f.mount, dir))
	for _, k := range f.kustomizations {
		kind, _, _ := strings.Cut(k.source, "/")
		if kind == flux.ExternalArtifact.Kind || below != "." && !strings.HasPrefix(k.path, below+"/") || !f.isTree(k) {
			continue
		}
		if counts[k.source]++; counts[k.source] > most {
			most, best = counts[k.source], sourceOf(f.artifact.File(k.path).Parse().Documents[k.index])
		}
	}
	return best
}

// Candidates returns directories of a tree without an entry point that look like one: those with several Flux Kustomizations, and those named
// as clusters usually are.
func Candidates(t *sourcetree.Tree) []string {
	f := &finder{tree: t, artifact: t.Artifact(""), defined: map[string][]*sourcetree.File{}}
	f.read()
	counts := map[string]int{}
	for _, k := range f.kustomizations {
		if !hidden(k.path) {
			counts[path.Dir(k.path)]++
		}
	}
	for _, dir := range f.artifact.Dirs() {
		names, _ := f.artifact.ReadDir(dir)
		if clusterDir.MatchString(dir) && slices.Contains(names, "kustomization.yaml") {
			counts[dir] += ofCluster
		}
	}
	var out []string
	for dir, n := range counts {
		if n > 1 || path.Base(path.Dir(dir)) == "clusters" {
			out = append(out, dir)
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	return out[:min(len(out), maxCandidates)]
}

// clusterDir matches the directories of clusters in the usual layouts.
var clusterDir = regexp.MustCompile(`(^|/)clusters/[^/.]+(/[^/.]+)?$`)

// ofCluster puts the directories of clusters before others with as many Kustomizations.
const ofCluster = 1000

// maxCandidates bounds how many directories Candidates returns.
const maxCandidates = 5
