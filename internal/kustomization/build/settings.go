package build

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	kustypes "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/resid"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

// Role is what writes a field of an object.
type Role string

// The roles of settings in a build.
const (
	RolePatch           Role = "patch"           // a patch, in a kustomization or in spec.patches of the Flux Kustomization
	RoleNamespace       Role = "namespace"       // `namespace` of a kustomization
	RoleTargetNamespace Role = "targetNamespace" // spec.targetNamespace of the Flux Kustomization
	RoleName            Role = "name"            // a name prefix or suffix
	RoleMetadata        Role = "metadata"        // labels or annotations that are set on all objects
	RoleImage           Role = "image"           // an entry of `images`
	RoleReplicas        Role = "replicas"        // an entry of `replicas`
	RoleReplacement     Role = "replacement"     // the `replacements` of a kustomization
	RoleGenerator       Role = "generator"       // the generator that builds the object
	RoleData            Role = "data"            // the file or literal that a generator takes a value from
)

// Setting is where a field of an object is written outside of the object's own file: in a file of the artifact, or in
// the spec of the Flux Kustomization.
type Setting struct {
	Role Role
	// Position is the position in a file; zero for a setting in the spec.
	Position validators.Position
	// Spec is the field of the Flux Kustomization; empty for a setting in a file.
	Spec validators.Path
	// InText is the position in the text of the field, when that is a patch.
	InText validators.Position
}

// Target is a built object as it is applied, after variable substitution.
type Target struct {
	Object *unstructured.Unstructured
	// File is the path in the artifact of the file that it comes from; empty when unknown.
	File string
	// Document is its document, or its item of a List; nil when it is in no file.
	Document *yaml.Node
	// Spec is the spec of the Flux Kustomization.
	Spec *kustomizev1.KustomizationSpec
}

func (t *Target) value(p validators.Path) any { return p.Lookup(t.Object.Object) }

// Settings returns the settings and patches outside of the object's file that write a field, the one that is applied
// last first.
func (out *Output) Settings(t *Target, p validators.Path) []Setting {
	if out.graph.root == nil {
		return nil
	}
	chain := out.graph.chain(t.File)
	if t.File == "" {
		chain = []*node{out.graph.root}
	}
	var all []Setting
	for _, n := range slices.Backward(chain) {
		all = append(all, out.transformers(t, n, p)...)
		all = append(all, out.patches(t, n, p)...)
	}
	return all
}

// key returns the position of a key of a kustomization file, and whether it is there.
func (g *graph) key(n *node, keys ...string) (validators.Position, bool) {
	last := len(keys) - 1
	parent := yamlposition.Child(n.doc, keys[:last]...)
	if parent == nil {
		return validators.Position{}, false
	}
	key, _ := yamlposition.Entry(parent, keys[last])
	if key == nil {
		return validators.Position{}, false
	}
	return g.artifact.Position(n.file, key.Line, key.Column), true
}

// transformers returns the fields of a kustomization, other than patches, that write the field.
func (out *Output) transformers(t *Target, n *node, p validators.Path) []Setting {
	var all []Setting
	add := func(role Role, keys ...string) {
		if at, ok := out.graph.key(n, keys...); ok {
			all = append(all, Setting{Role: role, Position: at})
		}
	}
	// spec adds a field of the Flux Kustomization, which overrides that of the root's kustomization file.
	spec := func(role Role, value string, field string) bool {
		if n != out.graph.root || value == "" {
			return false
		}
		all = append(all, Setting{Role: role, Spec: validators.NewPath("spec", field)})
		return true
	}
	last := p[len(p)-1]
	switch {
	case last.Key == "namespace", last.Key == "name" && len(p) == 2 && t.Object.GetKind() == "Namespace":
		// A component is part of many kustomizations, each with its own namespace.
		if !spec(RoleTargetNamespace, t.Spec.TargetNamespace, "targetNamespace") && n.k.Namespace != "" && n.k.Namespace == t.value(p) {
			add(RoleNamespace, "namespace")
		}
	case last.Key == "name":
		if !spec(RoleName, t.Spec.NamePrefix, "namePrefix") && n.k.NamePrefix != "" {
			add(RoleName, "namePrefix")
		}
		if !spec(RoleName, t.Spec.NameSuffix, "nameSuffix") && n.k.NameSuffix != "" {
			add(RoleName, "nameSuffix")
		}
	case last.Key == "image":
		if n == out.graph.root {
			for i, image := range t.Spec.Images {
				if strings.Contains(fmt.Sprint(t.value(p)), path.Base(image.Name)) {
					all = append(all, Setting{Role: RoleImage, Spec: validators.NewPath("spec", "images").Index(i)})
				}
			}
		}
		if len(n.k.Images) > 0 {
			add(RoleImage, "images")
		}
	case last.Key == "replicas" && len(p) == 2:
		add(RoleReplicas, "replicas")
	}
	if len(p) >= 2 && !last.IsIndex() {
		switch p[len(p)-2].Key {
		case "labels", "matchLabels":
			all = append(all, out.labels(n, last.Key)...)
			add(RoleMetadata, "commonLabels", last.Key)
		case "annotations":
			add(RoleMetadata, "commonAnnotations", last.Key)
		}
	}
	for _, replacement := range n.k.Replacements {
		for _, target := range replacement.Targets {
			for _, field := range target.FieldPaths {
				if strings.HasPrefix(p.String(), strings.TrimSuffix(strings.SplitN(field, "[", 2)[0], ".")) {
					add(RoleReplacement, "replacements")
					return all
				}
			}
		}
	}
	return all
}

// labels returns the entries of `labels` that set a label.
func (out *Output) labels(n *node, label string) []Setting {
	var all []Setting
	list := yamlposition.Child(n.doc, "labels")
	for i, l := range n.k.Labels {
		if _, ok := l.Pairs[label]; !ok || list == nil || i >= len(list.Content) {
			continue
		}
		pairs := yamlposition.Child(list.Content[i], "pairs")
		if pairs == nil {
			continue
		}
		if key, _ := yamlposition.Entry(pairs, label); key != nil {
			all = append(all, Setting{Role: RoleMetadata, Position: out.graph.artifact.Position(n.file, key.Line, key.Column)})
		}
	}
	return all
}

// patches returns the patches of a kustomization that write the field, the one that is applied last first.
func (out *Output) patches(t *Target, n *node, p validators.Path) []Setting {
	var all []Setting
	// item returns an item of a list in the kustomization file; nil when it has none.
	item := func(field string, i int) *yaml.Node {
		if list := yamlposition.Child(n.doc, field); list != nil && i < len(list.Content) {
			return list.Content[i]
		}
		return nil
	}
	own := 0
	if list := yamlposition.Child(n.doc, "patches"); list != nil {
		own = len(list.Content)
	}
	for i, patch := range n.k.Patches {
		if i >= own && n == out.graph.root {
			all = append(all, out.specPatch(t, i-own, patch, p)...)
			continue
		}
		all = append(all, out.patch(t, n, patch, yamlposition.Child(item("patches", i), "patch"), p)...)
	}
	for i, text := range n.k.PatchesStrategicMerge {
		if strings.Contains(string(text), "\n") {
			all = append(all, out.patch(t, n, kustypes.Patch{Patch: string(text)}, item("patchesStrategicMerge", i), p)...)
		} else {
			all = append(all, out.patch(t, n, kustypes.Patch{Path: string(text)}, nil, p)...)
		}
	}
	for i, patch := range n.k.PatchesJson6902 {
		all = append(all, out.patch(t, n, patch, yamlposition.Child(item("patchesJson6902", i), "patch"), p)...)
	}
	slices.Reverse(all)
	return all
}

// patch returns one patch of a kustomization, in a file or inline, if it writes the field.
func (out *Output) patch(t *Target, n *node, patch kustypes.Patch, inline *yaml.Node, p validators.Path) []Setting {
	a := out.graph.artifact
	if patch.Path != "" {
		f := a.File(sourcetree.Rel(path.Join(n.dir, patch.Path)))
		if f == nil {
			return nil
		}
		if at, ok := t.writtenBy(f.Parse().Documents, patch.Target, p); ok {
			return []Setting{{Role: RolePatch, Position: f.Position(at.Line, at.Column)}}
		}
		return nil
	}
	at, ok := t.writtenBy(a.ParseText(n.file, patch.Patch).Documents, patch.Target, p)
	if !ok || inline == nil {
		return nil
	}
	return []Setting{{Role: RolePatch, Position: a.PositionInText(n.file, inline, at)}}
}

// specPatch returns one patch of spec.patches, if it writes the field.
func (out *Output) specPatch(t *Target, index int, patch kustypes.Patch, p validators.Path) []Setting {
	at, ok := t.writtenBy(out.graph.artifact.ParseText("", patch.Patch).Documents, patch.Target, p)
	if !ok {
		return nil
	}
	return []Setting{{Role: RolePatch, Spec: validators.NewPath("spec", "patches").Index(index).Child("patch"), InText: at}}
}

// writtenBy reports whether a patch matches the object and writes the field, and returns the position in the patch.
func (t *Target) writtenBy(docs []*yaml.Node, selector *kustypes.Selector, p validators.Path) (validators.Position, bool) {
	if selector != nil && !t.selectedBy(selector) {
		return validators.Position{}, false
	}
	for _, doc := range slices.Backward(docs) {
		root := yamlposition.Resolve(doc)
		if root.Kind == yaml.SequenceNode {
			if at, ok := jsonPatchWrites(root, p, t.Object.Object); ok {
				return at, true
			}
			continue
		}
		if selector == nil {
			id := sourcetree.Identify(doc)
			if id.Kind != t.Object.GetKind() || !strings.Contains(t.Object.GetName(), id.Name) {
				continue
			}
		}
		if identifies(p) {
			continue // it selects the object, and changes nothing
		}
		if at, _, ok := yamlposition.Match(doc, t.Object.Object, p); ok {
			return at, true
		}
	}
	return validators.Position{}, false
}

// identifies reports whether the field identifies the object: in a strategic merge patch it selects the object, and
// changes nothing.
func identifies(p validators.Path) bool {
	switch p.String() {
	case "apiVersion", "kind", "metadata", "metadata.name", "metadata.namespace":
		return true
	}
	return false
}

// selectedBy reports whether the target of a patch selects the object, by its present or its former name.
func (t *Target) selectedBy(selector *kustypes.Selector) bool {
	sr, err := kustypes.NewSelectorRegex(selector)
	if err != nil {
		return false
	}
	gvk := t.Object.GroupVersionKind()
	former := sourcetree.Identity{Name: t.Object.GetName(), Namespace: t.Object.GetNamespace()}
	if t.Document != nil {
		former = sourcetree.Identify(t.Document)
	}
	if !sr.MatchGvk(resid.Gvk{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind}) ||
		(!sr.MatchName(t.Object.GetName()) && !sr.MatchName(former.Name)) ||
		(!sr.MatchNamespace(t.Object.GetNamespace()) && !sr.MatchNamespace(former.Namespace)) {
		return false
	}
	for text, set := range map[string]map[string]string{selector.LabelSelector: t.Object.GetLabels(), selector.AnnotationSelector: t.Object.GetAnnotations()} {
		s, err := labels.Parse(text)
		if err != nil || !s.Matches(labels.Set(set)) {
			return false
		}
	}
	return true
}

// jsonPatchWrites returns the position of the last operation of a JSON patch (RFC 6902) that writes the field or a
// parent of it.
func jsonPatchWrites(ops *yaml.Node, p validators.Path, object map[string]any) (validators.Position, bool) {
	pointer := p.Pointer()
	for _, op := range slices.Backward(ops.Content) {
		target := yamlposition.Child(op, "path")
		value := yamlposition.Child(op, "value")
		if target == nil {
			continue
		}
		at := target.Value
		if list, ok := strings.CutSuffix(at, "/-"); ok {
			// An appended item has an index in the built object: the operation writes the field when the item at that
			// index is this one.
			rest, below := strings.CutPrefix(pointer, list+"/")
			if !below {
				continue
			}
			index, _, _ := strings.Cut(rest, "/")
			if _, err := strconv.Atoi(index); err != nil {
				continue
			}
			depth := strings.Count(list, "/") + 1
			if depth > len(p) || value == nil || p[:depth].Lookup(object) == nil || !yamlposition.SameItem(value, p[:depth].Lookup(object)) {
				continue
			}
			at = list + "/" + index
		}
		if pointer != at && !strings.HasPrefix(pointer, at+"/") {
			continue
		}
		if value == nil {
			return yamlposition.Of(target), true
		}
		depth := strings.Count(at, "/")
		if pos, _, ok := yamlposition.Match(value, p[:depth].Lookup(object), p[depth:]); ok {
			return pos, true
		}
		if pointer == at {
			return yamlposition.Of(target), true
		}
	}
	return validators.Position{}, false
}

// Generator returns the generator of a generated object, and the file or literal that a field takes its value from,
// if that is known. It returns false when the generator is not found.
func (out *Output) Generator(t *Target, p validators.Path) (generator Setting, data *Setting, ok bool) {
	var n *node
	for _, candidate := range out.graph.nodes {
		if candidate.file == t.File && candidate.k != nil {
			n = candidate
		}
	}
	if n == nil {
		return Setting{}, nil, false
	}
	field, args := "configMapGenerator", []kustypes.GeneratorArgs{}
	for _, g := range n.k.ConfigMapGenerator {
		args = append(args, g.GeneratorArgs)
	}
	if t.Object.GetKind() == "Secret" {
		field, args = "secretGenerator", nil
		for _, g := range n.k.SecretGenerator {
			args = append(args, g.GeneratorArgs)
		}
	}
	list := yamlposition.Child(n.doc, field)
	best := -1
	for i, g := range args {
		if strings.Contains(t.Object.GetName(), g.Name) && (best < 0 || len(g.Name) > len(args[best].Name)) {
			best = i
		}
	}
	if best < 0 || list == nil || best >= len(list.Content) {
		return Setting{}, nil, false
	}
	item := list.Content[best]
	generator = Setting{Role: RoleGenerator, Position: out.graph.artifact.Position(n.file, item.Line, item.Column)}
	if len(p) == 2 && (p[0].Key == "data" || p[0].Key == "binaryData") {
		if at, ok := out.dataPosition(n, item, &args[best], p[1].Key); ok {
			data = &Setting{Role: RoleData, Position: at}
		}
	}
	return generator, data, true
}

// dataPosition returns the position of what a generator takes the value of a key from.
func (out *Output) dataPosition(n *node, item *yaml.Node, g *kustypes.GeneratorArgs, key string) (validators.Position, bool) {
	a := out.graph.artifact
	for _, source := range g.FileSources {
		k, p, ok := strings.Cut(source, "=")
		if !ok {
			k, p = path.Base(source), source
		}
		if k == key {
			return a.Position(sourcetree.Rel(path.Join(n.dir, p)), 1, 1), true
		}
	}
	if list := yamlposition.Child(item, "literals"); list != nil {
		for _, l := range list.Content {
			if strings.HasPrefix(l.Value, key+"=") {
				return a.Position(n.file, l.Line, l.Column), true
			}
		}
	}
	for _, env := range append(slices.Clone(g.EnvSources), g.EnvSource) {
		f := a.File(sourcetree.Rel(path.Join(n.dir, env)))
		if env == "" || f == nil {
			continue
		}
		data, err := f.Read()
		if err != nil {
			continue
		}
		for i, line := range strings.Split(string(data), "\n") {
			if strings.HasPrefix(strings.TrimSpace(line), key+"=") {
				return f.Position(i+1, 1), true
			}
		}
	}
	return validators.Position{}, false
}

// SearchText returns the position of a text in the object's document, else in the kustomization files of its build
// and the files that these read.
func (out *Output) SearchText(t *Target, text string) (validators.Position, bool) {
	a := out.graph.artifact
	if t.Document != nil {
		if at, ok := a.Search(t.File, text, yamlposition.Root(t.Document).Line); ok {
			return at, true
		}
	}
	for _, n := range slices.Backward(out.graph.chain(t.File)) {
		var names []string
		for _, g := range n.k.ConfigMapGenerator {
			names = append(names, generatorFiles(g.KvPairSources)...)
		}
		for _, g := range n.k.SecretGenerator {
			names = append(names, generatorFiles(g.KvPairSources)...)
		}
		for _, patch := range n.k.Patches {
			names = append(names, patch.Path)
		}
		files := []string{n.file}
		for _, name := range names {
			files = append(files, sourcetree.Rel(path.Join(n.dir, name)))
		}
		for _, p := range files {
			if at, ok := a.Search(p, text, 1); ok {
				return at, true
			}
		}
	}
	return validators.Position{}, false
}
