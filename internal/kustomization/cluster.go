package kustomization

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/kustomization/entrypoint"
	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// maxBuilds is how often one Kustomization is built at most. It is built again when what it depends on is found
// later: the ConfigMap of another Kustomization, or its own definition with a patch.
const maxBuilds = 4

// clusterBuilder builds the Kustomizations of one cluster, and schedules those that are found on the way.
type clusterBuilder struct {
	*treeBuilder
	// entry is the first of roots, the entry points of the cluster.
	entry   *entrypoint.EntryPoint
	roots   []*entrypoint.EntryPoint
	known   map[types.NamespacedName]*Kustomization
	order   []*Kustomization
	pending []*Kustomization
	// objects are the ConfigMaps, Secrets and sources that have been built: variables and sources are looked up in
	// them.
	objects map[validators.ObjectRef]*Object
	// generators are the ArtifactGenerators that have been built.
	generators map[validators.ObjectRef]*Object
	// created are the objects that the entry point creates, the root Kustomization first.
	created []*Object
	// reported are the unknown sources that were reported.
	reported map[validators.ObjectRef]bool
}

func newClusterBuilder(b *treeBuilder, roots []*entrypoint.EntryPoint) *clusterBuilder {
	return &clusterBuilder{
		treeBuilder: b, entry: roots[0], roots: roots, generators: map[validators.ObjectRef]*Object{},
		known: map[types.NamespacedName]*Kustomization{}, objects: map[validators.ObjectRef]*Object{}, reported: map[validators.ObjectRef]bool{},
	}
}

func (b *treeBuilder) buildCluster(ctx context.Context, roots []*entrypoint.EntryPoint) (*Cluster, error) {
	c := newClusterBuilder(b, roots)
	for _, e := range roots {
		var root *Kustomization
		for i, o := range e.Objects {
			created := newEntryObject(b.tree.Artifact(""), e.Kind, o)
			c.created = append(c.created, created)
			if c.objects[refOf(created)] == nil {
				c.objects[refOf(created)] = created
			}
			if i == 0 {
				root = c.addRoot(created)
			}
		}
		root.root = e
	}
	for {
		if err := c.run(ctx); err != nil {
			return nil, fmt.Errorf("building %s: %w", c.entry.Path, err)
		}
		c.buildResourceSets()
		if !c.planOutdated() {
			break
		}
	}
	return c.finish(), nil
}

func refOf(o *Object) validators.ObjectRef {
	gvk := o.GroupVersionKind()
	return validators.ObjectRef{Group: gvk.Group, Kind: gvk.Kind, Namespace: o.GetNamespace(), Name: o.GetName()}
}

func compareRefs(a, b validators.ObjectRef) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// add adds the Kustomization of an object to the graph and plans to build it.
func (c *clusterBuilder) add(o *Object) *Kustomization {
	k := &Kustomization{Key: types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}, Object: o}
	c.known[k.Key] = k
	c.order = append(c.order, k)
	c.pending = append(c.pending, k)
	c.treeBuilder.known.Add(1)
	return k
}

// progress reports that a Kustomization is built. One that is built again was counted before.
func (c *clusterBuilder) progress(k *Kustomization) {
	if c.opts.Progress != nil && k.builds == 1 {
		c.opts.Progress(int(c.built.Add(1)), int(c.treeBuilder.known.Load()))
	}
}

// addRoot adds the Kustomization of an entry point. Two entry points may define the same one: the first counts.
func (c *clusterBuilder) addRoot(o *Object) *Kustomization {
	if k := c.known[types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}]; k != nil {
		return k
	}
	return c.add(o)
}

func (c *clusterBuilder) plan(k *Kustomization) {
	if !slices.Contains(c.pending, k) {
		c.pending = append(c.pending, k)
	}
}

// run builds what is planned, in waves: first the Kustomizations whose variables are all built, and when there are
// none of these, the others.
func (c *clusterBuilder) run(ctx context.Context) error {
	for len(c.pending) > 0 {
		var now, later []*Kustomization
		for _, k := range c.pending {
			if c.ready(k) {
				now = append(now, k)
			} else {
				later = append(later, k)
			}
		}
		if len(now) == 0 {
			now, later = later, nil
		}
		c.pending = later
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(c.opts.Workers)
		for _, k := range now {
			g.Go(func() error {
				if err := gctx.Err(); err != nil {
					return err
				}
				c.build(k)
				c.progress(k)
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		for _, k := range now {
			c.merge(k)
		}
	}
	return nil
}

// ready reports whether all objects that the Kustomization substitutes from are built. It reads the spec.
func (c *clusterBuilder) ready(k *Kustomization) bool {
	if k.readSpec() != nil || k.Spec.PostBuild == nil {
		return true
	}
	for _, ref := range k.Spec.PostBuild.SubstituteFrom {
		if c.objects[variablesRef(k, ref.Kind, ref.Name)] == nil {
			return false
		}
	}
	return true
}

// merge adds what a Kustomization builds to the cluster: objects to look up, and further Kustomizations.
func (c *clusterBuilder) merge(k *Kustomization) {
	if k.output != nil {
		for p := range k.output.Read {
			c.read[k.artifact.File(p)] = true
		}
	}
	k.Children = nil
	c.register(k, k.Objects)
}

// register adds objects of a Kustomization to what is looked up, and its Kustomizations to the graph.
func (c *clusterBuilder) register(k *Kustomization, objects []*Object) {
	for _, o := range objects {
		gvk := o.GroupVersionKind()
		if c.opts.Mutate != nil && strings.HasSuffix(gvk.Group, fluxGroups) {
			if mutated := c.opts.Mutate(c.entry.Path, o.Unstructured); mutated != nil {
				o.Unstructured = mutated
			}
		}
		switch {
		case gvk.Group == "" && (gvk.Kind == "ConfigMap" || gvk.Kind == "Secret"), gvk.Group == flux.GitRepository.Group:
			c.objects[refOf(o)] = o
		case gvk.GroupKind() == artifactGenerator:
			c.generators[refOf(o)] = o
		case gvk.GroupKind() == flux.Kustomization && !k.RemoteCluster():
			c.addChild(k, o)
		}
	}
}

func (c *clusterBuilder) addChild(parent *Kustomization, o *Object) {
	key := types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
	child := c.known[key]
	if child == nil {
		child = c.add(o)
	} else if child.Object.Kustomization == parent || child.Object.Kustomization == nil {
		// The last definition counts: a Kustomization may apply the entry point's own one again, with patches.
		changed := !reflect.DeepEqual(child.Object.Object["spec"], o.Object["spec"])
		child.Object = o
		if changed && child.builds < maxBuilds {
			c.plan(child)
		}
	}
	if !slices.Contains(parent.Children, child) {
		parent.Children = append(parent.Children, child)
	}
}

// planOutdated plans to build the Kustomizations again whose source or variables have been found since. It reports
// whether there are any.
func (c *clusterBuilder) planOutdated() bool {
	for _, k := range c.order {
		if k.builds == 0 || k.builds >= maxBuilds {
			continue
		}
		outdated := k.artifact != c.artifact(k)
		for _, ref := range k.MissingVariables {
			outdated = outdated || c.objects[ref] != nil
		}
		if outdated {
			c.plan(k)
		}
	}
	return len(c.pending) > 0
}

// finish returns the cluster: the Kustomizations that can still be reached, with their parents, and what the entry
// point creates.
func (c *clusterBuilder) finish() *Cluster {
	out := &Cluster{Name: c.entry.Path, Entry: c.entry, roots: c.roots, Complete: true}
	out.artifactOf = func(s validators.ObjectRef) *sourcetree.Artifact { return c.sourceArtifact(s, 0) }
	reachable := map[*Kustomization]bool{}
	var visit func(k *Kustomization)
	visit = func(k *Kustomization) {
		if reachable[k] {
			return
		}
		reachable[k] = true
		for _, child := range k.Children {
			visit(child)
		}
	}
	for _, k := range c.order {
		if k.root != nil {
			visit(k)
		}
	}
	applied := map[validators.ObjectRef]bool{}
	for _, k := range c.order {
		if !reachable[k] {
			continue
		}
		out.Kustomizations = append(out.Kustomizations, k)
		for _, child := range k.Children {
			child.Parents = append(child.Parents, k)
		}
		for _, o := range k.Objects {
			applied[refOf(o)] = true
		}
		out.Objects = append(out.Objects, k.Objects...)
		for _, o := range k.generated {
			if !applied[refOf(o)] {
				applied[refOf(o)] = true
				out.Objects = append(out.Objects, o)
			}
		}
	}
	for _, k := range out.Kustomizations {
		c.reportUnknownSource(k)
		sortProblems(k.Problems)
		if k.State == Unknown || !c.readAll(k) {
			out.Complete = false
		}
	}
	created := append(slices.Clip(c.created), c.appliedByHand()...)
	composed := c.composed()
	for _, ref := range slices.SortedFunc(maps.Keys(composed), compareRefs) {
		created = append(created, composed[ref].objects()...)
	}
	for _, o := range created {
		// What creates the Kustomization of a directory that was given is not in the tree.
		if !applied[refOf(o)] && !o.implied {
			applied[refOf(o)] = true
			out.Objects = append(out.Objects, o)
		}
	}
	leaveVariablesToWebhook(out)
	return out
}

// variablesWebhook is the name of the release of a webhook that gives variables to Kustomizations without postBuild:
// https://github.com/xunholy/fluxcd-kustomize-mutating-webhook.
const variablesWebhook = "kustomize-mutating-webhook"

// leaveVariablesToWebhook leaves the variables of Kustomizations without postBuild open in a cluster whose webhook gives
// them values.
func leaveVariablesToWebhook(c *Cluster) {
	if !slices.ContainsFunc(c.Objects, func(o *Object) bool {
		return o.GroupVersionKind().GroupKind() == flux.HelmRelease && o.GetName() == variablesWebhook
	}) {
		return
	}
	for _, k := range c.Kustomizations {
		if k.Spec.PostBuild == nil {
			for _, o := range k.Objects {
				o.leaveVariables()
			}
		}
	}
}

// appliedByHand returns the sources of the entry points that no file beside them defines: who applied the Kustomization
// applied its source as well. Where the file defines another source, the name is a mistake.
func (c *clusterBuilder) appliedByHand() []*Object {
	var out []*Object
	for _, e := range c.roots {
		f := c.tree.Artifact("").File(e.Position.File)
		if f == nil || e.Source.Name == "" || e.Source.Kind == flux.ExternalArtifact.Kind || c.objects[e.Source] != nil ||
			slices.ContainsFunc(f.Parse().Documents, func(doc *yaml.Node) bool {
				return sourcetree.Identify(doc).Group() == flux.GitRepository.Group
			}) {
			continue
		}
		out = append(out, newEntryObject(c.tree.Artifact(""), e.Kind, entrypoint.SourceOf(e)))
	}
	return out
}
