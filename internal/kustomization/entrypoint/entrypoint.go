// Package entrypoint finds where Flux starts to reconcile a Git repository: a FluxInstance, the values of its chart, the gotk-sync.yaml of
// `flux bootstrap`, or a Kustomization that is applied by hand: one that builds the directory of its own file, or that is beside its source.
package entrypoint

import (
	"cmp"
	"fmt"
	"path"
	"slices"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// Kind is how an entry point was found.
type Kind string

// The kinds of entry points, the most explicit first.
const (
	Directory Kind = "directory" // a directory that was given
	Sync      Kind = syncFile
	Instance  Kind = "FluxInstance"
	Chart     Kind = "flux-instance chart" // the values of the chart that creates a FluxInstance
	Applied   Kind = "Kustomization"       // one that nothing in the tree may apply
)

const (
	syncFile         = "gotk-sync.yaml"
	defaultNamespace = "flux-system"
	instanceGroup    = "fluxcd.controlplane.io"
)

var kinds = []Kind{Directory, Sync, Instance, Chart, Applied}

// EntryPoint is where a cluster starts to reconcile the tree.
type EntryPoint struct {
	Kind Kind
	// Position is where it is defined; zero for a directory that was given.
	Position validators.Position
	// Path is the directory, relative to the root.
	Path string
	// Key is the Kustomization that it creates.
	Key types.NamespacedName
	// Source is the source that is this tree; its name is empty for a directory that was given.
	Source validators.ObjectRef
	// URL is the source's address; may be empty.
	URL string
	// Ignore is the source's spec.ignore.
	Ignore string
	// From is the directory of the tree that is the root of the source; empty for the tree's own root.
	From string
	// Mount is the directory of the source that is the root of the tree; empty for the source's own root.
	Mount string
	// Objects are those that it creates in the cluster: the root Kustomization first.
	Objects []Object
}

// Object is an object that an entry point creates.
type Object struct {
	*unstructured.Unstructured
	// Position is where the object is defined, or the entry point that it is synthesized from.
	Position validators.Position
	// Document is the index of its document in the file; -1 when it is in no file, but is synthesized from the entry
	// point.
	Document int
}

// Find returns the entry points of a tree, sorted by directory, or those that the given directories are. Those of the kind Applied come last,
// outermost first: each is one only if no other entry point leads to it. An entry point whose path is not in the tree is a problem. Dir is
// the absolute path of the tree. An error means that a given directory is not in the tree.
func Find(t *sourcetree.Tree, dir string, given []string) ([]*EntryPoint, []*validators.Problem, error) {
	f := newFinder(t, dir)
	if len(given) > 0 {
		var out []*EntryPoint
		for _, dir := range given {
			e, err := f.at(sourcetree.Rel(dir))
			if err != nil {
				return nil, nil, err
			}
			out = append(out, e)
		}
		return out, nil, nil
	}
	out := f.explicit()
	// The values of the chart that creates a FluxInstance count only where nothing more explicit defines the same entry point.
	slices.SortStableFunc(out, func(a, b *EntryPoint) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind)))
	})
	out = slices.CompactFunc(out, func(a, b *EntryPoint) bool { return a.Path == b.Path && a.Key == b.Key })
	var problems []*validators.Problem
	out = slices.DeleteFunc(out, func(e *EntryPoint) bool {
		if f.locate(e) {
			return false
		}
		problems = append(problems, &validators.Problem{
			Kind: validators.ProblemEntryPointMissing, Name: e.Path, Suggestion: f.artifact.NearestDir(e.Path), Diagnostic: validators.Diagnostic{
				Position: e.Position, Message: fmt.Sprintf("the %s syncs the path %s, but %s", e.Kind, e.Path, f.artifact.ExplainMissing(e.Path)),
			},
		})
		return true
	})
	return append(out, f.applied(len(out) > 0)...), problems, nil
}

// inFile returns the entry points that a file defines.
func inFile(a *sourcetree.Artifact, p string) []*EntryPoint {
	var out []*EntryPoint
	f := a.File(p)
	docs := f.Parse().Documents
	if path.Base(p) == syncFile && len(docs) == 0 && len(f.Parse().Problems) == 0 && path.Base(path.Dir(p)) == defaultNamespace {
		out = append(out, ofEmptySync(a, p))
	}
	for i, doc := range docs {
		id := sourcetree.Identify(doc)
		namespace := cmp.Or(id.Namespace, defaultNamespace)
		root := yamlposition.Root(doc)
		position := f.Position(root.Line, root.Column)
		switch {
		case id.Kind == string(Instance) && id.Group() == instanceGroup:
			out = append(out, ofInstance(Instance, position, namespace, yamlposition.Child(doc, "spec", "sync"))...)
		case id.Kind == flux.HelmRelease.Kind && id.Group() == flux.HelmRelease.Group:
			out = append(out, ofInstance(Chart, position, namespace, yamlposition.Child(doc, "spec", "values", "instance", "sync"))...)
		case !id.IsObject():
			out = append(out, ofInstance(Chart, position, defaultNamespace, yamlposition.Child(doc, "instance", "sync"))...)
		case path.Base(p) == syncFile && id.Kind == flux.Kustomization.Kind && id.Group() == flux.Kustomization.Group:
			out = append(out, ofKustomization(Sync, f, i))
		}
	}
	return out
}

// ofInstance returns the entry point of a FluxInstance's spec.sync; none when it has no path. The operator names what
// it creates after spec.sync.name, by default after its namespace.
func ofInstance(kind Kind, position validators.Position, namespace string, sync *yaml.Node) []*EntryPoint {
	dir := yamlposition.Scalar(sync, "path")
	if dir == "" {
		return nil
	}
	name := cmp.Or(yamlposition.Scalar(sync, "name"), namespace)
	e := &EntryPoint{
		Kind: kind, Position: position, Path: sourcetree.Rel(dir), URL: yamlposition.Scalar(sync, "url"),
		Key: types.NamespacedName{Namespace: namespace, Name: name},
		Source: validators.ObjectRef{
			Group: flux.GitRepository.Group, Kind: cmp.Or(yamlposition.Scalar(sync, "kind"), flux.GitRepository.Kind), Namespace: namespace, Name: name,
		},
	}
	source := sourceObject(e.Source, e.URL)
	ns := map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": namespace}}
	e.Objects = []Object{
		synthesized(position, rootKustomization(e.Key, e.Path, e.Source)), synthesized(position, source), synthesized(position, ns),
	}
	return []*EntryPoint{e}
}

// ofEmptySync returns the entry point of a gotk-sync.yaml that `flux bootstrap` has still to write: it syncs the directory above.
func ofEmptySync(a *sourcetree.Artifact, p string) *EntryPoint {
	at := a.Position(p, 1, 1)
	return synthesizedEntry(Sync, at, path.Dir(path.Dir(p)), validators.ObjectRef{
		Group: flux.GitRepository.Group, Kind: flux.GitRepository.Kind, Namespace: defaultNamespace, Name: defaultNamespace,
	})
}

// synthesizedEntry returns an entry point that is in no file: a Kustomization as `flux bootstrap` names it, and its source.
func synthesizedEntry(kind Kind, at validators.Position, dir string, source validators.ObjectRef) *EntryPoint {
	e := &EntryPoint{
		Kind: kind, Position: at, Path: dir, Source: source, Key: types.NamespacedName{Namespace: defaultNamespace, Name: defaultNamespace},
	}
	e.Objects = []Object{synthesized(at, rootKustomization(e.Key, e.Path, source)), synthesized(at, sourceObject(source, ""))}
	return e
}

// ofKustomization returns the entry point of a Kustomization in a file, with its source where that is in the same file.
func ofKustomization(kind Kind, f *sourcetree.File, index int) *EntryPoint {
	docs := f.Parse().Documents
	doc := docs[index]
	id := sourcetree.Identify(doc)
	root := yamlposition.Root(doc)
	e := &EntryPoint{
		Kind: kind, Position: f.Position(root.Line, root.Column), Path: sourcetree.Rel(yamlposition.Scalar(doc, "spec", "path")),
		Key:    types.NamespacedName{Namespace: cmp.Or(id.Namespace, defaultNamespace), Name: id.Name},
		Source: sourceOf(doc),
	}
	e.add(f, index)
	e.addSource(f)
	if len(e.Objects) == 0 || e.Objects[0].GetKind() != flux.Kustomization.Kind {
		e.Objects = append([]Object{synthesized(e.Position, rootKustomization(e.Key, e.Path, e.Source))}, e.Objects...)
	}
	return e
}

// sourceOf returns the source that a Kustomization refers to.
func sourceOf(doc *yaml.Node) validators.ObjectRef {
	return validators.ObjectRef{
		Group: flux.GitRepository.Group, Kind: yamlposition.Scalar(doc, "spec", "sourceRef", "kind"),
		Namespace: cmp.Or(yamlposition.Scalar(doc, "spec", "sourceRef", "namespace"), sourcetree.Identify(doc).Namespace, defaultNamespace),
		Name:      yamlposition.Scalar(doc, "spec", "sourceRef", "name"),
	}
}

// addSource adds the source of the entry point where a file defines it, and reports whether it does.
func (e *EntryPoint) addSource(f *sourcetree.File) bool {
	found := false
	for i, other := range f.Parse().Documents {
		if o := sourcetree.Identify(other); o.Group() == e.Source.Group && o.Kind == e.Source.Kind && o.Name == e.Source.Name {
			e.URL, e.Ignore = yamlposition.Scalar(other, "spec", "url"), yamlposition.Scalar(other, "spec", "ignore")
			e.add(f, i)
			found = true
		}
	}
	return found
}

// SourcePosition returns where the source of the entry point is defined; the zero value if it is in no file.
func (e *EntryPoint) SourcePosition() validators.Position {
	for _, o := range e.Objects {
		if o.Document >= 0 && o.GetKind() == e.Source.Kind && o.GetName() == e.Source.Name {
			return o.Position
		}
	}
	return validators.Position{}
}

// add adds the object of a document; a document that is none is left out.
func (e *EntryPoint) add(f *sourcetree.File, index int) {
	if o := f.Object(index); o != nil {
		root := yamlposition.Root(f.Parse().Documents[index])
		e.Objects = append(e.Objects, Object{Unstructured: o, Position: f.Position(root.Line, root.Column), Document: index})
	}
}

func synthesized(position validators.Position, object map[string]any) Object {
	return Object{Unstructured: &unstructured.Unstructured{Object: object}, Position: position, Document: -1}
}

// SourceOf returns the source of an entry point as an object that is in no file.
func SourceOf(e *EntryPoint) Object { return synthesized(e.Position, sourceObject(e.Source, e.URL)) }

func sourceObject(ref validators.ObjectRef, url string) map[string]any {
	return map[string]any{
		"apiVersion": ref.Group + "/v1", "kind": ref.Kind,
		"metadata": map[string]any{"name": ref.Name, "namespace": ref.Namespace},
		"spec":     map[string]any{"url": url},
	}
}

func rootKustomization(key types.NamespacedName, dir string, source validators.ObjectRef) map[string]any {
	return map[string]any{
		"apiVersion": flux.Kustomization.Group + "/v1", "kind": flux.Kustomization.Kind,
		"metadata": map[string]any{"name": key.Name, "namespace": key.Namespace},
		"spec": map[string]any{
			"interval": "10m", "path": "./" + dir, "prune": true,
			"sourceRef": map[string]any{"kind": source.Kind, "name": source.Name, "namespace": source.Namespace},
		},
	}
}
