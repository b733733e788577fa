package kustomization

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/kustomization/bootstrap"
	"github.com/flux-admission/flux-admission/internal/kustomization/entrypoint"
	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/validators"
)

// Result is a built tree. Nothing in it may be changed: objects are shared.
type Result struct {
	// Clusters has one entry for each entry point, in the order of their names; plain manifests are one cluster
	// without an entry point.
	Clusters []*Cluster
	// Problems are those of files and entry points. Those of a Kustomization are with it.
	Problems []*validators.Problem
	// Unapplied are Flux objects in the directories that Kustomizations build, which none of them applies, and the first other object of each
	// file there that no build reads.
	Unapplied []*UnappliedObject
	// Files is the number of YAML files of the tree.
	Files int
	// Commented are the YAML files that may have comments for this program.
	Commented []*Commented
	// Marked are the YAML files that builds have read and that may have markers of image-automation-controller.
	Marked []*sourcetree.File
}

// Commented is a YAML file that may have comments for this program.
type Commented struct {
	*sourcetree.File
	// Used means that a build has read the file.
	Used bool
}

// addCommented adds the YAML files of an artifact that may have comments for this program or markers.
func (r *Result) addCommented(a *sourcetree.Artifact, read map[*sourcetree.File]bool) {
	for _, p := range a.Manifests() {
		f := a.File(p)
		r.addIfCommented(f, read[f])
	}
}

// addIfCommented adds a file that may have comments for this program, or markers if a build has read it.
func (r *Result) addIfCommented(f *sourcetree.File, used bool) {
	data, err := f.Read()
	if err != nil {
		return
	}
	if sourcetree.HasDirective(data) {
		r.Commented = append(r.Commented, &Commented{File: f, Used: used})
	}
	if used && sourcetree.HasMarker(data) {
		r.Marked = append(r.Marked, f)
	}
}

// addCommented adds the YAML files of the tree, and those of other sources that a build has read.
func (b *treeBuilder) addCommented(r *Result) {
	r.addCommented(b.tree.Artifact(""), b.read)
	for _, name := range slices.Sorted(maps.Keys(b.sources)) {
		r.addCommented(b.sources[name].Artifact(""), b.read)
	}
}

// Cluster has the objects of one cluster: those that one entry point leads to.
type Cluster struct {
	// Name is the entry point's directory, relative to the root; empty for plain manifests.
	Name string
	// Entry is the entry point; nil for plain manifests.
	Entry *entrypoint.EntryPoint
	// roots are all entry points of the cluster, Entry first.
	roots []*entrypoint.EntryPoint
	// Kustomizations are in the order in which they were found, the root first.
	Kustomizations []*Kustomization
	// Objects are all that Kustomizations apply, in their order, then those that the entry point itself creates.
	Objects []*Object
	// Complete means that every Kustomization's objects are known. Resources from remote bases may still be missing:
	// see Kustomization.State.
	Complete bool
	// bootstrap is what the tree installs before Flux applies anything; nil if that is not known.
	bootstrap *bootstrap.Found
	// artifactOf returns the artifact of a source; nil if it is not known. It is nil for plain manifests.
	artifactOf func(validators.ObjectRef) *sourcetree.Artifact
}

// Artifact returns the artifact of a source: this tree, a directory that was mapped, or what is composed of these. It is nil if that
// is not known.
func (c *Cluster) Artifact(source validators.ObjectRef) *sourcetree.Artifact {
	if c.artifactOf == nil {
		return nil
	}
	return c.artifactOf(source)
}

// Kustomization returns the Kustomization with the key; nil when there is none.
func (c *Cluster) Kustomization(key types.NamespacedName) *Kustomization {
	i := slices.IndexFunc(c.Kustomizations, func(k *Kustomization) bool { return k.Key == key })
	if i < 0 {
		return nil
	}
	return c.Kustomizations[i]
}
