package validators

import "k8s.io/apimachinery/pkg/types"

// Provenance says how an object came to be in a Git tree.
type Provenance struct {
	// DeclaredNamespace is the namespace that the object's own file gives it; empty when it gives none or is not known.
	DeclaredNamespace string
	// Kustomization is the Flux Kustomization that applies the object; the zero value when that is none, or not known.
	Kustomization types.NamespacedName
	// Unapplied says that no Kustomization applies the object, although it stands in a directory that one of them renders. Only rules with
	// Meta.Unapplied are asked then.
	Unapplied bool
	// ReferencedBy is the kustomization file that would have to list the file of an orphaned object; empty when there is none near it.
	ReferencedBy string
}

// Build is what is known of what a Flux Kustomization builds from its source.
type Build struct {
	// Applies are the objects that it applies, each with the namespace that it ends up in.
	Applies []ObjectRef
	// Complete says that Applies are all. They are not when the build fails, or takes in something that is not in the tree.
	Complete bool
	// Dependents are the Kustomizations that cannot be applied before this one has been, itself included: those that depend on it, those that only
	// it applies, and so on.
	Dependents map[types.NamespacedName]bool
	// Problems are what is wrong with the build, by place.
	Problems []Problem
}
