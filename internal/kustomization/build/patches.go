package build

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/kustomize/api/resmap"
	kustypes "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/resid"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

// literalName matches the name of a target that means one object, and not a pattern for several.
var literalName = regexp.MustCompile(`^[A-Za-z0-9${}:_.-]+$`)

// deletes matches a strategic merge patch that deletes what it selects.
var deletes = regexp.MustCompile(`\$patch: *delete`)

// patchEntry is one entry of the patches of a node.
type patchEntry struct {
	patch kustypes.Patch
	// item is its node in the kustomization file; nil if it is in the spec of the Flux Kustomization.
	item *yaml.Node
	// spec is its index in spec.patches.
	spec int
}

// entriesOf returns the patches of a node: those of its file, and for the root those of the spec.
func (g *graph) entriesOf(n *node) []patchEntry {
	list := yamlposition.Child(n.doc, "patches")
	own := 0
	if list != nil {
		own = len(list.Content)
	}
	out := make([]patchEntry, 0, len(n.k.Patches))
	for i, p := range n.k.Patches {
		e := patchEntry{patch: p, spec: i - own}
		if i < own {
			e.item = list.Content[i]
		} else if n != g.root {
			continue
		}
		out = append(out, e)
	}
	return out
}

// locate sets the position of a problem of an entry: a field of the entry in its file, or in the spec.
func (g *graph) locate(n *node, e patchEntry, field string, p *validators.Problem) {
	if e.item == nil {
		p.Path = validators.NewPath("spec", "patches").Index(e.spec).Child(field)
		return
	}
	at := e.item
	if key, _ := yamlposition.Entry(yamlposition.Resolve(e.item), field); key != nil {
		at = key
	}
	p.Position = g.artifact.Position(n.file, at.Line, at.Column)
}

// ineffective reports what kustomize builds without an error, but not as it is meant: patches that select nothing,
// nulls that are lost, and tags that are read as numbers.
func (out *Output) ineffective() {
	g := out.graph
	if g.plugins || g.allowRemote || len(g.problems) > 0 {
		return
	}
	if len(out.Objects) == 0 && len(g.candidates(g.root, nil)) > 0 {
		p := &validators.Problem{Kind: validators.ProblemNothingLeft, Path: validators.NewPath("spec", "prune")}
		p.Message = "the Kustomization has resources and applies no object; prune: true deletes what it applied before"
		out.Problems = append(out.Problems, p)
	}
	for _, dir := range slices.Sorted(maps.Keys(g.nodes)) {
		n := g.nodes[dir]
		if n.k == nil {
			continue
		}
		g.numericTags(n, out)
		g.lostNulls(n, out)
		out.unmatchedImages(n)
		// A component is shared: what its patches do not find here, they find elsewhere. Files without an object are filled
		// in later, as those of flux bootstrap.
		if !n.component && !g.hasEmptyFile(n) {
			out.unmatched(n)
			out.unmatchedReplacements(n)
		}
	}
}

// hasEmptyFile reports whether a resource of the node is a file without any object.
func (g *graph) hasEmptyFile(n *node) bool {
	return slices.ContainsFunc(n.entries, func(e entry) bool { return e.node == nil && len(g.documents(e.file, nil)) == 0 })
}

// unmatched reports the patches of a node whose target names an object that is not among its resources.
func (out *Output) unmatched(n *node) {
	g := out.graph
	entries := slices.DeleteFunc(g.entriesOf(n), func(e patchEntry) bool {
		t := e.patch.Target
		return t == nil || changesIdentity(e.patch.Options) ||
			t.Name == "" && t.Kind == "" || !literalName.MatchString(t.Name+t.Kind)
	})
	if len(entries) == 0 {
		return
	}
	documents := g.candidatesWithIdentity(n)
	entries = slices.DeleteFunc(entries, func(e patchEntry) bool { return selectsAny(e.patch.Target, documents) })
	if len(entries) == 0 {
		return
	}
	before, err := out.untransformed(n)
	if err != nil {
		return
	}
	for _, e := range entries {
		selected, err := before.Select(*e.patch.Target)
		if err != nil || len(selected) > 0 {
			continue
		}
		reason := explainUnmatched(e.patch.Target, before)
		if e.patch.Target.Name == "" && reason == "" && (e.item == nil || deletes.MatchString(e.patch.Patch)) {
			continue // a patch for a kind, or a deletion, wherever there is one
		}
		p := &validators.Problem{Kind: validators.ProblemPatchUnmatched, Name: describeTarget(e.patch.Target)}
		p.Message = fmt.Sprintf("the patch for %s selects nothing", p.Name)
		if reason != "" {
			p.Message += ": " + reason
		}
		g.locate(n, e, "target", p)
		out.Problems = append(out.Problems, p)
	}
}

// unmatchedReplacements reports the targets of replacements in the file of a node that name an object that is not among its resources.
// kustomize compares the names and namespaces that an object has at any point of the build (api/filters/replacement).
func (out *Output) unmatchedReplacements(n *node) {
	list := yamlposition.Child(n.doc, "replacements")
	if list == nil || len(list.Content) != len(n.k.Replacements) {
		return
	}
	documents := append(out.graph.candidatesWithIdentity(n), out.identities()...)
	var before resmap.ResMap
	for i, field := range n.k.Replacements {
		for j, target := range field.Targets {
			t := target.Select
			if t == nil || t.Name == "" && t.Kind == "" || !literalName.MatchString(t.Name+t.Kind) || selectsAny(t, documents) {
				continue
			}
			if before == nil {
				var err error
				if before, err = out.untransformed(n); err != nil {
					return
				}
			}
			selected, err := before.Select(*t)
			reason := explainUnmatched(t, before)
			if err != nil || len(selected) > 0 {
				continue
			}
			p := &validators.Problem{Kind: validators.ProblemPatchUnmatched, Name: describeTarget(t)}
			p.Message = fmt.Sprintf("the replacement in %s selects nothing", p.Name)
			if reason != "" {
				p.Message += ": " + reason
			}
			at := list.Content[i]
			if targets := yamlposition.Child(at, "targets"); targets != nil && j < len(targets.Content) {
				at = targets.Content[j]
			}
			p.Position = out.graph.artifact.Position(n.file, at.Line, at.Column)
			out.Problems = append(out.Problems, p)
		}
	}
}

// identities returns the identities of the objects of the build.
func (out *Output) identities() []sourcetree.Identity {
	ids := make([]sourcetree.Identity, 0, len(out.Objects))
	for _, o := range out.Objects {
		u := unstructured.Unstructured{Object: o.Content}
		ids = append(ids, sourcetree.Identity{APIVersion: u.GetAPIVersion(), Kind: u.GetKind(), Namespace: u.GetNamespace(), Name: u.GetName()})
	}
	return ids
}

// changesIdentity reports whether a patch may rename what it selects.
func changesIdentity(o *kustypes.PatchArgs) bool {
	return o != nil && (o.AllowNameChange || o.AllowKindChange)
}

// candidatesWithIdentity returns the identities of the documents and generators of a node and those below it.
func (g *graph) candidatesWithIdentity(n *node) []sourcetree.Identity {
	var out []sourcetree.Identity
	for _, c := range g.candidates(n, nil) {
		if c.generated {
			version := "v1"
			out = append(out, sourcetree.Identity{APIVersion: version, Kind: c.kind, Name: c.name})
			continue
		}
		doc := g.artifact.File(c.file).Parse().Documents[c.doc]
		if c.item >= 0 {
			if items := yamlposition.Child(doc, "items"); items != nil && c.item < len(items.Content) {
				doc = items.Content[c.item]
			}
		}
		out = append(out, sourcetree.Identify(doc))
	}
	return out
}

// selectsAny reports whether the target selects one of the documents by kind, name and namespace. Labels are not
// compared.
func selectsAny(target *kustypes.Selector, documents []sourcetree.Identity) bool {
	sr, err := kustypes.NewSelectorRegex(target)
	if err != nil {
		return true // kustomize reports it
	}
	return slices.ContainsFunc(documents, func(id sourcetree.Identity) bool {
		gv, err := schema.ParseGroupVersion(id.APIVersion)
		namespace := id.Namespace
		if namespace == "" {
			namespace = resid.DefaultNamespace
		}
		return err == nil && sr.MatchGvk(resid.Gvk{Group: gv.Group, Version: gv.Version, Kind: id.Kind}) && sr.MatchName(id.Name) &&
			sr.MatchNamespace(namespace)
	})
}

// untransformed builds a node without what it does to its resources: what its patches select from.
func (out *Output) untransformed(n *node) (resmap.ResMap, error) {
	k := kustypes.Kustomization{
		TypeMeta: n.k.TypeMeta, Resources: n.k.Resources, Bases: n.k.Bases, Components: n.k.Components,
		ConfigMapGenerator: n.k.ConfigMapGenerator, SecretGenerator: n.k.SecretGenerator, GeneratorOptions: n.k.GeneratorOptions,
		OpenAPI: n.k.OpenAPI, Crds: n.k.Crds,
	}
	if len(k.Resources)+len(k.Bases)+len(k.Components)+len(k.ConfigMapGenerator)+len(k.SecretGenerator) == 0 {
		return resmap.New(), nil
	}
	stripped := *out.graph
	stripped.written = maps.Clone(out.graph.written)
	if stripped.written == nil {
		stripped.written = map[string][]byte{}
	}
	stripped.write(n.file, &k)
	return out.run(n.dir, stripped.written)
}

// explainUnmatched returns why the target selects nothing of what a build has; empty if there is no such reason.
func explainUnmatched(target *kustypes.Selector, built resmap.ResMap) string {
	var kinds, names, namespaces, versions, variables []string
	for _, r := range built.Resources() {
		kinds = append(kinds, r.GetKind())
		if target.Kind != "" && r.GetKind() != target.Kind {
			continue
		}
		if target.Kind != "" {
			names = append(names, r.GetName())
		}
		switch {
		case unresolved.HasVariable(r.GetName()) && variablesFit(r.GetName(), target.Name):
			variables = append(variables, r.GetName())
		case r.GetName() != target.Name:
		case target.Version != "" && r.GetGvk().Version != target.Version, target.Group != "" && r.GetGvk().Group != target.Group:
			versions = append(versions, r.GetApiVersion())
		case target.Namespace != "":
			namespaces = append(namespaces, r.GetNamespace())
		}
	}
	switch {
	case target.Kind != "" && !slices.Contains(kinds, target.Kind):
		if near := suggest.Nearest(target.Kind, sortedNames(kinds)); near != "" {
			return "there is no " + target.Kind + "; did you mean " + near + "?"
		}
	case len(versions) > 0:
		return "it is there as " + strings.Join(sortedNames(versions), ", ")
	case len(namespaces) > 0 && namespaces[0] == "":
		return "it has no namespace yet, since patches are applied before the namespace is set"
	case len(namespaces) > 0:
		return "it is in namespace " + strings.Join(sortedNames(namespaces), ", ")
	case len(variables) > 0:
		return "its name is " + strings.Join(sortedNames(variables), ", ") + " there, since patches are applied before variables are substituted"
	}
	if near := suggest.Nearest(target.Name, sortedNames(names)); near != "" {
		return "did you mean " + near + "?"
	}
	return ""
}

// variableExpression is a variable of Flux's post-build substitution.
var variableExpression = regexp.MustCompile(`\$\{[^{}]*\}`)

// variablesFit reports whether a name with variables can become the other one, with at least a character for each of them.
func variablesFit(name, other string) bool {
	parts := variableExpression.Split(name, -1)
	rest, ok := strings.CutPrefix(other, parts[0])
	if !ok || len(parts) == 1 {
		return ok && rest == ""
	}
	last := parts[len(parts)-1]
	for _, part := range parts[1 : len(parts)-1] {
		if rest == "" {
			return false
		}
		i := strings.Index(rest[1:], part)
		if i < 0 {
			return false
		}
		rest = rest[1+i+len(part):]
	}
	return len(rest) > len(last) && strings.HasSuffix(rest, last)
}

// sortedNames returns the names sorted, each once.
func sortedNames(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

// describeTarget returns "Kind namespace/name" as far as the target has them.
func describeTarget(t *kustypes.Selector) string {
	kind := t.Kind
	if kind == "" {
		kind = "objects"
	}
	return strings.TrimSpace(kind + " " + objectName(t.Namespace, t.Name))
}

// documentsOf returns the documents of a patch, and the function that returns the position of a node in them. It returns
// nil if the patch cannot be read.
func (g *graph) documentsOf(n *node, e patchEntry) ([]*yaml.Node, func(*yaml.Node, *validators.Problem)) {
	a := g.artifact
	if e.patch.Path != "" {
		f := a.File(sourcetree.Rel(path.Join(n.dir, e.patch.Path)))
		if f == nil {
			return nil, nil
		}
		return f.Parse().Documents, func(at *yaml.Node, p *validators.Problem) { p.Position = f.Position(at.Line, at.Column) }
	}
	docs := a.ParseText(n.file, e.patch.Patch).Documents
	return docs, func(at *yaml.Node, p *validators.Problem) {
		inline := yamlposition.Child(e.item, "patch")
		if e.item == nil || inline == nil {
			g.locate(n, e, "patch", p)
			return
		}
		p.Position = a.PositionInText(n.file, inline, yamlposition.Of(at))
	}
}

// lostNulls reports nulls in the values of a HelmRelease in a strategic merge patch: kustomize removes the field then,
// and a field that is not there cannot be removed. Helm would remove the chart's default for a null.
func (g *graph) lostNulls(n *node, out *Output) {
	for _, e := range g.entriesOf(n) {
		if !strings.Contains(e.patch.Patch, "null") && !strings.Contains(e.patch.Patch, "~") && e.patch.Path == "" {
			continue
		}
		docs, locate := g.documentsOf(n, e)
		for _, doc := range docs {
			kind := sourcetree.Identify(doc).Kind
			if e.patch.Target != nil && e.patch.Target.Kind != "" {
				kind = e.patch.Target.Kind
			}
			values := yamlposition.Child(doc, "spec", "values")
			if kind != "HelmRelease" || values == nil {
				continue
			}
			at := validators.NewPath("spec", "values")
			eachNull(values, at, func(null *yaml.Node, field validators.Path) {
				if g.sets(n, sourcetree.Identify(doc).Name, e.patch.Target, field) {
					return
				}
				p := &validators.Problem{Kind: validators.ProblemNullInPatch, Name: field.String()}
				p.Message = fmt.Sprintf("the null at %s is lost: in a strategic merge patch it removes the field, and the chart's default stays", field)
				locate(null, p)
				out.Problems = append(out.Problems, p)
			})
		}
	}
}

func eachNull(n *yaml.Node, at validators.Path, found func(*yaml.Node, validators.Path)) {
	n = yamlposition.Resolve(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if value.Kind == yaml.ScalarNode && value.Tag == "!!null" {
			found(key, at.Child(key.Value))
			continue
		}
		eachNull(value, at.Child(key.Value), found)
	}
}

// sets reports whether a HelmRelease of the node's files, or a patch below the node, sets a field that a patch removes.
func (g *graph) sets(n *node, name string, target *kustypes.Selector, field validators.Path) bool {
	inDocument := func(doc *yaml.Node) bool {
		if sourcetree.Identify(doc).Kind != "HelmRelease" {
			return false
		}
		_, _, found := yamlposition.Match(doc, nil, field)
		return found
	}
	for _, c := range g.candidates(n, nil) {
		if c.generated || c.item >= 0 || c.kind != "HelmRelease" || target == nil && c.name != name {
			continue
		}
		if inDocument(g.artifact.File(c.file).Parse().Documents[c.doc]) {
			return true
		}
	}
	for _, other := range g.nodes {
		if other == n || other.k == nil {
			continue
		}
		for _, e := range g.entriesOf(other) {
			docs, _ := g.documentsOf(other, e)
			if slices.ContainsFunc(docs, inDocument) {
				return true
			}
		}
	}
	return false
}

// numericTags reports tags of images that YAML reads as numbers and kustomize writes otherwise.
func (g *graph) numericTags(n *node, out *Output) {
	list := yamlposition.Child(n.doc, "images")
	if list == nil || list.Kind != yaml.SequenceNode {
		return
	}
	for i, item := range list.Content {
		tag := yamlposition.Child(item, "newTag")
		if i >= len(n.k.Images) || tag == nil || tag.Kind != yaml.ScalarNode || tag.Style != 0 || n.k.Images[i].NewTag == tag.Value {
			continue
		}
		p := &validators.Problem{Kind: validators.ProblemTagNumber, Name: tag.Value}
		p.Message = fmt.Sprintf("newTag %s is read as a number: kustomize writes %s:%s", tag.Value, n.k.Images[i].Name, n.k.Images[i].NewTag)
		p.Position = g.artifact.Position(n.file, tag.Line, tag.Column)
		out.Problems = append(out.Problems, p)
	}
}

// explainPatch completes the problem of a strategic merge patch without a target, which kustomize finds no object for:
// its position, and what there is instead. kustomize compares group, version, kind, name and namespace.
func (g *graph) explainPatch(p *validators.Problem, kind, namespace, name string) {
	var want sourcetree.Identity
	g.eachPatch(func(n *node, e patchEntry) bool {
		docs, locate := g.documentsOf(n, e)
		for _, doc := range docs {
			id := sourcetree.Identify(doc)
			if e.patch.Target != nil || id.Kind != kind || id.Name != name || namespace != "" && id.Namespace != namespace {
				continue
			}
			want = id
			locate(yamlposition.Root(doc), p)
		}
		return false
	})
	var found []string
	for _, file := range g.resourceFiles() {
		for _, doc := range g.artifact.File(file).Parse().Documents {
			id := sourcetree.Identify(doc)
			switch {
			case id.Kind != kind || id.Name != name:
			case want.APIVersion != "" && id.APIVersion != want.APIVersion:
				found = append(found, "it is there as "+id.APIVersion+", and the patch is for "+want.APIVersion)
			case id.Namespace != namespace && id.Namespace != "":
				found = append(found, "it is there in namespace "+id.Namespace)
			case id.Namespace != namespace:
				found = append(found, "it is there without a namespace")
			}
		}
	}
	if len(found) > 0 {
		p.Message += ": " + strings.Join(sortedNames(found), "; ")
	}
}
