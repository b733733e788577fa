package validators

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Position is a place in a file of a Git tree. The zero value is no place.
type Position struct {
	// File is relative to the tree's root, with slashes.
	File string `json:"file,omitempty"`
	// Line and Column count from 1; 0 when only the file is known.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
}

// String returns file:line:column, as compilers write it, without the parts that are not known.
func (p Position) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

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
	Problems []BuildProblem
}

// ProblemKind says what kind of thing is wrong with a build or a file.
type ProblemKind string

// The kinds of problems of a build.
const (
	// ProblemPath: spec.path is not in the source. Name is the path as it is written, Near is a path that is, if one resembles it.
	ProblemPath ProblemKind = "path-missing"
	// ProblemBuild: kustomize refuses to build.
	ProblemBuild ProblemKind = "build-failed"
	// ProblemVariable: a variable without a value and without a default; Name is the variable.
	ProblemVariable ProblemKind = "variable-unset"
	// ProblemDecryption: an object is encrypted, and the Kustomization has no spec.decryption.
	ProblemDecryption ProblemKind = "decryption-missing"
)

// The kinds of problems of a file.
const (
	// ProblemDuplicateKey: a key stands twice in a map; Name is the key.
	ProblemDuplicateKey ProblemKind = "duplicate-key"
	// ProblemNotYAML: the text does not parse, or breaks a limit on what is read.
	ProblemNotYAML ProblemKind = "not-yaml"
)

// BuildProblem is one thing that is wrong with a build or a file.
type BuildProblem struct {
	Kind ProblemKind `json:"kind"`
	// Path is the field of the Kustomization concerned; empty when it is none of them.
	Path Path `json:"-"`
	// Position is where to look first: the file at fault. The zero value when there is none.
	Position Position `json:"place"`
	// Other are further places that belong to it.
	Other []Position `json:"other,omitempty"`
	// Message says what is wrong in one sentence without a period, with no value of a Secret.
	Message string `json:"message"`
	// Detail is what the tool that failed said; may be empty.
	Detail string `json:"detail,omitempty"`
	// Name is what Kind says it is.
	Name string `json:"name,omitempty"`
	// Near is the nearest existing thing to what was written; empty when nothing resembles it.
	Near string `json:"near,omitempty"`
}

// FileKind is the kind of the object that stands for a file of a Git tree, for rules with Meta.Files. No API server knows it.
var FileKind = schema.GroupVersionKind{Group: "flux-admission.dev", Version: "v1alpha1", Kind: "File"}

// NewFile returns the object that stands for a file: its name is the file's, its problems are what reading it showed, as FileProblems returns them.
func NewFile(name string, problems []BuildProblem) (*unstructured.Unstructured, error) {
	content, err := toUnstructured(map[string]any{"metadata": map[string]any{"name": name}, "problems": problems})
	if err != nil {
		return nil, err
	}
	o := &unstructured.Unstructured{Object: content}
	o.SetGroupVersionKind(FileKind)
	return o, nil
}

// FileProblems returns the problems of an object that NewFile made.
func FileProblems(o *unstructured.Unstructured) ([]BuildProblem, error) {
	var file struct {
		Problems []BuildProblem `json:"problems"`
	}
	err := fromUnstructured(o.Object, &file)
	return file.Problems, err
}

// toUnstructured writes a value as the generic map that JSON makes of it.
func toUnstructured(v any) (map[string]any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("writing an object: %w", err)
	}
	var out map[string]any
	if err := json.Unmarshal(data, &out); err != nil {
		return nil, fmt.Errorf("reading an object: %w", err)
	}
	return out, nil
}

func fromUnstructured(from map[string]any, to any) error {
	data, err := json.Marshal(from)
	if err != nil {
		return fmt.Errorf("writing an object: %w", err)
	}
	if err := json.Unmarshal(data, to); err != nil {
		return fmt.Errorf("reading an object: %w", err)
	}
	return nil
}
