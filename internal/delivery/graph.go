package delivery

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/validators/flux"
)

// node is an object in the graph.
type node struct {
	ref Ref
	// object is nil if the object is missing or was not read.
	object *unstructured.Unstructured
	finding
	edges []edge
	// expanded is set when the edges are known.
	expanded bool
	notes    []string
	// hung is set by what waited for the node longer than its timeout.
	hung string
	// own is set if the node has a mistake of its own, whatever it waits for.
	own bool
	// refused is set if a new version of the object could not be applied.
	refused    bool
	finalizers []Finalizer
}

// edge leads to what a node waits for.
type edge struct {
	to       *node
	kind     EdgeType
	evidence string
}

// graph has the nodes and what is found by something other than the name.
type graph struct {
	in    *Input
	nodes map[Ref]*node
	// byName finds the objects that a message names without their group.
	byName map[kindName][]*node
	// appliedBy are the Flux objects with the object in their inventory, sorted.
	appliedBy map[Ref][]*node
	// owned are the objects of which the object is the controller.
	owned map[Ref][]*node
	// definitions are the CRDs by kind, instances the objects by kind.
	definitions map[schema.GroupKind]*node
	instances   map[schema.GroupKind][]*node
	inNamespace map[string][]*node
	// webhooks are the configurations by the names of their webhooks.
	webhooks map[string][]*node
	// producers are the objects that make a Secret.
	producers map[Ref][]*node
	// kinds are the known kinds by their names.
	kinds map[string][]schema.GroupKind
	queue []*node
	// looked are the objects that were looked up with Input.Get: true for those that do not exist.
	looked map[Ref]bool
	// whole are the objects that were read with Input.Inventory.
	whole map[Ref]*unstructured.Unstructured
}

type kindName struct{ kind, namespace, name string }

func newGraph(in *Input) *graph {
	g := &graph{
		in: in, nodes: make(map[Ref]*node, len(in.Objects)), byName: make(map[kindName][]*node, len(in.Objects)),
		appliedBy: map[Ref][]*node{}, owned: map[Ref][]*node{},
		definitions: map[schema.GroupKind]*node{}, instances: map[schema.GroupKind][]*node{}, inNamespace: map[string][]*node{},
		webhooks: map[string][]*node{}, producers: map[Ref][]*node{},
		looked: map[Ref]bool{}, whole: map[Ref]*unstructured.Unstructured{},
	}
	for _, o := range in.Objects {
		ref := RefOf(o)
		if ref.Kind == "" || ref.Name == "" || g.nodes[ref] != nil {
			continue
		}
		g.nodes[ref] = &node{ref: ref, object: o}
	}
	for _, n := range g.sorted() {
		g.index(n)
	}
	return g
}

// sorted returns the nodes in the order of their references.
func (g *graph) sorted() []*node {
	out := make([]*node, 0, len(g.nodes))
	for _, n := range g.nodes {
		out = append(out, n)
	}
	slices.SortFunc(out, compareNodes)
	return out
}

func compareNodes(a, b *node) int { return a.ref.Compare(b.ref) }

func (g *graph) index(n *node) {
	o, gk := n.object, n.ref.GroupKind()
	name := kindName{n.ref.Kind, n.ref.Namespace, n.ref.Name}
	g.byName[name] = append(g.byName[name], n)
	g.instances[gk] = append(g.instances[gk], n)
	if n.ref.Namespace != "" {
		g.inNamespace[n.ref.Namespace] = append(g.inNamespace[n.ref.Namespace], n)
	}
	for _, owner := range listAt(o.Object, "metadata", "ownerReferences") {
		if m, _ := owner.(map[string]any); boolAt(m, "controller") {
			ref := Ref{Group: groupOf(stringAt(m, "apiVersion")), Kind: stringAt(m, "kind"), Namespace: n.ref.Namespace, Name: stringAt(m, "name")}
			g.owned[ref] = append(g.owned[ref], n)
		}
	}
	switch gk {
	case flux.Kustomization, flux.HelmRelease:
		for ref := range inventory(o) {
			g.appliedBy[ref] = append(g.appliedBy[ref], n)
		}
	case crdKind:
		g.definitions[definedKind(o)] = n
	case validatingKind, mutatingKind:
		for _, w := range listAt(o.Object, "webhooks") {
			m, _ := w.(map[string]any)
			g.webhooks[stringAt(m, "name")] = append(g.webhooks[stringAt(m, "name")], n)
		}
	default:
		for _, secret := range produced(gk, o) {
			ref := to(secretKind, n.ref.Namespace, secret)
			g.producers[ref] = append(g.producers[ref], n)
		}
	}
}

// inventory yields the objects that a Kustomization or a HelmRelease has applied.
func inventory(o *unstructured.Unstructured) func(yield func(Ref) bool) {
	return func(yield func(Ref) bool) {
		for _, entry := range listAt(o.Object, "status", "inventory", "entries") {
			m, _ := entry.(map[string]any)
			if ref, ok := refOfID(stringAt(m, "id")); ok && !yield(ref) {
				return
			}
		}
	}
}

// InventoryKinds returns the kinds of the objects that Kustomizations and HelmReleases have applied, sorted.
func InventoryKinds(objects []*unstructured.Unstructured) []schema.GroupKind {
	seen := map[schema.GroupKind]bool{}
	var out []schema.GroupKind
	for _, o := range objects {
		if gk := RefOf(o).GroupKind(); gk != flux.Kustomization && gk != flux.HelmRelease {
			continue
		}
		for ref := range inventory(o) {
			if gk := ref.GroupKind(); !seen[gk] {
				seen[gk] = true
				out = append(out, gk)
			}
		}
	}
	slices.SortFunc(out, compareKinds)
	return out
}

// produced returns the names of the Secrets that an object makes, in its namespace.
func produced(gk schema.GroupKind, o *unstructured.Unstructured) []string {
	switch gk {
	case externalSecretKind:
		return []string{cmp.Or(stringAt(o.Object, "spec", "target", "name"), o.GetName())}
	case sealedSecretKind:
		return []string{cmp.Or(stringAt(o.Object, "spec", "template", "metadata", "name"), o.GetName())}
	case certificateKind:
		return []string{stringAt(o.Object, "spec", "secretName")}
	case cnpgClusterKind:
		name := o.GetName()
		return []string{name + "-app", name + "-superuser", name + "-ca", name + "-server", name + "-replication"}
	}
	return nil
}

// complete reports whether an object of the kind that is not in the graph does not exist.
func (g *graph) complete(gk schema.GroupKind) bool { return g.in.Complete != nil && g.in.Complete(gk) }

// doesNotExist reports whether an object that is not in the graph is known to not exist.
func (g *graph) doesNotExist(ref Ref) bool { return g.complete(ref.GroupKind()) || g.looked[ref] }

// existing returns the node of an object that was read; nil if it was not. It looks the object up if that is possible.
func (g *graph) existing(ref Ref) *node {
	n := g.nodes[ref]
	if n != nil && n.object != nil {
		return n
	}
	if g.in.Get == nil || ref.Kind == "" || ref.Name == "" || g.complete(ref.GroupKind()) {
		return nil
	}
	if _, looked := g.looked[ref]; looked {
		return nil
	}
	o, known := g.in.Get(ref)
	g.looked[ref] = known && o == nil
	if o == nil {
		return nil
	}
	if n == nil {
		n = &node{ref: ref}
		g.nodes[ref] = n
	}
	n.object, n.finding = o, stateOf(o)
	g.index(n)
	return n
}

// inventory yields the objects that a Kustomization or a HelmRelease has applied. It reads the whole object if that is
// possible.
func (g *graph) inventory(n *node) func(yield func(Ref) bool) {
	if g.in.Inventory == nil || at(n.object.Object, "status", "inventory") != nil {
		return inventory(n.object)
	}
	if _, read := g.whole[n.ref]; !read {
		g.whole[n.ref] = g.in.Inventory(n.ref)
	}
	if o := g.whole[n.ref]; o != nil {
		return inventory(o)
	}
	return inventory(n.object)
}

// absent returns the node of an object that is not among those that were read. Without evidence that it does not exist
// it is unknown.
func (g *graph) absent(ref Ref, evidence string) *node {
	n := g.nodes[ref]
	if n == nil {
		n = &node{ref: ref, finding: finding{state: Unknown, cause: CauseNotRead, evidence: "not among the objects that were read"}}
		g.nodes[ref] = n
	}
	if n.object == nil && n.state != Missing && (evidence != "" || g.doesNotExist(ref)) {
		n.state, n.cause, n.evidence = Missing, CauseNotFound, cmp.Or(evidence, g.notAmong(ref))
		if n.expanded {
			n.expanded = false
			g.queue = append(g.queue, n)
		}
	}
	return n
}

// notAmong returns the evidence that an object does not exist.
func (g *graph) notAmong(ref Ref) string {
	if g.looked[ref] {
		return "the API server has no such object"
	}
	return "all objects of this kind were read, and it is not among them"
}

// get returns the node of an object, with its state.
func (g *graph) get(ref Ref, missing string) *node {
	n := g.existing(ref)
	if n == nil {
		n = g.absent(ref, missing)
	} else if n.state == "" {
		n.finding = stateOf(n.object)
	}
	return n
}

// wait has a node wait for another.
func (g *graph) wait(from, on *node, kind EdgeType, evidence string) {
	if from == on && kind != DependsOn {
		return
	}
	for _, e := range from.edges {
		if e.to == on {
			return
		}
	}
	from.edges = append(from.edges, edge{on, kind, evidence})
	if !on.expanded {
		g.queue = append(g.queue, on)
	}
}

// mentioned returns the node of an object that a message of another one names: the only one of that kind and name, or
// the one that the other has applied. nil if it cannot be determined.
func (g *graph) mentioned(by *node, m mention, missing string) *node {
	if m.anyNamespace {
		m.namespace = by.ref.Namespace
		if slices.Contains(clusterScoped, schema.GroupKind{Group: m.group, Kind: m.kind}) {
			m.namespace = ""
		}
	}
	if m.groupKnown {
		return g.get(Ref{Group: m.group, Kind: m.kind, Namespace: m.namespace, Name: m.name}, missing)
	}
	candidates := g.byName[kindName{m.kind, m.namespace, m.name}]
	if len(candidates) == 1 {
		return g.get(candidates[0].ref, missing)
	}
	var out []Ref
	for ref := range g.inventory(by) {
		if ref.Kind == m.kind && ref.Namespace == m.namespace && ref.Name == m.name {
			out = append(out, ref)
		}
	}
	for _, check := range healthChecks(by) {
		if check.Kind == m.kind && check.Namespace == m.namespace && check.Name == m.name && !slices.Contains(out, check) {
			out = append(out, check)
		}
	}
	if len(out) == 0 && len(candidates) == 0 {
		if gk, ok := g.kindNamed(m.kind); ok {
			out = append(out, Ref{Group: gk.Group, Kind: gk.Kind, Namespace: m.namespace, Name: m.name})
		}
	}
	if len(out) != 1 {
		return nil
	}
	return g.get(out[0], missing)
}

// kindNamed returns the only known kind of a name. A Cluster, for example, may be one of several kinds.
func (g *graph) kindNamed(kind string) (schema.GroupKind, bool) {
	if g.kinds == nil {
		g.kinds = map[string][]schema.GroupKind{}
		add := func(gk schema.GroupKind) {
			if !slices.Contains(g.kinds[gk.Kind], gk) {
				g.kinds[gk.Kind] = append(g.kinds[gk.Kind], gk)
			}
		}
		for _, gk := range Kinds() {
			add(gk)
		}
		for gk := range g.definitions {
			add(gk)
		}
		for gk := range g.instances {
			add(gk)
		}
	}
	if found := g.kinds[kind]; len(found) == 1 {
		return found[0], true
	}
	return schema.GroupKind{}, false
}

// definition returns the node of the CRD that serves a kind; nil if it was not read.
func (g *graph) definition(gk schema.GroupKind) *node {
	if g.definitions[gk] == nil {
		g.existing(definitionRef(gk)) // so that it is among the definitions
	}
	return g.definitions[gk]
}

// definitionRef returns the usual name of the CRD of a kind.
func definitionRef(gk schema.GroupKind) Ref {
	plural, _ := meta.UnsafeGuessKindToResource(gk.WithVersion("v1"))
	return to(crdKind, "", plural.Resource+"."+gk.Group)
}

// missingDefinition returns the node of the CRD of a kind that is not served.
func (g *graph) missingDefinition(gk schema.GroupKind, missing string) *node {
	n := g.absent(definitionRef(gk), missing)
	if n.state == Missing {
		n.cause = CauseKindMissing
	}
	return n
}

// healthChecks returns the entries of spec.healthChecks.
func healthChecks(n *node) []Ref {
	if n.object == nil {
		return nil
	}
	var out []Ref
	for _, item := range listAt(n.object.Object, "spec", "healthChecks") {
		m, _ := item.(map[string]any)
		out = append(out, Ref{Group: groupOf(stringAt(m, "apiVersion")), Kind: stringAt(m, "kind"), Namespace: stringAt(m, "namespace"), Name: stringAt(m, "name")})
	}
	return out
}

// definedKind returns the kind that a CRD defines.
func definedKind(crd *unstructured.Unstructured) schema.GroupKind {
	return schema.GroupKind{Group: stringAt(crd.Object, "spec", "group"), Kind: stringAt(crd.Object, "spec", "names", "kind")}
}

// TerminatingKinds returns the kinds of the CRDs that are deleted, whose instances keep them, sorted.
func TerminatingKinds(objects []*unstructured.Unstructured) []schema.GroupKind {
	var out []schema.GroupKind
	for _, o := range objects {
		if RefOf(o).GroupKind() == crdKind && o.GetDeletionTimestamp() != nil {
			out = append(out, definedKind(o))
		}
	}
	slices.SortFunc(out, compareKinds)
	return out
}
