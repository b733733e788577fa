package kustomization

import (
	"path"
	"slices"
	"strings"

	"github.com/flux-admission/flux-admission/internal/kustomization/build"
	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// UnappliedObject is an object in a file that no Kustomization applies.
type UnappliedObject struct {
	Position                              validators.Position
	Group, Version, Kind, Namespace, Name string
	// ReferencedBy is the kustomization file that has to list Entry: the object's file, or the directory that has it;
	// empty when each one above lists what is below, and in a directory without one, where Entry is a file that is not YAML.
	ReferencedBy, Entry string
	// Parent is the unapplied Kustomization that builds this object: once it is applied, this object is, too. Nil
	// when there is none.
	Parent *UnappliedObject
	// disabled means that the kustomization file has the entry in a comment: somebody took it out on purpose.
	disabled bool
}

// unapplied returns the Flux objects in the directories that Kustomizations of any cluster build, which no
// Kustomization applies, and the first other object of each file that a kustomization file should list. A directory whose build is unknown is left out: it may apply the object. So are
// the directory that a wrong spec.path resembles, that of a Kustomization whose source nothing defines, and a file that a build has read, as a
// patch for instance.
func (b *treeBuilder) unapplied(clusters []*Cluster) []*UnappliedObject {
	built, unknown, failed := map[string]bool{}, map[string]bool{}, map[string]bool{}
	entries := map[string]bool{}
	for _, c := range clusters {
		for _, k := range c.Kustomizations {
			if k.artifact != nil && k.artifact.Tree() == b.tree && k.builds > 0 {
				if dir, ok := k.artifact.TreePath(k.Path); ok {
					built[dir] = true
					unknown[dir] = unknown[dir] || k.State == Unknown
					failed[dir] = failed[dir] || k.Failed()
				}
			}
		}
		for _, e := range c.roots {
			entries[e.Position.File] = true
		}
	}
	for _, c := range clusters {
		for _, k := range c.Kustomizations {
			if dir := c.meant(k); dir != "" && dir != "." && !built[dir] {
				unknown[dir] = true
			}
		}
	}
	a := b.tree.Artifact("")
	list := &listings{artifact: a, listed: map[string]map[string]bool{}, comments: map[string]map[string]bool{}}
	var out []*UnappliedObject
	for _, p := range a.Manifests() {
		f := a.File(p)
		if b.read[f] || entries[f.Name()] || !inDirs(p, built) || inDirs(p, unknown) {
			continue
		}
		// A build that fails may be about the very file, and one object of other kinds than Flux's is reported for the whole file.
		other := inDirs(p, failed)
		for _, doc := range f.Parse().Documents {
			id := sourcetree.Identify(doc)
			isFlux := strings.HasSuffix(id.Group(), fluxGroups)
			if id.Name == "" || !isFlux && (other || !id.IsObject() || foreign(id.APIVersion, id.Kind) || a.InChart(p)) {
				continue
			}
			at := yamlposition.Of(yamlposition.Root(doc))
			o := &UnappliedObject{
				Position: f.Position(at.Line, at.Column),
				Group:    id.Group(), Version: path.Base(id.APIVersion), Kind: id.Kind, Namespace: id.Namespace, Name: id.Name,
			}
			o.ReferencedBy, o.Entry, o.disabled = list.where(p)
			if o.ReferencedBy == "" && !sourcetree.IsYAML(p) {
				o.Entry = p // without a kustomization file, Flux leaves it out
			}
			if !isFlux && (o.ReferencedBy == "" || o.disabled) {
				break
			}
			other = other || !isFlux
			out = append(out, o)
		}
	}
	setParents(a, out)
	return slices.DeleteFunc(out, func(o *UnappliedObject) bool {
		return o.disabled || slices.ContainsFunc(ancestors(o), func(parent *UnappliedObject) bool { return parent.disabled })
	})
}

// meant returns the directory of the tree that a Kustomization without a build most likely means, with a mistake in its path or in the name of
// its source; empty if there is none.
func (c *Cluster) meant(k *Kustomization) string {
	for _, p := range k.Problems {
		if p.Kind == validators.ProblemPathMissing {
			return p.Suggestion
		}
	}
	if k.artifact != nil || k.builds == 0 || slices.ContainsFunc(c.Objects, func(o *Object) bool { return refOf(o) == k.Source }) {
		return ""
	}
	return k.Path
}

// inDirs reports whether the file is in one of the directories, or below it.
func inDirs(p string, dirs map[string]bool) bool {
	for d := path.Dir(p); ; d = path.Dir(d) {
		if dirs[d] {
			return true
		}
		if d == "." {
			return false
		}
	}
}

// listings are the entries of the kustomization files of an artifact, each read once.
type listings struct {
	artifact *sourcetree.Artifact
	// listed and comments have the paths that a kustomization file names, and those that its comments name, by the file.
	listed, comments map[string]map[string]bool
}

// where returns the kustomization file, in the file's directory or above, that should list the file or the
// directory that has it, that entry, and whether it is there in a comment. The first of them that does not list what
// is below counts; the file is empty if each one does.
func (l *listings) where(p string) (file, entry string, disabled bool) {
	a := l.artifact
	child := p
	for d := path.Dir(p); ; d = path.Dir(d) {
		if file := build.File(a, d); file != "" && file != p {
			l.read(file, d)
			listed := slices.ContainsFunc(withAncestors(child), func(at string) bool { return l.listed[file][at] })
			if !listed && !isComponent(a, file) {
				return file, relative(d, child), l.commentedOut(file, child)
			}
			if isComponent(a, file) {
				return "", "", false // what includes it may be anywhere
			}
			child = d
		}
		if d == "." {
			return "", "", false
		}
	}
}

// read reads the kustomization file of a directory.
func (l *listings) read(file, dir string) {
	if l.listed[file] != nil {
		return
	}
	listed, comments := map[string]bool{}, map[string]bool{}
	for _, doc := range l.artifact.File(file).Parse().Documents {
		eachScalar(doc, func(text string) {
			if at := sourcetree.Rel(path.Join(dir, text)); text != "" && at != dir {
				listed[at] = true
			}
		})
	}
	for _, at := range commentedEntries(l.artifact.File(file), dir) {
		for _, at := range withAncestors(at) {
			comments[at] = true
		}
		comments[at+"/"] = true
	}
	l.listed[file], l.comments[file] = listed, comments
}

// commentedOut reports whether a comment of a kustomization file is an entry for the path, for a directory that has it, or
// for a file in it.
func (l *listings) commentedOut(file, p string) bool {
	return l.comments[file][p] || slices.ContainsFunc(withAncestors(p), func(at string) bool { return l.comments[file][at+"/"] })
}

// withAncestors returns a path and the directories that have it, the root included.
func withAncestors(p string) []string {
	out := []string{p}
	for p != "." {
		p = path.Dir(p)
		out = append(out, p)
	}
	return out
}

// relative returns a path below a directory as a kustomization file in it would name it.
func relative(dir, p string) string {
	if dir == "." {
		return p
	}
	return strings.TrimPrefix(p, dir+"/")
}

// commentedEntries returns the paths that words in the comments of a kustomization file in the directory would name:
// "# - ./apps/ks.yaml".
func commentedEntries(f *sourcetree.File, dir string) []string {
	data, err := f.Read()
	if err != nil {
		return nil
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		text, ok := strings.CutPrefix(strings.TrimSpace(line), "#")
		if !ok {
			continue
		}
		for w := range strings.FieldsSeq(strings.TrimLeft(text, "# -")) {
			if at := sourcetree.Rel(path.Join(dir, strings.Trim(w, `"'`))); at != dir {
				out = append(out, at)
			}
		}
	}
	return out
}

// setParents sets the parents of objects in the directories that unapplied Kustomizations build.
func setParents(a *sourcetree.Artifact, all []*UnappliedObject) {
	roots := map[string]*UnappliedObject{}
	for _, o := range all {
		if o.Kind != flux.Kustomization.Kind {
			continue
		}
		for _, doc := range a.FileNamed(o.Position.File).Parse().Documents {
			if id := sourcetree.Identify(doc); id.Kind == o.Kind && id.Name == o.Name {
				roots[sourcetree.Rel(yamlposition.Scalar(doc, "spec", "path"))] = o
			}
		}
	}
	for _, o := range all {
		for d := path.Dir(a.PathOf(o.Position.File)); ; d = path.Dir(d) {
			if root := roots[d]; root != nil && root != o && !slices.Contains(ancestors(root), o) {
				o.Parent = root
				break
			}
			if d == "." {
				break
			}
		}
	}
}

// ancestors returns the parent of an object, the parent's parent and so on.
func ancestors(o *UnappliedObject) []*UnappliedObject {
	var out []*UnappliedObject
	for o.Parent != nil {
		o = o.Parent
		out = append(out, o)
	}
	return out
}
