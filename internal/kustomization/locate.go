package kustomization

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/labels"
	kustypes "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/resid"

	"github.com/flux-admission/flux-admission/validators"
)

// Role says what stands at a place.
type Role string

// The roles of a place in where a field comes from.
const (
	RoleField           Role = "field"           // the field in the object's own file, or the nearest parent of it that is there
	RolePatch           Role = "patch"           // a patch that sets the field, in a kustomization or in a Flux Kustomization's spec.patches
	RoleNamespace       Role = "namespace"       // `namespace:` of a kustomization
	RoleTargetNamespace Role = "targetNamespace" // spec.targetNamespace of a Flux Kustomization
	RoleName            Role = "name"            // a name prefix or suffix
	RoleMetadata        Role = "metadata"        // labels or annotations that are set on all objects
	RoleImage           Role = "image"           // an entry of `images`
	RoleReplicas        Role = "replicas"        // an entry of `replicas`
	RoleReplacement     Role = "replacement"     // the `replacements` of a kustomization
	RoleGenerator       Role = "generator"       // the generator that makes the object
	RoleData            Role = "data"            // the file or literal that a generator takes the value from
	RoleVariable        Role = "variable"        // where the value of a variable in the field is written
	RoleEntryPoint      Role = "entry-point"     // the entry point that brings the object
)

// Source is a place with what stands there.
type Source struct {
	Position
	Role Role
}

// Location is where the value of a field comes from: the embedded source is where it is written last, Others are the further places that
// a reader needs: the object's own file when the value was written elsewhere, the definition of a variable in it.
type Location struct {
	Source
	Others []Source
}

// Own returns the place in the object's own file.
func (l Location) Own() Position {
	for _, s := range append([]Source{l.Source}, l.Others...) {
		if s.Role == RoleField {
			return s.Position
		}
	}
	return l.Position
}

// document returns the object's document, or the item of a List that it is; nil when the object is from no file.
func (o *Object) document() *yaml.Node {
	if o.view == nil || o.Origin.Document < 0 || o.Origin.Generated {
		return nil
	}
	f := o.view.files[strings.TrimPrefix(o.Origin.File, o.view.tree.label)]
	if f == nil {
		return nil
	}
	docs := f.document().docs
	if o.Origin.Document >= len(docs) {
		return nil
	}
	doc := docs[o.Origin.Document]
	if len(o.within) > 0 {
		_, n, _ := descend(doc, nil, o.within)
		return n
	}
	return doc
}

// Locate maps a field of the object to where its value is written in Git: in the object's file, or in the patch, namespace, image or other
// setting of a kustomization or of a Flux Kustomization that wrote it last. The empty path is the object itself.
func (o *Object) Locate(p validators.Path) Location {
	if o.Origin.Implied {
		return Location{Source: Source{o.place, RoleEntryPoint}}
	}
	if o.Origin.Generated {
		return o.locateGenerated(p)
	}
	doc := o.document()
	if doc == nil {
		if w := o.writers(p); len(w) > 0 {
			return Location{Source: w[0], Others: w[1:]}
		}
		return Location{Source: Source{Position{File: o.Origin.File}, RoleField}}
	}
	pos, node, found := descend(doc, o.Object, p)
	own := Source{Position{File: o.Origin.File, Line: pos.Line, Column: pos.Column}, RoleField}
	value := p.Lookup(map[string]any(o.Object))
	switch {
	case value == nil, len(p) == 0:
		return Location{Source: own}
	case found && node.Kind == yaml.ScalarNode && strings.Contains(node.Value, "${") && o.Kustomization != nil:
		return Location{Source: own, Others: o.definitions(node.Value)}
	case found && node.Kind == yaml.ScalarNode && node.Value == fmt.Sprint(value), found && node.Kind != yaml.ScalarNode:
		return Location{Source: own}
	}
	w := o.writers(p)
	if len(w) == 0 {
		return Location{Source: own}
	}
	return Location{Source: w[0], Others: append(w[1:], own)}
}

var variableUse = regexp.MustCompile(`\$\{#?([_a-zA-Z][_a-zA-Z0-9]*)`)

// definitions returns where the variables in a text are defined, as far as that is in the tree.
func (o *Object) definitions(text string) []Source {
	var out []Source
	if o.Kustomization.vars == nil {
		return nil
	}
	for _, m := range variableUse.FindAllStringSubmatch(text, -1) {
		if v, ok := o.Kustomization.vars.known[m[1]]; ok && v.object != nil && v.object != o {
			out = append(out, Source{v.object.Locate(v.path).Position, RoleVariable})
		}
	}
	return out
}

// descend walks a path through a document. Items of lists are matched with those of the rendered object, since a patch may have added some.
// It returns the place of the field or of its nearest parent that is there, the node there, and whether it is the field itself.
func descend(doc *yaml.Node, rendered any, p validators.Path) (Position, *yaml.Node, bool) {
	node := resolve(doc)
	if node == nil {
		return Position{}, nil, false
	}
	at := Position{Line: node.Line, Column: node.Column}
	for _, s := range p {
		var next, pos *yaml.Node
		if s.IsIndex() {
			list, _ := rendered.([]any)
			var item any
			if s.Index < len(list) {
				item = list[s.Index]
			}
			next = itemOf(node, list, s.Index)
			pos, rendered = next, item
		} else {
			pos, next = entry(node, s.Key)
			m, _ := rendered.(map[string]any)
			rendered = m[s.Key]
		}
		if next == nil {
			return at, node, false
		}
		at = Position{Line: pos.Line, Column: pos.Column}
		node = resolve(next)
	}
	return at, node, true
}

// entry returns the key and the value of an entry of a mapping, also of one merged in with <<.
func entry(n *yaml.Node, key string) (k, v *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			k, v = n.Content[i], n.Content[i+1] // of equal keys the last one counts
		}
	}
	if k != nil {
		return k, v
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag != "!!merge" {
			continue
		}
		merged := resolve(n.Content[i+1])
		if merged.Kind == yaml.MappingNode {
			if k, v := entry(merged, key); k != nil {
				return k, v
			}
			continue
		}
		for _, m := range merged.Content {
			if k, v := entry(resolve(m), key); k != nil {
				return k, v
			}
		}
	}
	return nil, nil
}

// mergeKeys are what tells the items of a list apart, most telling first.
var mergeKeys = []string{"name", "key", "id", "mountPath", "containerPort", "port", "host", "kind"}

// itemOf returns the item of a sequence that became the item at the index of the rendered list; nil when it has none.
func itemOf(n *yaml.Node, list []any, index int) *yaml.Node {
	if n.Kind != yaml.SequenceNode {
		return nil
	}
	var item any
	if index < len(list) {
		item = list[index]
	}
	if index < len(n.Content) && sameItem(n.Content[index], item) {
		return n.Content[index]
	}
	if item != nil {
		for _, c := range n.Content {
			if sameItem(c, item) {
				return c
			}
		}
	}
	if len(list) == len(n.Content) && index < len(list) {
		return n.Content[index] // nothing was added or deleted; a name in it has changed
	}
	return nil
}

// sameItem tells whether the rendered item of a list may have been made from the node, by what tells items apart. Nil may be any.
func sameItem(n *yaml.Node, item any) bool {
	n = resolve(n)
	m, isMap := item.(map[string]any)
	if !isMap {
		return item == nil || n.Kind != yaml.ScalarNode || n.Value == fmt.Sprint(item) || strings.Contains(n.Value, "$")
	}
	for _, key := range mergeKeys {
		if v, ok := m[key]; ok {
			has := scalar(n, key)
			return has == fmt.Sprint(v) || strings.Contains(has, "$")
		}
	}
	return true
}

// writers returns the settings and patches outside of the object's file that write the field, last first.
func (o *Object) writers(p validators.Path) []Source {
	if o.out == nil || o.Kustomization == nil {
		return nil
	}
	var out []Source
	if c := o.Kustomization.Spec.CommonMetadata; c != nil && len(p) == 3 && p[0].Key == "metadata" {
		set := map[string]map[string]string{"labels": c.Labels, "annotations": c.Annotations}[p[1].Key]
		if _, ok := set[p[2].Key]; ok {
			out = append(out, Source{o.Kustomization.Object.Locate(validators.NewPath("spec", "commonMetadata", p[1].Key, p[2].Key)).Position, RoleMetadata})
		}
	}
	chain := o.out.reach.chain(strings.TrimPrefix(o.Origin.File, o.view.tree.label))
	if o.Origin.File == "" {
		chain = []*step{o.out.reach.root}
	}
	for _, s := range slices.Backward(chain) {
		out = append(out, o.settings(s, p)...)
		out = append(out, o.patches(s, p)...)
	}
	return out
}

// settings returns the transformers of a step that write the field.
func (o *Object) settings(s *step, p validators.Path) []Source {
	var out []Source
	add := func(role Role, keys ...string) {
		last := len(keys) - 1
		if parent := child(s.doc, keys[:last]...); parent == nil {
			return
		} else if key, _ := entry(parent, keys[last]); key != nil {
			out = append(out, Source{o.view.tree.place(s.file, key.Line, key.Column), role})
		}
	}
	spec := func(role Role, value string, field string) bool {
		if s != o.out.reach.root || value == "" {
			return false
		}
		out = append(out, Source{o.Kustomization.Object.Locate(validators.NewPath("spec", field)).Position, role})
		return true
	}
	last := p[len(p)-1]
	ks := &o.Kustomization.Spec
	switch {
	case last.Key == "namespace", last.Key == "name" && len(p) == 2 && o.GetKind() == "Namespace":
		// A component is part of many kustomizations, each with a namespace of its own.
		if !spec(RoleTargetNamespace, ks.TargetNamespace, "targetNamespace") && s.k.Namespace != "" && s.k.Namespace == p.Lookup(map[string]any(o.Object)) {
			add(RoleNamespace, "namespace")
		}
	case last.Key == "name":
		if !spec(RoleName, ks.NamePrefix, "namePrefix") && s.k.NamePrefix != "" {
			add(RoleName, "namePrefix")
		}
		if !spec(RoleName, ks.NameSuffix, "nameSuffix") && s.k.NameSuffix != "" {
			add(RoleName, "nameSuffix")
		}
	case last.Key == "image":
		if s == o.out.reach.root {
			for i, image := range ks.Images {
				if strings.Contains(fmt.Sprint(p.Lookup(map[string]any(o.Object))), path.Base(image.Name)) {
					out = append(out, Source{o.Kustomization.Object.Locate(validators.NewPath("spec", "images").Index(i)).Position, RoleImage})
				}
			}
		}
		if len(s.k.Images) > 0 {
			add(RoleImage, "images")
		}
	case last.Key == "replicas" && len(p) == 2:
		add(RoleReplicas, "replicas")
	}
	if len(p) >= 2 && !last.IsIndex() {
		switch field := p[len(p)-2].Key; field {
		case "labels", "matchLabels":
			for i, l := range s.k.Labels {
				if _, ok := l.Pairs[last.Key]; ok {
					if list := child(s.doc, "labels"); list != nil && i < len(list.Content) {
						pairs := child(list.Content[i], "pairs")
						if pairs == nil {
							continue
						}
						if n, _ := entry(pairs, last.Key); n != nil {
							out = append(out, Source{o.view.tree.place(s.file, n.Line, n.Column), RoleMetadata})
						}
					}
				}
			}
			add(RoleMetadata, "commonLabels", last.Key)
		case "annotations":
			add(RoleMetadata, "commonAnnotations", last.Key)
		}
	}
	for _, r := range s.k.Replacements {
		for _, target := range r.Targets {
			for _, field := range target.FieldPaths {
				if strings.HasPrefix(p.String(), strings.TrimSuffix(strings.SplitN(field, "[", 2)[0], ".")) {
					add(RoleReplacement, "replacements")
					return out
				}
			}
		}
	}
	return out
}

// patches returns the patches of a step that write the field, last first.
func (o *Object) patches(s *step, p validators.Path) []Source {
	var out []Source
	own := 0
	if list := child(s.doc, "patches"); list != nil {
		own = len(list.Content)
	}
	for i, patch := range s.k.Patches {
		if i >= own && s == o.out.reach.root {
			field := validators.NewPath("spec", "patches").Index(i - own).Child("patch")
			out = append(out, o.specPatch(field, patch, p)...)
			continue
		}
		var inline *yaml.Node
		if list := child(s.doc, "patches"); list != nil && i < len(list.Content) {
			inline = child(list.Content[i], "patch")
		}
		out = append(out, o.patch(s, patch, inline, p)...)
	}
	for i, sm := range s.k.PatchesStrategicMerge {
		patch := kustypes.Patch{Path: string(sm)}
		var inline *yaml.Node
		if strings.Contains(string(sm), "\n") {
			patch = kustypes.Patch{Patch: string(sm)}
			if list := child(s.doc, "patchesStrategicMerge"); list != nil && i < len(list.Content) {
				inline = list.Content[i]
			}
		}
		out = append(out, o.patch(s, patch, inline, p)...)
	}
	for i, js := range s.k.PatchesJson6902 {
		var inline *yaml.Node
		if list := child(s.doc, "patchesJson6902"); list != nil && i < len(list.Content) {
			inline = child(list.Content[i], "patch")
		}
		out = append(out, o.patch(s, js, inline, p)...)
	}
	slices.Reverse(out)
	return out
}

// patch looks into one patch of a kustomization, in a file or inline.
func (o *Object) patch(s *step, patch kustypes.Patch, inline *yaml.Node, p validators.Path) []Source {
	if patch.Path != "" {
		f := o.view.files[rel(path.Join(s.dir, patch.Path))]
		if f == nil {
			return nil
		}
		if at, ok := o.writes(f.document().docs, patch.Target, p); ok {
			return []Source{{o.view.tree.place(f.path, at.Line, at.Column), RolePatch}}
		}
		return nil
	}
	at, ok := o.writes(parseYAML([]byte(patch.Patch), s.file, o.view.tree.limits).docs, patch.Target, p)
	if !ok || inline == nil {
		return nil
	}
	return []Source{{inside(o.view, s.file, inline, at), RolePatch}}
}

// specPatch looks into one patch of the Flux Kustomization's own spec.
func (o *Object) specPatch(field validators.Path, patch kustypes.Patch, p validators.Path) []Source {
	owner := o.Kustomization.Object
	at, ok := o.writes(parseYAML([]byte(patch.Patch), "", o.view.tree.limits).docs, patch.Target, p)
	if !ok {
		return nil
	}
	place := owner.Locate(field).Position
	if doc := owner.document(); doc != nil {
		if _, node, found := descend(doc, owner.Object, field); found {
			place = inside(owner.view, strings.TrimPrefix(owner.Origin.File, owner.view.tree.label), node, at)
		}
	}
	return []Source{{place, RolePatch}}
}

// inside returns the place in a file of a position inside the text of one of its scalars.
func inside(v *view, name string, n *yaml.Node, at Position) Position {
	place := v.tree.place(name, n.Line, n.Column)
	if n.Style&yaml.LiteralStyle == 0 {
		return place
	}
	place.Line += at.Line
	place.Column = at.Column
	if data, err := v.files[name].read(); err == nil {
		if lines := bytes.SplitN(data, []byte("\n"), n.Line+2); len(lines) > n.Line {
			place.Column += len(lines[n.Line]) - len(bytes.TrimLeft(lines[n.Line], " "))
		}
	}
	return place
}

// writes tells whether a patch is for the object and writes the field, and where in its text.
func (o *Object) writes(docs []*yaml.Node, target *kustypes.Selector, p validators.Path) (Position, bool) {
	if target != nil && !o.selected(target) {
		return Position{}, false
	}
	for _, doc := range slices.Backward(docs) {
		root := resolve(doc)
		if root.Kind == yaml.SequenceNode {
			if at, ok := jsonPatchWrites(root, p, o.Object); ok {
				return at, true
			}
			continue
		}
		if target == nil {
			id := identify(doc)
			if id.kind != o.GetKind() || !strings.Contains(o.GetName(), id.name) {
				continue
			}
		}
		if names(p) {
			continue // says which object it is for
		}
		if at, _, ok := descend(doc, o.Object, p); ok {
			return at, true
		}
	}
	return Position{}, false
}

// names tells whether the field names the object: in a strategic merge patch it is no change.
func names(p validators.Path) bool {
	switch p.String() {
	case "apiVersion", "kind", "metadata", "metadata.name", "metadata.namespace":
		return true
	}
	return false
}

// selected tells whether a patch's target selects the object, by the name that it has or had.
func (o *Object) selected(target *kustypes.Selector) bool {
	sr, err := kustypes.NewSelectorRegex(target)
	if err != nil {
		return false
	}
	gvk := o.GroupVersionKind()
	was := identity{name: o.GetName(), namespace: o.GetNamespace()}
	if doc := o.document(); doc != nil {
		was = identify(doc)
	}
	if !sr.MatchGvk(resid.Gvk{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind}) ||
		(!sr.MatchName(o.GetName()) && !sr.MatchName(was.name)) ||
		(!sr.MatchNamespace(o.GetNamespace()) && !sr.MatchNamespace(was.namespace)) {
		return false
	}
	for selector, set := range map[string]map[string]string{target.LabelSelector: o.GetLabels(), target.AnnotationSelector: o.GetAnnotations()} {
		s, err := labels.Parse(selector)
		if err != nil || !s.Matches(labels.Set(set)) {
			return false
		}
	}
	return true
}

// jsonPatchWrites finds the operation of a JSON patch (RFC 6902) that writes the field or something around it, the last one first.
func jsonPatchWrites(ops *yaml.Node, p validators.Path, rendered map[string]any) (Position, bool) {
	pointer := p.Pointer()
	for _, op := range slices.Backward(ops.Content) {
		target := child(op, "path")
		value := child(op, "value")
		if target == nil {
			continue
		}
		at := target.Value
		if list, ok := strings.CutSuffix(at, "/-"); ok {
			// An appended item has an index in the rendered object: the field is below it when the item at that index is this one.
			rest, below := strings.CutPrefix(pointer, list+"/")
			if !below {
				continue
			}
			index, _, _ := strings.Cut(rest, "/")
			if _, err := strconv.Atoi(index); err != nil {
				continue
			}
			depth := strings.Count(list, "/") + 1
			if depth > len(p) || value == nil || p[:depth].Lookup(rendered) == nil || !sameItem(value, p[:depth].Lookup(rendered)) {
				continue
			}
			at = list + "/" + index
		}
		if pointer != at && !strings.HasPrefix(pointer, at+"/") {
			continue
		}
		place := Position{Line: target.Line, Column: target.Column}
		if value == nil {
			return place, true
		}
		depth := strings.Count(at, "/")
		if pos, _, ok := descend(value, p[:depth].Lookup(rendered), p[depth:]); ok {
			place = pos
		} else if pointer != at {
			continue
		}
		return place, true
	}
	return Position{}, false
}

// locateGenerated maps a field of a generated object to the generator and the file that the value is taken from.
func (o *Object) locateGenerated(p validators.Path) Location {
	name := strings.TrimPrefix(o.Origin.File, o.view.tree.label)
	fallback := Location{Source: Source{Position{File: o.Origin.File}, RoleGenerator}}
	var s *step
	for _, candidate := range o.out.reach.steps {
		if candidate.file == name && candidate.k != nil {
			s = candidate
		}
	}
	if s == nil {
		return fallback
	}
	field, args := "configMapGenerator", []kustypes.GeneratorArgs{}
	for _, g := range s.k.ConfigMapGenerator {
		args = append(args, g.GeneratorArgs)
	}
	if o.GetKind() == "Secret" {
		field, args = "secretGenerator", nil
		for _, g := range s.k.SecretGenerator {
			args = append(args, g.GeneratorArgs)
		}
	}
	list := child(s.doc, field)
	best := -1
	for i, g := range args {
		if strings.Contains(o.GetName(), g.Name) && (best < 0 || len(g.Name) > len(args[best].Name)) {
			best = i
		}
	}
	if best < 0 || list == nil || best >= len(list.Content) {
		return fallback
	}
	n := list.Content[best]
	generator := Source{o.view.tree.place(s.file, n.Line, n.Column), RoleGenerator}
	if len(p) == 2 && (p[0].Key == "data" || p[0].Key == "binaryData") {
		if place, ok := o.dataPlace(s, n, &args[best], p[1].Key); ok {
			return Location{Source: Source{place, RoleData}, Others: []Source{generator}}
		}
	}
	if len(p) > 0 {
		if w := o.writers(p); len(w) > 0 {
			return Location{Source: w[0], Others: append(w[1:], generator)}
		}
	}
	return Location{Source: generator}
}

// dataPlace finds where a generator takes the value of a key from.
func (o *Object) dataPlace(s *step, n *yaml.Node, g *kustypes.GeneratorArgs, key string) (Position, bool) {
	for _, src := range g.FileSources {
		k, p, ok := strings.Cut(src, "=")
		if !ok {
			k, p = path.Base(src), src
		}
		if k == key {
			return o.view.tree.place(rel(path.Join(s.dir, p)), 1, 1), true
		}
	}
	if list := child(n, "literals"); list != nil {
		for _, l := range list.Content {
			if strings.HasPrefix(l.Value, key+"=") {
				return o.view.tree.place(s.file, l.Line, l.Column), true
			}
		}
	}
	for _, env := range append(slices.Clone(g.EnvSources), g.EnvSource) {
		f := o.view.files[rel(path.Join(s.dir, env))]
		if env == "" || f == nil {
			continue
		}
		data, err := f.read()
		if err != nil {
			continue
		}
		for i, line := range strings.Split(string(data), "\n") {
			if strings.HasPrefix(strings.TrimSpace(line), key+"=") {
				return o.view.tree.place(f.path, i+1, 1), true
			}
		}
	}
	return Position{}, false
}

// textPlace finds a text in the object's document, else in what its build was configured with; else it is the object's place.
func (o *Object) textPlace(text string) Position {
	if doc := o.document(); doc != nil {
		name := strings.TrimPrefix(o.Origin.File, o.view.tree.label)
		if place, ok := o.view.search(name, text, content(doc).Line); ok {
			return place
		}
	}
	if o.out != nil {
		for _, s := range slices.Backward(o.out.reach.chain(strings.TrimPrefix(o.Origin.File, o.view.tree.label))) {
			names := []string{s.file}
			for _, g := range s.k.ConfigMapGenerator {
				names = append(names, joinAll(s.dir, sources(g.KvPairSources))...)
			}
			for _, g := range s.k.SecretGenerator {
				names = append(names, joinAll(s.dir, sources(g.KvPairSources))...)
			}
			for _, patch := range s.k.Patches {
				names = append(names, rel(path.Join(s.dir, patch.Path)))
			}
			for _, name := range names {
				if place, ok := o.view.search(name, text, 1); ok {
					return place
				}
			}
		}
	}
	return o.Locate(nil).Position
}

func joinAll(dir string, names []string) []string {
	out := make([]string, 0, len(names))
	for _, n := range names {
		out = append(out, rel(path.Join(dir, n)))
	}
	return out
}

func (v *view) search(name, text string, from int) (Position, bool) {
	f := v.files[name]
	if f == nil {
		return Position{}, false
	}
	data, err := f.read()
	if err != nil {
		return Position{}, false
	}
	for i, line := range strings.Split(string(data), "\n") {
		if i+1 < from {
			continue
		}
		if at := strings.Index(line, text); at >= 0 {
			return v.tree.place(name, i+1, at+1), true
		}
	}
	return Position{}, false
}
