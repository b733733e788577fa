package validators

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// Provenance is how a Git tree contains an object.
type Provenance struct {
	// DeclaredNamespace is the namespace in the object's own file; empty if there is none or it is not known.
	DeclaredNamespace string
	// DeclaredName is the name in the object's own file of a Namespace with the targetNamespace of its Kustomization as its name; else empty.
	DeclaredName string
	// Kustomization is the Flux Kustomization that applies the object; the zero value if there is none or it is not known.
	Kustomization types.NamespacedName
	// MayBePatch means that the object may be a patch, or one that a patch completes: required fields may be missing.
	MayBePatch bool
	// Unapplied means that no Kustomization applies the object although it is in a directory that one of them builds. Only
	// rules with Scope.Unapplied evaluate it.
	Unapplied bool
	// Written returns the text of a scalar as it is in Git, before variables are substituted: "${TAG}", "3.10". It is empty
	// if that is not known; the function is nil if no text is.
	Written func(Path) string
	// ReferencedBy is the kustomization.yaml that should list Entry, the file of an unapplied object or the directory that
	// has it; empty if there is none.
	ReferencedBy, Entry string
}

// Build is what a Flux Kustomization builds from its source, as far as that is known.
type Build struct {
	// Applies are the objects that it applies, each with its final namespace.
	Applies []ObjectRef
	// Complete means that Applies has all objects. It does not if the build fails or includes resources outside the tree.
	Complete bool
	// Dependents are the Kustomizations that can only be applied after this one, and itself: those that depend on it,
	// those that it alone applies, and theirs.
	Dependents map[types.NamespacedName]bool
	// Problems of the build, by position.
	Problems []Problem
	// Bootstrap is what the tree installs in a new cluster before any Kustomization; nil if nothing is known of it.
	Bootstrap *Bootstrap
}

// Bootstrap is what a tree installs in a new cluster before Flux applies anything, as far as its helmfiles and scripts
// name it.
type Bootstrap struct {
	// Charts are the names of releases and of charts, without their repository.
	Charts map[string]bool
	// Groups are the API groups whose CustomResourceDefinitions are named.
	Groups map[string]bool
}

// Installs reports whether the definitions of an API group are installed, or one of the charts.
func (b *Bootstrap) Installs(group string, charts ...string) bool {
	return b != nil && (b.Groups[group] || slices.ContainsFunc(charts, func(name string) bool { return b.Charts[name] }))
}
