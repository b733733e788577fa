package build

import (
	"maps"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/resmap"
	kustypes "sigs.k8s.io/kustomize/api/types"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
)

// The origin of objects is found in one of two ways. Kustomize keeps the order in which it reads resources, so the
// documents of a build, listed in that order, correspond to the objects that it builds. Where they do not (a plugin,
// a remote base, a sorted output), kustomize builds again with its own origin annotations, which name the file but
// cost a second build.

// candidate is a document that a build reads, or a generator of one object: what an object can come from.
type candidate struct {
	file      string
	doc       int
	item      int // in a List; -1 outside of one
	kind      string
	name      string
	generated bool
}

// count returns how many objects a node adds, or one more than the limit.
func (g *graph) count(s *node, limit int, known map[*node]int) int {
	if n, ok := known[s]; ok {
		return n
	}
	known[s] = 0 // a cycle adds nothing; kustomize refuses it
	if s.k == nil {
		return 0
	}
	n := len(s.k.ConfigMapGenerator) + len(s.k.SecretGenerator)
	for _, e := range s.entries {
		if e.node != nil {
			n += g.count(e.node, limit, known)
		} else {
			n += len(g.documents(e.file, nil))
		}
		n = min(n, limit+1)
	}
	known[s] = n
	return n
}

// candidates appends what a node adds, in kustomize's order: resources, generators, components. It is called after
// kustomize has built, so there is no cycle, and after count has limited the number.
func (g *graph) candidates(s *node, out []candidate) []candidate {
	if s.k == nil {
		return out
	}
	for _, e := range s.entries {
		if e.node == nil {
			out = g.documents(e.file, out)
		} else if !e.node.component {
			out = g.candidates(e.node, out)
		}
	}
	for _, generator := range s.k.ConfigMapGenerator {
		out = generatorCandidate(s, "ConfigMap", generator.GeneratorArgs, out)
	}
	for _, generator := range s.k.SecretGenerator {
		out = generatorCandidate(s, "Secret", generator.GeneratorArgs, out)
	}
	for _, e := range s.entries {
		if e.node != nil && e.node.component {
			out = g.candidates(e.node, out)
		}
	}
	return out
}

func generatorCandidate(s *node, kind string, g kustypes.GeneratorArgs, out []candidate) []candidate {
	if b := kustypes.NewGenerationBehavior(g.Behavior); b == kustypes.BehaviorMerge || b == kustypes.BehaviorReplace {
		return out // changes an existing object
	}
	return append(out, candidate{file: s.file, doc: -1, item: -1, kind: kind, name: g.Name, generated: true})
}

// documents appends the objects of a file.
func (g *graph) documents(file string, out []candidate) []candidate {
	for i, doc := range g.artifact.File(file).Parse().Documents {
		id := sourcetree.Identify(doc)
		if items := yamlposition.Child(doc, "items"); items != nil && items.Kind == yaml.SequenceNode && strings.HasSuffix(id.Kind, "List") {
			for n, item := range items.Content {
				each := sourcetree.Identify(item)
				out = append(out, candidate{file: file, doc: i, item: n, kind: each.Kind, name: each.Name})
			}
			continue
		}
		out = append(out, candidate{file: file, doc: i, item: -1, kind: id.Kind, name: id.Name})
	}
	return out
}

// align sets the origin of each object, going through objects and candidates in order; documents that a patch has
// deleted are skipped. It reports whether it found the origin of every object.
func (out *Output) align() bool {
	g := out.graph
	if g.plugins || g.allowRemote || g.top.SortOptions != nil {
		return false
	}
	list := g.candidates(g.root, nil)
	if len(list) == len(out.Objects) && out.sameKinds(list) {
		for i := range out.Objects {
			out.Objects[i].setOrigin(list[i])
		}
		return true
	}
	next := 0
	for i := range out.Objects {
		o := &out.Objects[i]
		kind, name := kindOf(o.Content), nameOf(o.Content)
		for next < len(list) && (list[next].kind != kind || !strings.Contains(name, list[next].name)) {
			next++
		}
		if next == len(list) {
			return false
		}
		o.setOrigin(list[next])
		next++
	}
	return true
}

// sameKinds reports whether every object has the kind of its candidate: then nothing was added or deleted, even if
// names have changed.
func (out *Output) sameKinds(list []candidate) bool {
	for i := range list {
		if list[i].kind != kindOf(out.Objects[i].Content) {
			return false
		}
	}
	return true
}

func (o *Object) setOrigin(c candidate) {
	o.File, o.Document, o.Item, o.Generated = c.file, c.doc, c.item, c.generated
}

// annotate builds again with origin annotations and sets the origins from them. When that build fails or builds other
// objects, the origins remain unknown.
func (out *Output) annotate(dir string, from *generated) {
	for i := range out.Objects {
		out.Objects[i].setOrigin(candidate{doc: -1, item: -1})
	}
	k := *out.graph.top
	if !slices.Contains(k.BuildMetadata, kustypes.OriginAnnotations) {
		k.BuildMetadata = append(slices.Clone(k.BuildMetadata), kustypes.OriginAnnotations)
	}
	annotated := *out.graph
	annotated.written = maps.Clone(out.graph.written)
	if annotated.written == nil {
		annotated.written = map[string][]byte{}
	}
	annotated.write(from.file, &k)
	m, err := out.run(dir, annotated.written)
	if err != nil || m.Size() != len(out.Objects) {
		return
	}
	out.origins(m, dir)
	out.matchDocuments()
}

// origins sets the files of the objects from the annotations of those that kustomize has built again.
func (out *Output) origins(m resmap.ResMap, dir string) {
	for i, res := range m.Resources() {
		o := &out.Objects[i]
		origin, err := res.GetOrigin()
		switch {
		case err != nil || origin == nil || res.GetKind() != kindOf(o.Content):
		case origin.ConfiguredIn != "":
			o.File, o.Generated = sourcetree.Rel(path.Join(dir, origin.ConfiguredIn)), true
		case origin.Repo == "":
			o.File = sourcetree.Rel(path.Join(dir, origin.Path))
		}
	}
}

// matchDocuments finds the document of its file that each object comes from: by kind and name, else by order. Names
// may have a new prefix or suffix.
func (out *Output) matchDocuments() {
	byFile := map[string][]int{}
	for i, o := range out.Objects {
		if o.File != "" && !o.Generated && out.graph.artifact.File(o.File) != nil {
			byFile[o.File] = append(byFile[o.File], i)
		}
	}
	for name, indexes := range byFile {
		out.match(indexes, out.graph.documents(name, nil))
	}
}

// match sets the documents of the objects at the indexes, which come from the candidates of one file.
func (out *Output) match(indexes []int, list []candidate) {
	type key struct{ kind, name string }
	byName := map[key][]int{}
	for n, c := range list {
		k := key{c.kind, c.name}
		byName[k] = append(byName[k], n)
	}
	used := make([]bool, len(list))
	take := func(i, n int) {
		out.Objects[i].Document, out.Objects[i].Item, used[n] = list[n].doc, list[n].item, true
	}
	rest := slices.DeleteFunc(slices.Clone(indexes), func(i int) bool {
		k := key{kindOf(out.Objects[i].Content), nameOf(out.Objects[i].Content)}
		if ns := byName[k]; len(ns) > 0 {
			byName[k] = ns[1:]
			take(i, ns[0])
			return true
		}
		return false
	})
	for _, accept := range []func(o map[string]any, c candidate) bool{
		func(o map[string]any, c candidate) bool {
			return kindOf(o) == c.kind && c.name != "" && strings.Contains(nameOf(o), c.name)
		},
		func(o map[string]any, c candidate) bool { return kindOf(o) == c.kind },
	} {
		rest = slices.DeleteFunc(rest, func(i int) bool {
			for n, c := range list {
				if !used[n] && accept(out.Objects[i].Content, c) {
					take(i, n)
					return true
				}
			}
			return false
		})
	}
}
