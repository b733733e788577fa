package kustomization

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/validators"
)

// EntryPoint is where a cluster starts to read the tree.
type EntryPoint struct {
	// Kind says how it was found: FluxInstance, gotk-sync.yaml, the values of the flux-instance chart, or a directory that was given.
	Kind string
	// Position is where it is written; zero for a directory that was given.
	Position Position
	// Path is the directory, relative to the root.
	Path string
	// Key is the Kustomization that it creates.
	Key types.NamespacedName
	// Source is the source that is this tree; its name is empty when it is not known beforehand.
	Source validators.ObjectRef
	// URL is the source's address; may be empty.
	URL string

	ignore  string    // the source's spec.ignore
	objects []*Object // what it brings into the cluster: the root Kustomization first
}

// The kinds of entry points.
const (
	entryInstance  = "FluxInstance"
	entrySync      = "gotk-sync.yaml"
	entryChart     = "flux-instance chart"
	entryDirectory = "directory"
)

const (
	fluxNamespace      = "flux-system"
	fluxGroups         = ".toolkit.fluxcd.io"
	kustomizationGroup = "kustomize.toolkit.fluxcd.io"
	sourceGroup        = "source.toolkit.fluxcd.io"
	instanceGroup      = "fluxcd.controlplane.io"
)

// entryPoints finds the entry points of a tree, by directory. A path that is not in the tree is a problem, not an entry point.
func entryPoints(v *view, given []string) ([]*EntryPoint, []*Problem, error) {
	if len(given) > 0 {
		var out []*EntryPoint
		for _, g := range given {
			e, err := v.givenEntry(g)
			if err != nil {
				return nil, nil, err
			}
			out = append(out, e)
		}
		return out, nil, nil
	}
	var out []*EntryPoint
	for _, p := range sortedKeys(v.files) {
		if isYAMLName(p) && !v.tree.isTemplate(p) {
			out = append(out, v.entriesOf(p)...)
		}
	}
	// The values of the chart that creates a FluxInstance count only where nothing plainer says the same.
	slices.SortStableFunc(out, func(a, b *EntryPoint) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(entryRank(a), entryRank(b)))
	})
	out = slices.CompactFunc(out, func(a, b *EntryPoint) bool { return a.Path == b.Path && a.Key == b.Key })
	var problems []*Problem
	out = slices.DeleteFunc(out, func(e *EntryPoint) bool {
		if v.isDir(e.Path) {
			return false
		}
		problems = append(problems, &Problem{Kind: EntryPointMissing, Position: e.Position, Name: e.Path, Near: v.nearDir(e.Path),
			Message: fmt.Sprintf("the %s syncs the path %s, but %s", e.Kind, e.Path, v.explainMissing(e.Path))})
		return true
	})
	return out, problems, nil
}

func entryRank(e *EntryPoint) int {
	return slices.Index([]string{entryDirectory, entrySync, entryInstance, entryChart}, e.Kind)
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// givenEntry makes an entry point of a directory. When a gotk-sync.yaml below it syncs just this directory, it says the rest.
func (v *view) givenEntry(dir string) (*EntryPoint, error) {
	dir = rel(dir)
	if !v.isDir(dir) {
		problem := fmt.Sprintf("entry point %s: %s", dir, v.explainMissing(dir))
		if n := v.nearDir(dir); n != "" {
			problem += "; did you mean " + n + "?"
		}
		return nil, fmt.Errorf("%s", problem)
	}
	for _, p := range sortedKeys(v.files) {
		if path.Base(p) == entrySync || isYAMLName(p) {
			for _, e := range v.entriesOf(p) {
				if e.Path == dir {
					return e, nil
				}
			}
		}
	}
	e := &EntryPoint{Kind: entryDirectory, Path: dir, Key: types.NamespacedName{Namespace: fluxNamespace, Name: fluxNamespace}}
	e.objects = []*Object{v.implied(Position{}, kustomizationObject(e.Key, "./"+dir, validators.ObjectRef{Kind: "GitRepository", Name: fluxNamespace, Namespace: fluxNamespace}))}
	return e, nil
}

// entriesOf returns the entry points that a file declares.
func (v *view) entriesOf(p string) []*EntryPoint {
	var out []*EntryPoint
	docs := v.files[p].document().docs
	for i, doc := range docs {
		id := identify(doc)
		place := find(v.tree.label+p, doc, nil)
		switch {
		case id.kind == entryInstance && id.group() == instanceGroup:
			if sync := child(doc, "spec", "sync"); sync != nil {
				out = append(out, v.instance(entryInstance, place, cmp.Or(id.namespace, fluxNamespace), sync)...)
			}
		case id.kind == "HelmRelease" && id.group() == "helm.toolkit.fluxcd.io":
			if sync := child(doc, "spec", "values", "instance", "sync"); sync != nil {
				out = append(out, v.instance(entryChart, place, cmp.Or(id.namespace, fluxNamespace), sync)...)
			}
		case !id.isObject():
			if sync := child(doc, "instance", "sync"); sync != nil {
				out = append(out, v.instance(entryChart, place, fluxNamespace, sync)...)
			}
		case path.Base(p) == entrySync && id.kind == "Kustomization" && id.group() == kustomizationGroup:
			out = append(out, v.sync(p, docs, i))
		}
	}
	return out
}

// instance is the entry point of a FluxInstance's spec.sync. The operator names what it creates after spec.sync.name, by default its namespace.
func (v *view) instance(kind string, place Position, namespace string, sync *yaml.Node) []*EntryPoint {
	if scalar(sync, "path") == "" {
		return nil
	}
	name := cmp.Or(scalar(sync, "name"), namespace)
	e := &EntryPoint{Kind: kind, Position: place, Path: rel(scalar(sync, "path")), URL: scalar(sync, "url"),
		Key:    types.NamespacedName{Namespace: namespace, Name: name},
		Source: validators.ObjectRef{Group: sourceGroup, Kind: cmp.Or(scalar(sync, "kind"), "GitRepository"), Namespace: namespace, Name: name},
	}
	source := map[string]any{
		"apiVersion": sourceGroup + "/v1", "kind": e.Source.Kind,
		"metadata": map[string]any{"name": name, "namespace": namespace},
		"spec":     map[string]any{"url": e.URL},
	}
	ns := map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": namespace}}
	e.objects = []*Object{
		v.implied(place, kustomizationObject(e.Key, "./"+e.Path, e.Source)), v.implied(place, source), v.implied(place, ns),
	}
	return []*EntryPoint{e}
}

func kustomizationObject(key types.NamespacedName, dir string, source validators.ObjectRef) map[string]any {
	return map[string]any{
		"apiVersion": kustomizationGroup + "/v1", "kind": "Kustomization",
		"metadata": map[string]any{"name": key.Name, "namespace": key.Namespace},
		"spec": map[string]any{
			"interval": "10m", "path": dir, "prune": true,
			"sourceRef": map[string]any{"kind": source.Kind, "name": source.Name, "namespace": source.Namespace},
		},
	}
}

func (v *view) implied(place Position, object map[string]any) *Object {
	return &Object{Unstructured: &unstructured.Unstructured{Object: object}, Origin: Origin{File: place.File, Document: -1, Implied: true}, place: place}
}

// sync is the entry point of a gotk-sync.yaml, as `flux bootstrap` writes it: a source and a Kustomization.
func (v *view) sync(p string, docs []*yaml.Node, index int) *EntryPoint {
	doc := docs[index]
	id := identify(doc)
	e := &EntryPoint{Kind: entrySync, Position: find(v.tree.label+p, doc, nil), Path: rel(scalar(doc, "spec", "path")),
		Key: types.NamespacedName{Namespace: cmp.Or(id.namespace, fluxNamespace), Name: id.name},
		Source: validators.ObjectRef{Group: sourceGroup, Kind: scalar(doc, "spec", "sourceRef", "kind"),
			Namespace: cmp.Or(scalar(doc, "spec", "sourceRef", "namespace"), id.namespace, fluxNamespace), Name: scalar(doc, "spec", "sourceRef", "name")},
	}
	if o := v.fileObject(p, index); o != nil {
		e.objects = append(e.objects, o)
	}
	for i, other := range docs {
		o := identify(other)
		if o.group() == sourceGroup && o.kind == e.Source.Kind && o.name == e.Source.Name {
			e.URL, e.ignore = scalar(other, "spec", "url"), scalar(other, "spec", "ignore")
			if o := v.fileObject(p, i); o != nil {
				e.objects = append(e.objects, o)
			}
		}
	}
	if len(e.objects) == 0 || e.objects[0].GetKind() != "Kustomization" {
		e.objects = append([]*Object{v.implied(e.Position, kustomizationObject(e.Key, "./"+e.Path, e.Source))}, e.objects...)
	}
	return e
}

// fileObject makes an object of a document as it stands in its file; nil when it cannot be one.
func (v *view) fileObject(p string, index int) *Object {
	doc := v.files[p].document().docs[index]
	m, err := toObject(content(doc))
	if err != nil || !identify(doc).isObject() {
		return nil
	}
	o := &Object{Unstructured: &unstructured.Unstructured{Object: m}, Origin: Origin{File: v.tree.label + p, Document: index}, view: v}
	o.findUnknown()
	return o
}

// sameURL compares two addresses of a repository without regard for what does not change the repository.
func sameURL(a, b string) bool {
	clean := func(s string) string {
		s = strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(s, "/"), ".git"))
		if _, rest, ok := strings.Cut(s, "://"); ok {
			s = rest
		}
		if _, rest, ok := strings.Cut(s, "@"); ok {
			s = rest
		}
		return strings.ReplaceAll(s, ":", "/")
	}
	return a != "" && clean(a) == clean(b)
}
