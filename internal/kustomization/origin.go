package kustomization

import (
	"maps"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/resmap"
	kustypes "sigs.k8s.io/kustomize/api/types"
)

// Where objects come from is found in one of two ways. Kustomize keeps the order in which it reads resources, so the documents of a build,
// listed in that order, line up with what it makes. Where they do not (a plugin, a remote base, a sorted output), the build is made again with
// kustomize's own origin annotations, which name the file but cost a second build.

// candidate is a document that a build reads, or a generator of one object.
type candidate struct {
	file      string
	doc       int
	item      int // in a List; -1 outside of one
	kind      string
	name      string
	generated bool
}

// count returns how many objects a step adds, or one more than the limit.
func (r *reach) count(s *step, limit int, known map[*step]int) int {
	if n, ok := known[s]; ok {
		return n
	}
	known[s] = 0 // a cycle adds nothing; kustomize refuses it
	if s.k == nil {
		return 0
	}
	n := len(s.k.ConfigMapGenerator) + len(s.k.SecretGenerator)
	for _, e := range s.entries {
		if e.sub != nil {
			n += r.count(e.sub, limit, known)
		} else {
			n += len(r.documents(e.file, nil))
		}
		n = min(n, limit+1)
	}
	known[s] = n
	return n
}

// candidates lists what a step adds, in kustomize's order: resources, generators, components. It is called when kustomize has built, so there is
// no cycle, and count has bounded it.
func (r *reach) candidates(s *step, out []candidate) []candidate {
	if s.k == nil {
		return out
	}
	for _, e := range s.entries {
		if e.sub == nil {
			out = r.documents(e.file, out)
		} else if !e.sub.component {
			out = r.candidates(e.sub, out)
		}
	}
	for _, g := range s.k.ConfigMapGenerator {
		out = generatorCandidate(s, "ConfigMap", g.GeneratorArgs, out)
	}
	for _, g := range s.k.SecretGenerator {
		out = generatorCandidate(s, "Secret", g.GeneratorArgs, out)
	}
	for _, e := range s.entries {
		if e.sub != nil && e.sub.component {
			out = r.candidates(e.sub, out)
		}
	}
	return out
}

func generatorCandidate(s *step, kind string, g kustypes.GeneratorArgs, out []candidate) []candidate {
	if b := kustypes.NewGenerationBehavior(g.Behavior); b == kustypes.BehaviorMerge || b == kustypes.BehaviorReplace {
		return out // changes an object that is there
	}
	return append(out, candidate{file: s.file, doc: -1, item: -1, kind: kind, name: g.Name, generated: true})
}

func (r *reach) documents(file string, out []candidate) []candidate {
	for i, doc := range r.view.files[file].document().docs {
		id := identify(doc)
		if items := child(doc, "items"); items != nil && items.Kind == yaml.SequenceNode && strings.HasSuffix(id.kind, "List") {
			for n, item := range items.Content {
				each := identify(item)
				out = append(out, candidate{file: file, doc: i, item: n, kind: each.kind, name: each.name})
			}
			continue
		}
		out = append(out, candidate{file: file, doc: i, item: -1, kind: id.kind, name: id.name})
	}
	return out
}

// align gives each object the document that it was made from, going through both in order; documents that a patch has deleted are passed
// over. It tells whether it found one for every object.
func (out *output) align() bool {
	r := out.reach
	if r.plugins || r.remote || r.top.SortOptions != nil {
		return false
	}
	list := r.candidates(r.root, nil)
	if len(list) == len(out.objects) && out.sameKinds(list) {
		for i := range out.objects {
			out.objects[i].from(list[i])
		}
		return true
	}
	next := 0
	for i := range out.objects {
		o := &out.objects[i]
		kind, name := kindOf(o.object), nameOf(o.object)
		for next < len(list) && (list[next].kind != kind || !strings.Contains(name, list[next].name)) {
			next++
		}
		if next == len(list) {
			return false
		}
		o.from(list[next])
		next++
	}
	return true
}

// sameKinds tells whether the objects are of the candidates' kinds one by one: then nothing was added or deleted, whatever became of names.
func (out *output) sameKinds(list []candidate) bool {
	for i := range list {
		if list[i].kind != kindOf(out.objects[i].object) {
			return false
		}
	}
	return true
}

func (m *made) from(c candidate) {
	m.file, m.doc, m.item, m.generator = c.file, c.doc, c.item, ""
	if c.generated {
		m.generator = c.file
	}
}

// annotate builds again with origin annotations and takes the origins from there. When that build fails or makes other objects, the origins
// remain unknown.
func (out *output) annotate(dir string, g *generated) {
	for i := range out.objects {
		out.objects[i].from(candidate{doc: -1, item: -1})
	}
	k := *out.reach.top
	if !slices.Contains(k.BuildMetadata, kustypes.OriginAnnotations) {
		k.BuildMetadata = append(slices.Clone(k.BuildMetadata), kustypes.OriginAnnotations)
	}
	annotated := *out.reach
	annotated.written = maps.Clone(out.reach.written)
	if annotated.written == nil {
		annotated.written = map[string][]byte{}
	}
	annotated.write(g.file, &k)
	m, err := out.run(dir, annotated.written)
	if err != nil || m.Size() != len(out.objects) {
		return
	}
	out.origins(m, dir)
	out.matchDocuments()
}

func (out *output) origins(m resmap.ResMap, dir string) {
	for i, res := range m.Resources() {
		o := &out.objects[i]
		origin, err := res.GetOrigin()
		switch {
		case err != nil || origin == nil || res.GetKind() != kindOf(o.object):
		case origin.ConfiguredIn != "":
			o.generator = rel(path.Join(dir, origin.ConfiguredIn))
			o.file = o.generator
		case origin.Repo == "":
			o.file = rel(path.Join(dir, origin.Path))
		}
	}
}

// matchDocuments finds the document of its file that each object was made from: by kind and name, else by order. Names may have gained a
// prefix or suffix since.
func (out *output) matchDocuments() {
	byFile := map[string][]int{}
	for i, o := range out.objects {
		if o.file != "" && o.generator == "" && out.reach.view.files[o.file] != nil {
			byFile[o.file] = append(byFile[o.file], i)
		}
	}
	for name, indexes := range byFile {
		out.match(indexes, out.reach.documents(name, nil))
	}
}

func (out *output) match(indexes []int, list []candidate) {
	type key struct{ kind, name string }
	byName := map[key][]int{}
	for n, c := range list {
		k := key{c.kind, c.name}
		byName[k] = append(byName[k], n)
	}
	used := make([]bool, len(list))
	take := func(i, n int) { out.objects[i].doc, out.objects[i].item, used[n] = list[n].doc, list[n].item, true }
	rest := slices.DeleteFunc(slices.Clone(indexes), func(i int) bool {
		k := key{kindOf(out.objects[i].object), nameOf(out.objects[i].object)}
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
				if !used[n] && accept(out.objects[i].object, c) {
					take(i, n)
					return true
				}
			}
			return false
		})
	}
}
