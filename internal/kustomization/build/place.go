package build

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	kustypes "sigs.k8s.io/kustomize/api/types"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

// Parts of kustomize's messages that say more about the place of a failure than their file (kustomize/api 0.21).
var (
	componentListed = regexp.MustCompile(`expected kind != 'Component' for path '([^']+)'`)
	patchFile       = regexp.MustCompile(`failed to get the patch file from path\(([^)]+)\)`)
	patchOperation  = regexp.MustCompile(`(?:add|remove|replace|test|copy|move) operation does not apply: doc is missing (?:path|key): "?([^\s":]+)`)
	objectWithout   = regexp.MustCompile(`missing (metadata\.name|Resource metadata|kind|apiVersion)\b`)
	kindOfFile      = regexp.MustCompile(`(?:apiVersion for \w+ should be|kind should be)`)
)

// placeFirst sets the position of a problem without a line to the first document of its file.
func (g *graph) placeFirst(p *validators.Problem) {
	if p.Position.File == "" || p.Position.Line > 0 {
		return
	}
	p.Position.Line, p.Position.Column = 1, 1
	if f := g.fileOf(p); f != nil {
		if doc := f.Parse().First(); doc != nil {
			if root := yamlposition.Root(doc); root.Line > 0 {
				p.Position.Line, p.Position.Column = root.Line, root.Column
			}
		}
	}
}

// fileOf returns the file of a problem.
func (g *graph) fileOf(p *validators.Problem) *sourcetree.File {
	return g.artifact.File(g.artifact.PathOf(p.Position.File))
}

// placeField sets the position to a field of the kustomization file of the problem.
func (g *graph) placeField(p *validators.Problem, name string) {
	f := g.fileOf(p)
	if f == nil || f.Parse().First() == nil {
		return
	}
	if key, _ := yamlposition.Entry(yamlposition.Root(f.Parse().First()), name); key != nil {
		p.Position = f.Position(key.Line, key.Column)
	}
}

// placeComponent explains a Component that is listed as a resource.
func (g *graph) placeComponent(p *validators.Problem, dir string) {
	for _, from := range slices.Sorted(maps.Keys(g.nodes)) {
		n := g.nodes[from]
		list := yamlposition.Child(n.doc, "resources")
		if list == nil {
			continue
		}
		for _, item := range list.Content {
			if sourcetree.Rel(path.Join(n.dir, item.Value)) != dir {
				continue
			}
			p.Position = g.artifact.Position(n.file, item.Line, item.Column)
			p.Message, p.Detail = fmt.Sprintf("the build fails: %s is a Component, and is listed under resources", item.Value), ""
			p.Fix = fmt.Sprintf("List %s under components.", item.Value)
			return
		}
	}
}

// eachPatch calls visit for the patches of all kustomization files: those of the field patches, and each entry of the
// older fields, whose text is a path or the patch itself.
func (g *graph) eachPatch(visit func(n *node, e patchEntry) bool) {
	for _, dir := range slices.Sorted(maps.Keys(g.nodes)) {
		n := g.nodes[dir]
		if n.k == nil {
			continue
		}
		entries := g.entriesOf(n)
		older := func(field string, texts []string) {
			list := yamlposition.Child(n.doc, field)
			for i, text := range texts {
				e := patchEntry{patch: kustypes.Patch{Path: text}}
				if strings.Contains(text, "\n") {
					e.patch = kustypes.Patch{Patch: text}
				}
				if list != nil && i < len(list.Content) {
					e.item = list.Content[i]
				}
				entries = append(entries, e)
			}
		}
		var merge, json []string
		for _, text := range n.k.PatchesStrategicMerge {
			merge = append(merge, string(text))
		}
		for _, patch := range n.k.PatchesJson6902 {
			json = append(json, patch.Path)
		}
		older("patchesStrategicMerge", merge)
		older("patchesJson6902", json)
		for _, e := range entries {
			if visit(n, e) {
				return
			}
		}
	}
}

// placePatchFile explains a patch whose file does not exist.
func (g *graph) placePatchFile(p *validators.Problem, name string) {
	g.eachPatch(func(n *node, e patchEntry) bool {
		file := sourcetree.Rel(path.Join(n.dir, name))
		if e.patch.Path != name || g.artifact.File(file) != nil {
			return false
		}
		g.locate(n, e, "path", p)
		p.Detail = ""
		p.Message = fmt.Sprintf("the build fails: %s lists the patch %s, but %s is not in the tree", path.Base(n.file), name, g.artifact.Name(file))
		p.Fix = listedFix
		return true
	})
}

// placeOperation places an operation of a JSON patch whose path the target does not have, if one patch only has the path.
func (g *graph) placeOperation(p *validators.Problem, pointer string) {
	var found []validators.Position
	g.eachPatch(func(n *node, e patchEntry) bool {
		docs, locate := g.documentsOf(n, e)
		for _, doc := range docs {
			list := yamlposition.Root(doc)
			if list == nil || list.Kind != yaml.SequenceNode {
				continue
			}
			for _, item := range list.Content {
				if _, at := yamlposition.Entry(yamlposition.Resolve(item), "path"); at != nil && at.Value == pointer {
					here := &validators.Problem{}
					locate(at, here)
					found = append(found, here.Position)
				}
			}
		}
		return false
	})
	if len(found) == 1 && found[0].Line > 0 {
		p.Position = found[0]
	}
	p.Fix = "Correct the path of the operation or the target of the patch: what is patched has no such field at this point of the build."
}

// placeDocument places an object without what kustomize needs: the first document without it in the file of the problem.
func (g *graph) placeDocument(p *validators.Problem) {
	f := g.fileOf(p)
	if f == nil {
		return
	}
	for _, doc := range f.Parse().Documents {
		root := yamlposition.Root(doc)
		id := sourcetree.Identify(doc)
		if root == nil || id.Kind != "" && id.APIVersion != "" && id.Name != "" || strings.HasSuffix(id.Kind, "List") {
			continue
		}
		p.Position, p.Detail = f.Position(root.Line, root.Column), ""
		switch generated := yamlposition.Scalar(root, "metadata", "generateName"); {
		case id.Kind == "" || id.APIVersion == "":
			p.Message = "the build fails: a document has no apiVersion and kind: it is not a Kubernetes object"
			p.Fix = "Set apiVersion and kind, or take the file out of what the Kustomization applies: list the objects in a kustomization.yaml, or move the file."
		case generated != "":
			p.Message = fmt.Sprintf("the build fails: %s has metadata.generateName and no metadata.name", id.Kind)
			p.Fix = "Set metadata.name: Flux applies objects by their names."
		default:
			p.Message = fmt.Sprintf("the build fails: %s has no metadata.name", id.Kind)
			p.Fix = "Set metadata.name."
		}
		return
	}
}
