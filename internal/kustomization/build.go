package kustomization

import (
	"fmt"
	"path"
	"slices"
	"sync"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	kustypes "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/kustomize/kyaml/openapi"
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
	// item is its index in the document when that is a List; -1 when it is not.
	item int
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
	if limit := v.tree.limits.Objects; r.count(r.root, limit, map[*step]int{}) > limit {
		out.blind = true
		out.problems = append(out.problems, &Problem{Kind: BuildFailed, Position: r.fault(""),
			Message: fmt.Sprintf("not built: it makes more objects than the limit of %d", limit)})
		return out
	}
	cut := slices.ContainsFunc(r.problems, func(p *Problem) bool { return p.Kind == RemoteBase })
	m, err := out.run(dir, r.written)
	if err != nil {
		out.blind = true
		if cut {
			// What is missing may be what the build stumbles over.
			out.problems = append(out.problems, &Problem{Kind: RemoteBase, Position: v.tree.place(g.file, 0, 0), Name: "build", Detail: err.Error(),
				Message: "the Kustomization cannot be built without its remote resources"})
			return out
		}
		out.problems = append(out.problems, explain(r, err))
		return out
	}
	if err := out.collect(m); err != nil {
		out.problems = append(out.problems, explain(r, err))
		out.blind = true
		return out
	}
	if !out.align() {
		out.annotate(dir, g)
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
			err = fmt.Errorf("%s in kustomize: %v", recovered, r)
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

func (out *output) collect(m resmap.ResMap) error {
	for _, res := range m.Resources() {
		if res.GetName() == "" || res.GetKind() == "" || res.GetApiVersion() == "" {
			return fmt.Errorf("an object has no apiVersion, kind or name")
		}
		o := made{doc: -1, item: -1}
		if o.object, o.err = toObject(res.YNode()); o.err != nil {
			o.object = map[string]any{"kind": res.GetKind(), "metadata": map[string]any{"name": res.GetName()}}
		}
		out.objects = append(out.objects, o)
	}
	return nil
}

func kindOf(o map[string]any) string { s, _ := o["kind"].(string); return s }

func nameOf(o map[string]any) string {
	m, _ := o["metadata"].(map[string]any)
	s, _ := m["name"].(string)
	return s
}
