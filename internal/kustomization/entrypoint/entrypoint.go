// Package entrypoint finds where Flux starts to reconcile a Git repository: a FluxInstance, the values of its chart,
// or the gotk-sync.yaml of `flux bootstrap`.
package entrypoint

import (
	"cmp"
	"errors"
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
)

const (
	syncFile         = "gotk-sync.yaml"
	defaultNamespace = "flux-system"
	instanceGroup    = "fluxcd.controlplane.io"
)

var kinds = []Kind{Directory, Sync, Instance, Chart}

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

// Find returns the entry points of an artifact, sorted by directory, or those that the given directories are. An
// entry point whose path is not in the artifact is a problem. An error means that a given directory is not in the
// artifact.
func Find(a *sourcetree.Artifact, given []string) ([]*EntryPoint, []*validators.Problem, error) {
	if len(given) > 0 {
		var out []*EntryPoint
		for _, dir := range given {
			e, err := at(a, sourcetree.Rel(dir))
			if err != nil {
				return nil, nil, err
			}
			out = append(out, e)
		}
		return out, nil, nil
	}
	var out []*EntryPoint
	for _, p := range a.Manifests() {
		out = append(out, inFile(a, p)...)
	}
	// The values of the chart that creates a FluxInstance count only where nothing more explicit defines the same
	// entry point.
	slices.SortStableFunc(out, func(a, b *EntryPoint) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind)))
	})
	out = slices.CompactFunc(out, func(a, b *EntryPoint) bool { return a.Path == b.Path && a.Key == b.Key })
	var problems []*validators.Problem
	out = slices.DeleteFunc(out, func(e *EntryPoint) bool {
		if a.IsDir(e.Path) {
			return false
		}
		problems = append(problems, &validators.Problem{
			Kind: validators.ProblemEntryPointMissing, Name: e.Path, Suggestion: a.NearestDir(e.Path), Diagnostic: validators.Diagnostic{
				Position: e.Position, Message: fmt.Sprintf("the %s syncs the path %s, but %s", e.Kind, e.Path, a.ExplainMissing(e.Path)),
			},
		})
		return true
	})
	return out, problems, nil
}

// at returns the entry point of a directory that was given. A file of the tree that syncs this very directory defines
// the rest of it.
func at(a *sourcetree.Artifact, dir string) (*EntryPoint, error) {
	if !a.IsDir(dir) {
		problem := fmt.Sprintf("entry point %s: %s", dir, a.ExplainMissing(dir))
		if n := a.NearestDir(dir); n != "" {
			problem += "; did you mean " + n + "?"
		}
		return nil, errors.New(problem)
	}
	for _, p := range a.Paths() {
		if !sourcetree.IsYAML(p) {
			continue
		}
		for _, e := range inFile(a, p) {
			if e.Path == dir {
				return e, nil
			}
		}
	}
	e := &EntryPoint{Kind: Directory, Path: dir, Key: types.NamespacedName{Namespace: defaultNamespace, Name: defaultNamespace}}
	source := validators.ObjectRef{Kind: flux.GitRepository.Kind, Name: defaultNamespace, Namespace: defaultNamespace}
	e.Objects = []Object{synthesized(validators.Position{}, rootKustomization(e.Key, e.Path, source))}
	return e, nil
}

// inFile returns the entry points that a file defines.
func inFile(a *sourcetree.Artifact, p string) []*EntryPoint {
	var out []*EntryPoint
	f := a.File(p)
	docs := f.Parse().Documents
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
			out = append(out, ofSync(f, i))
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
	source := map[string]any{
		"apiVersion": e.Source.Group + "/v1", "kind": e.Source.Kind,
		"metadata": map[string]any{"name": name, "namespace": namespace},
		"spec":     map[string]any{"url": e.URL},
	}
	ns := map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": namespace}}
	e.Objects = []Object{
		synthesized(position, rootKustomization(e.Key, e.Path, e.Source)), synthesized(position, source), synthesized(position, ns),
	}
	return []*EntryPoint{e}
}

// ofSync returns the entry point of a Kustomization in a gotk-sync.yaml, which `flux bootstrap` writes with its source.
func ofSync(f *sourcetree.File, index int) *EntryPoint {
	docs := f.Parse().Documents
	doc := docs[index]
	id := sourcetree.Identify(doc)
	root := yamlposition.Root(doc)
	e := &EntryPoint{
		Kind: Sync, Position: f.Position(root.Line, root.Column), Path: sourcetree.Rel(yamlposition.Scalar(doc, "spec", "path")),
		Key: types.NamespacedName{Namespace: cmp.Or(id.Namespace, defaultNamespace), Name: id.Name},
		Source: validators.ObjectRef{
			Group: flux.GitRepository.Group, Kind: yamlposition.Scalar(doc, "spec", "sourceRef", "kind"),
			Namespace: cmp.Or(yamlposition.Scalar(doc, "spec", "sourceRef", "namespace"), id.Namespace, defaultNamespace),
			Name:      yamlposition.Scalar(doc, "spec", "sourceRef", "name"),
		},
	}
	e.add(f, index)
	for i, other := range docs {
		o := sourcetree.Identify(other)
		if o.Group() == e.Source.Group && o.Kind == e.Source.Kind && o.Name == e.Source.Name {
			e.URL, e.Ignore = yamlposition.Scalar(other, "spec", "url"), yamlposition.Scalar(other, "spec", "ignore")
			e.add(f, i)
		}
	}
	if len(e.Objects) == 0 || e.Objects[0].GetKind() != flux.Kustomization.Kind {
		e.Objects = append([]Object{synthesized(e.Position, rootKustomization(e.Key, e.Path, e.Source))}, e.Objects...)
	}
	return e
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
