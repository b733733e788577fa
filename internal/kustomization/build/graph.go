package build

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	kustypes "sigs.k8s.io/kustomize/api/types"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

// parsedKustomization is a file that was read as a kustomization, strictly, as kustomize does.
type parsedKustomization struct {
	k   *kustypes.Kustomization
	err error
}

func parseKustomization(f *sourcetree.File) (out *parsedKustomization) {
	out = &parsedKustomization{}
	data, err := f.Content()
	if err != nil {
		out.err = err
		return out
	}
	defer func() {
		if r := recover(); r != nil {
			out.err = fmt.Errorf("%s while parsing: %v", Recovered, r)
		}
	}()
	k := &kustypes.Kustomization{}
	out.err = k.Unmarshal(data)
	out.k = k
	return out
}

// node is one kustomization file that takes part in a build.
type node struct {
	dir, file string
	doc       *yaml.Node // the file as it is in the artifact; nil when Flux generates it
	k         *kustypes.Kustomization
	parents   []*node
	children  []*node // resources that are directories, then components, in their order
	component bool
	files     map[string]bool // resource files that this very file lists
	entries   []entry         // resources, then components, in kustomize's order
}

// entry is one resource or component of a node: a file, or another node.
type entry struct {
	file string
	node *node
}

// graph has all kustomization files of a build, found before kustomize runs: it keeps kustomize from fetching remote
// addresses, finds the line that lists a missing file, and knows which kustomization can have changed which object.
type graph struct {
	builder  *Builder
	artifact *sourcetree.Artifact
	root     *node
	top      *kustypes.Kustomization // the root's file as kustomize reads it
	nodes    map[string]*node        // by directory
	written  map[string][]byte       // files that kustomize reads in place of those of the artifact
	problems []*validators.Problem

	allowRemote bool
	// openapi means that some kustomization replaces kustomize's schemas, which are global to the process.
	openapi bool
	// plugins means that there are generators or transformers that are not fields of a kustomization; their results
	// cannot be predicted.
	plugins bool
	// blocked means that there is no build, because a remote address cannot be left out.
	blocked bool
}

// newGraph follows the generated kustomization through the artifact.
func (b *Builder) newGraph(a *sourcetree.Artifact, dir string, from *generated) *graph {
	g := &graph{builder: b, artifact: a, nodes: map[string]*node{}, written: map[string][]byte{}, allowRemote: b.allowRemote}
	g.root = &node{dir: dir, file: from.file, k: from.k, files: map[string]bool{}}
	if from.inTree {
		g.root.doc = a.File(from.file).Parse().First()
	}
	g.nodes[dir] = g.root
	// What kustomize reads may differ from the file: entries are left out.
	k := copyLists(from.k)
	g.follow(g.root, k)
	g.top = k
	g.write(from.file, k)
	return g
}

// copyLists copies a kustomization with the lists that follow changes.
func copyLists(from *kustypes.Kustomization) *kustypes.Kustomization {
	k := *from
	k.Resources, k.Components, k.Bases = slices.Clone(k.Resources), slices.Clone(k.Components), slices.Clone(k.Bases)
	k.ConfigMapGenerator, k.SecretGenerator = slices.Clone(k.ConfigMapGenerator), slices.Clone(k.SecretGenerator)
	return &k
}

// write makes kustomize read k in place of the file at a path.
func (g *graph) write(p string, k *kustypes.Kustomization) {
	data, err := json.Marshal(k) // JSON is YAML, and faster to write
	if err != nil {
		problem := buildFailed(g.artifact.Position(p, 0, 0), "the kustomization cannot be written as JSON")
		problem.Detail = err.Error()
		g.report(problem)
		return
	}
	g.written[p] = data
}

func (g *graph) report(p *validators.Problem) { g.problems = append(g.problems, p) }

// follow adds what the kustomization k of a node refers to, and removes from k the entries that kustomize cannot build.
// It reports whether it has replaced files of generators.
func (g *graph) follow(n *node, k *kustypes.Kustomization) (replaced bool) {
	if len(k.OpenAPI) > 0 {
		g.openapi = true
	}
	g.screen(n, k)
	for i := range k.ConfigMapGenerator {
		args := &k.ConfigMapGenerator[i].GeneratorArgs
		replaced = g.replaceFiles(n, "ConfigMap", args) || replaced
	}
	for i := range k.SecretGenerator {
		args := &k.SecretGenerator[i].GeneratorArgs
		replaced = g.replaceFiles(n, "Secret", args) || replaced
	}
	k.Resources = g.buildable(n, "resources", k.Resources, false)
	k.Bases = g.buildable(n, "bases", k.Bases, false)
	k.Components = g.buildable(n, "components", k.Components, true)
	if len(k.Resources)+len(k.Bases)+len(k.Components) == 0 && len(k.BuildMetadata) == 0 {
		k.BuildMetadata = []string{kustypes.OriginAnnotations} // kustomize refuses an empty file; this field has no effect in an included one
	}
	return replaced
}

// buildable returns the entries of a list that kustomize can build.
func (g *graph) buildable(n *node, field string, list []string, components bool) []string {
	out := list[:0]
	for i, text := range list {
		if g.add(n, field, i, text, components) {
			out = append(out, text)
		}
	}
	return out
}

// add adds the entry of a list to the graph, and reports whether kustomize can build it.
func (g *graph) add(n *node, field string, index int, text string, component bool) bool {
	at := g.entryPosition(n, field, index, text)
	if isRemote(text) {
		if g.allowRemote {
			return true
		}
		address := redactURL(text)
		g.report(remoteBase(at, address, fmt.Sprintf("the remote resource %s was not evaluated; --allow-remote-bases fetches it", address)))
		return false
	}
	p := path.Join(n.dir, text)
	if path.IsAbs(text) {
		p = sourcetree.Rel(text)
	}
	if f := g.artifact.File(p); f != nil && !component {
		n.files[p] = true
		if !g.repair(p, f) {
			return false
		}
		n.entries = append(n.entries, entry{file: p})
		return true
	}
	if !g.artifact.IsDir(p) {
		problem := buildFailed(at, "the build fails: %s lists %s, but %s", path.Base(n.file), text, g.artifact.ExplainMissing(p))
		problem.Fix = listedFix
		problem.Name, problem.Suggestion = text, g.suggestion(n.dir, p)
		g.report(problem)
		return false
	}
	file := File(g.artifact, p)
	if file == "" {
		problem := buildFailed(at, "the build fails: %s lists the directory %s, which has no kustomization.yaml", path.Base(n.file), p)
		problem.Fix = "Add a kustomization.yaml to the directory, list its files one by one, or remove the entry."
		problem.Name = text
		g.report(problem)
		return false
	}
	if known := g.nodes[p]; known != nil {
		if known.k == nil {
			return false // reported where it is listed first
		}
		known.parents = append(known.parents, n)
		n.children = append(n.children, known)
		n.entries = append(n.entries, entry{node: known})
		return true
	}
	return g.addNode(n, &node{dir: p, file: file, parents: []*node{n}, component: component, files: map[string]bool{}}, at)
}

// addNode adds a node that the parent lists at a position, and reports whether kustomize can build it.
func (g *graph) addNode(parent, n *node, at validators.Position) bool {
	f := g.artifact.File(n.file)
	parsed := g.builder.kustomizations.get(f, parseKustomization)
	if parsed.err != nil {
		problem := parseFailure(g.artifact, n.file, parsed.err)
		problem.Related = append(slices.Clone(problem.Related), at)
		g.report(problem)
		return false
	}
	n.doc = f.Parse().First()
	parent.children = append(parent.children, n)
	g.nodes[n.dir] = n
	if err := parsed.k.CheckEmpty(); err != nil {
		problem := buildFailed(f.Position(0, 0), "the build fails: the kustomization.yaml is empty")
		problem.Related, problem.Fix = []validators.Position{at}, emptyFix
		g.report(problem)
		return false
	}
	own := *parsed.k
	n.k = &own
	k := copyLists(parsed.k)
	before := len(k.Resources) + len(k.Components) + len(k.Bases)
	if replaced := g.follow(n, k); replaced || len(k.Resources)+len(k.Components)+len(k.Bases) != before {
		g.write(n.file, k)
	}
	parent.entries = append(parent.entries, entry{node: n})
	return true
}

// entryPosition returns the position of a list's entry; zero when it is in no file, but generated by Flux or in the
// spec of the Flux Kustomization.
func (g *graph) entryPosition(n *node, field string, index int, text string) validators.Position {
	if list := yamlposition.Child(n.doc, field); list != nil && list.Kind == yaml.SequenceNode {
		if index < len(list.Content) && list.Content[index].Value == text {
			return g.artifact.Position(n.file, list.Content[index].Line, list.Content[index].Column)
		}
		for _, item := range list.Content {
			if item.Value == text {
				return g.artifact.Position(n.file, item.Line, item.Column)
			}
		}
	}
	if n.doc == nil {
		return validators.Position{}
	}
	return g.artifact.Position(n.file, 0, 0)
}

// suggestion returns a file or directory with a similar path near a missing one.
func (g *graph) suggestion(dir, missing string) string {
	var existing []string
	for _, d := range []string{path.Dir(missing), dir, path.Dir(path.Dir(missing))} {
		names, _ := g.artifact.ReadDir(d)
		for _, name := range names {
			existing = append(existing, path.Join(d, name))
		}
	}
	return suggest.NearestPath(missing, existing)
}

// chain returns the nodes between a file and the root, innermost first: those that can have changed an object of the
// file. The components of a node change what its resources build, so they come before it.
func (g *graph) chain(file string) []*node {
	var first []*node
	for _, n := range g.nodes {
		if n.files[file] || n.file == file {
			first = append(first, n)
		}
	}
	slices.SortFunc(first, func(a, b *node) int { return strings.Compare(a.dir, b.dir) })
	var out []*node
	seen := map[*node]bool{}
	var components, up func(n *node)
	components = func(n *node) {
		for _, c := range n.children {
			if c.component && !seen[c] && c.k != nil {
				components(c)
				if !seen[c] {
					seen[c] = true
					out = append(out, c)
				}
			}
		}
	}
	up = func(n *node) {
		if seen[n] || n.k == nil {
			return
		}
		components(n)
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
		for _, p := range n.parents {
			up(p)
		}
	}
	for _, n := range first {
		up(n)
	}
	return out
}
