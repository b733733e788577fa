package kustomization

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/kustomization/entrypoint"
	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// Applied is a Kustomization that a cluster has, or is about to have, and what it is built from.
type Applied struct {
	*unstructured.Unstructured
	// Position and Document are where the artifact has the Kustomization; Document is -1 if it does not have it.
	Position validators.Position
	Document int
	// Inputs are the ConfigMaps with its variables. The variables of those that are left out are unresolved.
	Inputs []*unstructured.Unstructured
}

// BuildApplied builds one Kustomization from the artifact of its source, whose files the tree has. The Kustomizations among its objects are not
// built: Children returns them. The caller closes the tree.
func BuildApplied(tree *sourcetree.Tree, a Applied) *Result {
	b := newTreeBuilder(Options{Workers: 1}, tree)
	e := &entrypoint.EntryPoint{Kind: entrypoint.Applied, Key: types.NamespacedName{Namespace: a.GetNamespace(), Name: a.GetName()}}
	c := newClusterBuilder(b, []*entrypoint.EntryPoint{e})
	root := newEntryObject(tree.Artifact(""), e.Kind, entrypoint.Object{Unstructured: a.Unstructured, Position: a.Position, Document: a.Document})
	c.created = append(c.created, root)
	k := c.add(root)
	k.root = e
	for _, input := range a.Inputs {
		o := &Object{Unstructured: input, Origin: Origin{Document: -1, Synthesized: true}}
		c.objects[refOf(o)] = o
	}
	if k.readSpec() == nil {
		e.Source = k.Source
		b.sources[k.Source.Kind+"/"+k.Source.Namespace+"/"+k.Source.Name] = tree
	}
	c.build(k)
	c.merge(k)
	if slices.Contains(c.pending, k) { // it applies itself, with another spec
		c.build(k)
		c.merge(k)
	}
	result := &Result{Clusters: []*Cluster{c.finish()}}
	for f := range b.read {
		if f == nil {
			continue
		}
		result.Files++
		if sourcetree.IsYAML(f.Path()) {
			result.addIfCommented(f, true)
		}
	}
	slices.SortFunc(result.Commented, func(a, b *Commented) int { return strings.Compare(a.Name(), b.Name()) })
	return result
}

// Root returns the Kustomization that BuildApplied has built.
func (r *Result) Root() *Kustomization { return r.Clusters[0].Kustomizations[0] }

// ChildrenOf returns the Kustomizations that a Kustomization applies to its own cluster and that have its source, with their positions in the artifact.
func ChildrenOf(k *Kustomization) []Applied {
	var out []Applied
	for _, o := range k.Objects {
		if o.GroupVersionKind().GroupKind() != flux.Kustomization || k.RemoteCluster() {
			continue
		}
		child := &Kustomization{Key: types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}, Object: o}
		if child.readSpec() != nil || child.Source != k.Source {
			continue
		}
		a := Applied{Unstructured: o.Unstructured, Position: o.Locate(nil).Position, Document: o.Origin.Document}
		if len(o.item) > 0 {
			a.Document = -1 // an item of a List
		}
		out = append(out, a)
	}
	return out
}

// TooLarge reports whether a Kustomization was not built because it exceeds the limit on objects.
func (k *Kustomization) TooLarge() bool { return k.output != nil && k.output.TooLarge }
