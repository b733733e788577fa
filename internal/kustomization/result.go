package kustomization

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
)

// Result is a rendered tree. Nothing in it may be changed: objects are shared.
type Result struct {
	// Clusters holds one entry for each entry point, in the order of their names; the single one of plain manifests has no entry point.
	Clusters []*Cluster
	// Problems are those of files and entry points. Those of a Kustomization are with it.
	Problems []*Problem
	// Unapplied are Flux objects in the directories that Kustomizations render, which none of them applies.
	Unapplied []*Orphan
	// Files is the number of YAML files of the tree.
	Files int
}

// Cluster is what one entry point leads to: the objects of one cluster.
type Cluster struct {
	// Name is the entry point's directory, relative to the root; empty for plain manifests.
	Name string
	// Entry is the entry point; nil for plain manifests.
	Entry *EntryPoint
	// Kustomizations are in the order in which they were found, the root first.
	Kustomizations []*Kustomization
	// Objects are all that Kustomizations apply, in their order, then those that the entry point itself brings.
	Objects []*Object
	// Complete says that every Kustomization's objects are known. Resources from remote bases may still be missing: see Kustomization.State.
	Complete bool
}

// Lookup returns the rules' view of the cluster. What is not there is Absent when the cluster is complete, else Unknown. When remote resources
// were left out, only Flux's own kinds are Absent, and what is in a namespace that none of these is put into: anything else may be among them. What is encrypted is Unknown. Objects that a Kustomization
// applies to another cluster (spec.kubeConfig) are left out. Charts may be nil.
func (c *Cluster) Lookup(charts lookup.Charts) validators.Lookup {
	s := &seen{Memory: &lookup.Memory{Complete: c.Complete, Charts: charts, Builds: newBuilds(c)}}
	for _, o := range c.Objects {
		if o.Kustomization != nil && o.Kustomization.RemoteCluster() {
			continue
		}
		s.Add(o.Unstructured)
		if o.Encrypted {
			s.Hide(o.GroupVersionKind().GroupKind(), types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}, errEncrypted)
		}
	}
	for _, k := range c.Kustomizations {
		for _, p := range k.Problems {
			if p.Kind == RemoteBase && !k.RemoteCluster() {
				s.remote = append(s.remote, k.Spec.TargetNamespace)
			}
		}
	}
	return s
}

// seen is a Memory with gaps: remote resources that were left out. Of each, remote has the namespace that its Kustomization puts everything into that is in
// one; empty when it puts nothing elsewhere than it is.
type seen struct {
	*lookup.Memory
	remote []string
}

// gap says why an object of the kind may be there although it is not seen; nil when it is not. The namespace is empty for what is in none, and for all.
func (s *seen) gap(gk schema.GroupKind, namespace string) error {
	if strings.HasSuffix(gk.Group, fluxGroups) {
		return nil
	}
	among := 0
	for _, target := range s.remote {
		if namespace == "" || target == "" || target == namespace {
			among++
		}
	}
	if among == 0 {
		return nil
	}
	return fmt.Errorf("it may be among %d remote resources that were not evaluated", among)
}

// Get implements validators.Lookup.
func (s *seen) Get(ctx context.Context, gk schema.GroupKind, key types.NamespacedName) (*unstructured.Unstructured, validators.Presence, error) {
	o, p, err := s.Memory.Get(ctx, gk, key)
	if gap := s.gap(gk, key.Namespace); p == validators.Absent && gap != nil {
		return nil, validators.Unknown, fmt.Errorf("%s %s: %w", gk.Kind, key, gap)
	}
	return o, p, err
}

// List implements validators.Lookup.
func (s *seen) List(ctx context.Context, gk schema.GroupKind, namespace string) ([]*unstructured.Unstructured, validators.Presence, error) {
	list, p, err := s.Memory.List(ctx, gk, namespace)
	if gap := s.gap(gk, namespace); p == validators.Present && gap != nil {
		return list, validators.Unknown, fmt.Errorf("list of %s: %w", gk.Kind, gap)
	}
	return list, p, err
}

// Namespace implements validators.Lookup.
func (s *seen) Namespace(ctx context.Context, name string) (*unstructured.Unstructured, validators.Presence, error) {
	return s.Get(ctx, schema.GroupKind{Kind: "Namespace"}, types.NamespacedName{Name: name})
}

// Find returns the objects of a kind and key; more than one when several Kustomizations apply it.
func (c *Cluster) Find(gk schema.GroupKind, key types.NamespacedName) []*Object {
	var out []*Object
	for _, o := range c.Objects {
		if o.GroupVersionKind().GroupKind() == gk && o.GetNamespace() == key.Namespace && o.GetName() == key.Name {
			out = append(out, o)
		}
	}
	return out
}

// Kustomization returns the one with the key; nil when there is none.
func (c *Cluster) Kustomization(key types.NamespacedName) *Kustomization {
	i := slices.IndexFunc(c.Kustomizations, func(k *Kustomization) bool { return k.Key == key })
	if i < 0 {
		return nil
	}
	return c.Kustomizations[i]
}

// State says how much of a Kustomization's objects is known.
type State int

// The states. Only Built and Partial are what Flux would really apply.
const (
	// Unseen: nothing is known: the source is elsewhere, the path is missing, or the build fails for good.
	Unseen State = iota
	// Repaired: Flux would refuse to build; the objects are those of a build without what is at fault (a missing file, a duplicate key).
	Repaired
	// Partial: Flux would build; resources from remote bases are missing here.
	Partial
	// Built: the objects are what Flux applies.
	Built
)

// String returns the state in lower case.
func (s State) String() string {
	switch s {
	case Unseen:
		return "unseen"
	case Repaired:
		return "repaired"
	case Partial:
		return "partial"
	case Built:
		return "built"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// Kustomization is a Flux Kustomization and what became of it.
type Kustomization struct {
	Key types.NamespacedName
	// Object is the Kustomization itself, as it is applied.
	Object *Object
	Spec   kustomizev1.KustomizationSpec
	// Parents are the Kustomizations that apply it, itself included when it does; Children are those it applies.
	Parents, Children []*Kustomization
	// Source is spec.sourceRef with its namespace filled in. SourceAssumed says that nothing defines this source, and the tree was taken for it.
	Source        validators.ObjectRef
	SourceAssumed bool
	// Path is the directory that it builds, relative to the root of its source; "." is the root.
	Path string
	// Objects are what it applies, in kustomize's order.
	Objects []*Object
	// State says how much the objects can be trusted.
	State State
	// Problems are what is wrong with it, by place.
	Problems []*Problem
	// MissingVariables are the references of postBuild.substituteFrom that nothing in the cluster provides.
	MissingVariables []validators.ObjectRef

	renders int
	view    *view
	out     *output
	vars    *variables
	forced  bool
}

// Failed tells whether Flux would refuse to build it.
func (k *Kustomization) Failed() bool { return slices.ContainsFunc(k.Problems, (*Problem).fails) }

// RemoteCluster tells whether its objects are applied to another cluster than its own.
func (k *Kustomization) RemoteCluster() bool { return k.Spec.KubeConfig != nil }

// Files returns the files that its build read, sorted, in the form of Position.File. A change of none of them changes none of its objects, but
// for the values of variables.
func (k *Kustomization) Files() []string {
	if k.out == nil {
		return nil
	}
	out := sortedKeys(k.out.read)
	for i := range out {
		out[i] = k.view.tree.label + out[i]
	}
	return out
}

// DependsOn returns spec.dependsOn with namespaces filled in, in its order.
func (k *Kustomization) DependsOn() []types.NamespacedName {
	out := make([]types.NamespacedName, 0, len(k.Spec.DependsOn))
	for _, d := range k.Spec.DependsOn {
		key := types.NamespacedName{Namespace: d.Namespace, Name: d.Name}
		if key.Namespace == "" {
			key.Namespace = k.Key.Namespace
		}
		out = append(out, key)
	}
	return out
}

// HealthChecks returns what spec.healthChecks names, in its order.
func (k *Kustomization) HealthChecks() []validators.ObjectRef {
	out := make([]validators.ObjectRef, 0, len(k.Spec.HealthChecks))
	for _, h := range k.Spec.HealthChecks {
		group, _, ok := strings.Cut(h.APIVersion, "/")
		if !ok {
			group = ""
		}
		out = append(out, validators.ObjectRef{Group: group, Kind: h.Kind, Namespace: h.Namespace, Name: h.Name})
	}
	return out
}

// Origin is where an object comes from.
type Origin struct {
	// File is the file that defines it, as in Position; for a generated object the kustomization file with the generator. Empty when unknown,
	// as for an object of a remote base.
	File string
	// Document is the index of its document in the file, from 0 and without empty documents; -1 when unknown.
	Document int
	// Generated says that a generator of the file made it.
	Generated bool
	// Implied says that no file holds the object: the entry point itself brings it into the cluster.
	Implied bool
}

// Object is one object as it is applied, with the namespace that it ends up in.
type Object struct {
	*unstructured.Unstructured
	// Kustomization applies it; nil for plain manifests and for what an entry point brings.
	Kustomization *Kustomization
	Origin        Origin
	// Encrypted says that it is encrypted with SOPS: its values mean nothing.
	Encrypted bool
	// Unknown are the fields whose value cannot be known here: they are encrypted, or hold a variable that is not in Git (written ${NAME}).
	Unknown []validators.Path

	view   *view
	out    *output
	place  Position        // of what an entry point brings
	within validators.Path // where the object stands in its document: empty, or an item of a List
}

func (o *Object) unknownAt(p validators.Path) bool {
	return slices.ContainsFunc(o.Unknown, func(u validators.Path) bool { return u.String() == p.String() })
}

// DeclaredNamespace is the namespace that the object's own file gives it; empty when it gives none or is not known.
func (o *Object) DeclaredNamespace() string {
	doc := o.document()
	if doc == nil || o.Origin.Generated {
		return ""
	}
	return identify(doc).namespace
}

// String names the object for a message: Kind namespace/name.
func (o *Object) String() string { return o.GetKind() + " " + slashed(o.GetNamespace(), o.GetName()) }

// Orphan is a Flux object in a file that no Kustomization applies.
type Orphan struct {
	Position Position
	Group, Version, Kind,
	Namespace, Name string
	// Kustomization is the kustomization file that would have to list the orphan's file; empty when there is none near it.
	Kustomization string
	// Under is the orphaned Kustomization whose path holds this object: once that one is applied, this one is too. Nil for the others.
	Under *Orphan
}

var errNotBuilt = errors.New("not every Kustomization of the tree could be built")

var errEncrypted = errors.New("encrypted with SOPS")

// Within is where the object stands in its document: empty for the document itself, else an item of a List.
func (o *Object) Within() validators.Path { return o.within }
