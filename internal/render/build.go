package render

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/resource"
	kustypes "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/kustomize/kyaml/openapi"
	sigsyaml "sigs.k8s.io/yaml"
)

// schemas guards kustomize's OpenAPI schemas, which are one set for the whole process: builds read them together, a build that replaces
// them is alone. That is why it is a variable of the package.
var schemas sync.RWMutex

// loadSchemas makes sure that the schemas are parsed before builds run side by side; parsing them lazily is not safe then.
func loadSchemas() {
	schemas.Lock()
	defer schemas.Unlock()
	openapi.Schema()
}

// made is one object as kustomize made it, before substitution.
type made struct {
	object map[string]any
	// file is the origin's path in the view; doc its index among the file's documents, -1 when unknown.
	file string
	doc  int
	// generator is the kustomization file whose generator made the object; empty for one from a file.
	generator string
	err       error // the object cannot be written as JSON
}

// output is what kustomize made of one directory and one spec. It is shared and must not be changed.
type output struct {
	reach    *reach
	objects  []made
	problems []*Problem
	read     map[string]bool
	// blind says that there is no telling what the objects are.
	blind bool
}

// build runs kustomize on the directory of a view.
func build(v *view, dir string, g *generated, allowRemote bool) *output {
	r := newReach(v, dir, g, allowRemote)
	out := &output{reach: r, problems: r.problems, read: map[string]bool{}}
	if r.blocked {
		out.blind = true
		return out
	}
	cut := slices.ContainsFunc(r.problems, func(p *Problem) bool { return p.Kind == RemoteBase })
	m, err := out.run(dir, r.written)
	if err != nil {
		out.blind = true
		if cut {
			// What is missing may be what the build stumbles over.
			out.problems = append(out.problems, &Problem{Kind: RemoteBase, Place: v.tree.place(g.file, 0, 0), Name: "build", Detail: err.Error(),
				Message: "the Kustomization cannot be built without its remote resources"})
			return out
		}
		out.problems = append(out.problems, explain(r, err))
		return out
	}
	if err := out.collect(m, dir, g); err != nil {
		out.problems = append(out.problems, explain(r, err))
		out.blind = true
		return out
	}
	if r.annotations && !g.keepOrigins {
		out.exact(dir, g)
	}
	return out
}

// run calls kustomize with the settings of Flux's controller: files from outside of the directory may be loaded, no plugins.
func (out *output) run(dir string, written map[string][]byte) (m resmap.ResMap, err error) {
	fs := &overlay{view: out.reach.view, written: written, read: out.read}
	if out.reach.remote {
		fs.clones = filesys.MakeFsOnDisk()
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("recovered from panic in kustomize: %v", r)
		}
	}()
	if out.reach.openapi {
		schemas.Lock()
		defer schemas.Unlock()
		openapi.ResetOpenAPI()
		openapi.Schema()
		defer func() {
			openapi.ResetOpenAPI()
			openapi.Schema()
		}()
	} else {
		schemas.RLock()
		defer schemas.RUnlock()
	}
	return krusty.MakeKustomizer(&krusty.Options{
		LoadRestrictions: kustypes.LoadRestrictionsNone,
		PluginConfig:     kustypes.DisabledPluginConfig(),
	}).Run(fs, path.Join("/", dir))
}

func (out *output) collect(m resmap.ResMap, dir string, g *generated) error {
	origins := make([]*resource.Origin, m.Size())
	for i, res := range m.Resources() {
		origin, err := res.GetOrigin()
		if err != nil {
			return fmt.Errorf("reading the origin of %s: %w", res.GetName(), err)
		}
		origins[i] = origin
	}
	if !g.keepOrigins {
		if err := m.RemoveOriginAnnotations(); err != nil {
			return fmt.Errorf("removing origins: %w", err)
		}
	}
	for i, res := range m.Resources() {
		if res.GetName() == "" || res.GetKind() == "" || res.GetApiVersion() == "" {
			return fmt.Errorf("an object has no apiVersion, kind or name")
		}
		o := made{doc: -1}
		o.object, o.err = toObject(res.YNode())
		switch origin := origins[i]; {
		case origin == nil:
		case origin.ConfiguredIn != "":
			o.generator = rel(path.Join(dir, origin.ConfiguredIn))
			o.file = o.generator
		case origin.Repo == "":
			o.file = rel(path.Join(dir, origin.Path))
		}
		out.objects = append(out.objects, o)
	}
	out.matchDocuments()
	return nil
}

// exact builds again without origin annotations: a patch that adds an annotation to an object without any fails in Flux, and would
// succeed with them. The first build still says where the objects come from.
func (out *output) exact(dir string, g *generated) {
	k := &kustypes.Kustomization{}
	if err := sigsyaml.Unmarshal(out.reach.written[g.file], k); err != nil {
		return // it was read a moment ago, by kustomize
	}
	k.BuildMetadata = slices.DeleteFunc(k.BuildMetadata, func(m string) bool { return m == kustypes.OriginAnnotations })
	written := map[string][]byte{}
	for p, data := range out.reach.written {
		written[p] = data
	}
	r := *out.reach
	r.written = written
	r.write(g.file, k)
	m, err := out.run(dir, r.written)
	if err != nil {
		out.problems = append(out.problems, explain(out.reach, err))
		return
	}
	if m.Size() != len(out.objects) {
		return
	}
	for i, res := range m.Resources() {
		out.objects[i].object, out.objects[i].err = toObject(res.YNode())
	}
}

// matchDocuments finds the document of its file that each object was made from: by kind and name, else by order. Names may have gained a
// prefix or suffix since.
func (out *output) matchDocuments() {
	byFile := map[string][]int{}
	for i, o := range out.objects {
		if o.file != "" && o.generator == "" {
			byFile[o.file] = append(byFile[o.file], i)
		}
	}
	for name, indexes := range byFile {
		f := out.reach.view.files[name]
		if f == nil {
			continue
		}
		docs := f.document().docs
		ids := make([]identity, len(docs))
		for i, d := range docs {
			ids[i] = identify(d)
		}
		out.match(indexes, ids)
	}
}

func (out *output) match(indexes []int, ids []identity) {
	type key struct{ kind, name string }
	byName := map[key][]int{}
	for d, id := range ids {
		k := key{id.kind, id.name}
		byName[k] = append(byName[k], d)
	}
	used := make([]bool, len(ids))
	var rest []int
	for _, i := range indexes {
		k := key{kindOf(out.objects[i].object), nameOf(out.objects[i].object)}
		if ds := byName[k]; len(ds) > 0 {
			out.objects[i].doc, byName[k], used[ds[0]] = ds[0], ds[1:], true
			continue
		}
		rest = append(rest, i)
	}
	free := make([]int, 0, len(ids))
	for d := range ids {
		if !used[d] {
			free = append(free, d)
		}
	}
	for _, accept := range []func(o map[string]any, id identity) bool{
		func(o map[string]any, id identity) bool {
			return kindOf(o) == id.kind && id.name != "" && strings.Contains(nameOf(o), id.name)
		},
		func(o map[string]any, id identity) bool { return kindOf(o) == id.kind },
		func(map[string]any, identity) bool { return true },
	} {
		rest = slices.DeleteFunc(rest, func(i int) bool {
			for n, d := range free {
				if accept(out.objects[i].object, ids[d]) {
					out.objects[i].doc = d
					free = slices.Delete(free, n, n+1)
					return true
				}
			}
			return false
		})
	}
	for _, i := range rest {
		if len(ids) > 0 {
			out.objects[i].doc = 0 // several objects of one document: a List
		}
	}
}

func kindOf(o map[string]any) string { s, _ := o["kind"].(string); return s }

func nameOf(o map[string]any) string {
	m, _ := o["metadata"].(map[string]any)
	s, _ := m["name"].(string)
	return s
}
