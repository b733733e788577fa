package kustomization

import (
	"path"
	"slices"
	"strings"
)

// orphans finds the Flux objects in the directories that Kustomizations of any cluster render, which no Kustomization applies. A directory
// whose build is not known is left out: what it would apply cannot be told from what it would not. So is a file that a build has read, as a
// patch for instance.
func (r *renderer) orphans(clusters []*Cluster) []*Orphan {
	reached, blind := map[string]bool{}, map[string]bool{}
	used := map[string]bool{}
	for _, c := range clusters {
		for _, k := range c.Kustomizations {
			if k.view != nil && k.view.tree == r.tree && k.renders > 0 {
				reached[k.Path] = true
				blind[k.Path] = blind[k.Path] || k.State == Unseen
			}
		}
		if c.Entry.Position.File != "" {
			used[c.Entry.Position.File] = true
		}
	}
	read := r.read[r.tree]
	v := r.tree.view("")
	var out []*Orphan
	for _, p := range sortedKeys(v.files) {
		if !isYAMLName(p) || read[p] || used[p] || r.tree.isTemplate(p) || !covered(p, reached) || covered(p, blind) {
			continue
		}
		for _, doc := range v.files[p].document().docs {
			id := identify(doc)
			if !strings.HasSuffix(id.group(), fluxGroups) || id.name == "" {
				continue
			}
			o := &Orphan{Position: find(r.tree.label+p, doc, nil), Group: id.group(), Version: path.Base(id.apiVersion), Kind: id.kind, Namespace: id.namespace, Name: id.name}
			o.Kustomization = v.lister(p)
			out = append(out, o)
		}
	}
	r.underOrphans(v, out)
	return out
}

// covered tells whether the file is in one of the directories, or below it.
func covered(p string, dirs map[string]bool) bool {
	for d := path.Dir(p); ; d = path.Dir(d) {
		if dirs[d] {
			return true
		}
		if d == "." {
			return false
		}
	}
}

// lister returns the nearest kustomization file, in the file's directory or above, that could list the file.
func (v *view) lister(p string) string {
	for d := path.Dir(p); ; d = path.Dir(d) {
		if kf := v.kustomizationFile(d); kf != "" {
			return kf
		}
		if d == "." {
			return ""
		}
	}
}

// underOrphans links what an orphaned Kustomization would apply to that Kustomization.
func (r *renderer) underOrphans(v *view, all []*Orphan) {
	roots := map[string]*Orphan{}
	for _, o := range all {
		if o.Kind != "Kustomization" {
			continue
		}
		for _, doc := range v.files[o.Position.File].document().docs {
			if id := identify(doc); id.kind == o.Kind && id.name == o.Name {
				roots[rel(scalar(doc, "spec", "path"))] = o
			}
		}
	}
	for _, o := range all {
		for d := path.Dir(o.Position.File); ; d = path.Dir(d) {
			if root := roots[d]; root != nil && root != o && !slices.Contains(under(root), o) {
				o.Under = root
				break
			}
			if d == "." {
				break
			}
		}
	}
}

// under returns the orphans that hold this one, nearest first.
func under(o *Orphan) []*Orphan {
	var out []*Orphan
	for o.Under != nil {
		o = o.Under
		out = append(out, o)
	}
	return out
}
