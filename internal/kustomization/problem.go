package kustomization

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/flux-admission/flux-admission/validators"
)

// Position is a place in a file of the tree. The zero value is no place.
type Position struct {
	// File is relative to the tree's root, with slashes; for a file of a mapped source it is prefixed with "NAME:".
	File string
	// Line and Column count from 1; 0 when only the file is known.
	Line, Column int
}

// String returns file:line:column, as compilers write it.
func (p Position) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// ProblemKind says what kind of thing is wrong.
type ProblemKind string

// The kinds of problems of a Kustomization.
const (
	// PathMissing: spec.path is not in the source. Near holds a path that is, if one resembles it.
	PathMissing ProblemKind = "path-missing"
	// BuildFailed: kustomize refuses to build. Position is the file at fault, Detail is kustomize's own message.
	BuildFailed ProblemKind = "build-failed"
	// VariableUnset: a variable without a value and without a default; Name is the variable.
	VariableUnset ProblemKind = "variable-unset"
	// RemoteBase: a resource outside the tree was not evaluated; Name is its address.
	RemoteBase ProblemKind = "remote-base"
	// SourceUnknown: the source is neither the tree nor mapped to a directory; Name is the source. Said once for each source.
	SourceUnknown ProblemKind = "source-unknown"
	// DecryptionMissing: an object is encrypted with SOPS, and its Kustomization has no spec.decryption.
	DecryptionMissing ProblemKind = "decryption-missing"
	// SpecInvalid: the Kustomization's own spec cannot be read, such as a list where a string belongs.
	SpecInvalid ProblemKind = "spec-invalid"
)

// The kinds of problems of a file.
const (
	// DuplicateKey: a key stands twice in a map; Name is the key, Other the place of the first.
	DuplicateKey ProblemKind = "duplicate-key"
	// NotYAML: the text does not parse.
	NotYAML ProblemKind = "not-yaml"
	// FileRefused: the file breaks a limit (size, nesting, aliases) and was not read.
	FileRefused ProblemKind = "file-refused"
	// EntryPointMissing: something names a path of this tree as an entry point, and it is not there.
	EntryPointMissing ProblemKind = "entry-point-missing"
)

// Problem is one thing that is wrong with the tree, or that could not be seen.
type Problem struct {
	Kind ProblemKind
	// Kustomization is the one whose build shows the problem; nil for a problem of a file alone.
	Kustomization *Kustomization
	// Object is the rendered object concerned, if it is one.
	Object *Object
	// Path is the field concerned: of Object if set, else of the Kustomization's own object.
	Path validators.Path
	// Position is where to look first; the zero Position when there is none.
	Position Position
	// Other are further places that belong to it, such as the first of two equal keys.
	Other []Position
	// Message says what is wrong in one sentence without a period, with no value of a Secret.
	Message string
	// Detail is the message of the tool that failed, as it said it; may be empty.
	Detail string
	// Name is what Kind says it is.
	Name string
	// Near is the nearest existing thing to what was written; empty when nothing resembles it.
	Near string
}

// String returns the problem as one line for a person.
func (p *Problem) String() string {
	if p.Position.File == "" {
		return p.Message
	}
	return p.Position.String() + ": " + p.Message
}

// fails tells whether Flux would refuse the whole Kustomization for it.
func (p *Problem) fails() bool {
	switch p.Kind {
	case PathMissing, BuildFailed, VariableUnset, SpecInvalid:
		return true
	case RemoteBase, SourceUnknown, DecryptionMissing, DuplicateKey, NotYAML, FileRefused, EntryPointMissing:
	}
	return false
}

func sortProblems(ps []*Problem) {
	slices.SortStableFunc(ps, func(a, b *Problem) int {
		return cmp.Or(cmp.Compare(a.Position.File, b.Position.File), cmp.Compare(a.Position.Line, b.Position.Line),
			cmp.Compare(a.Position.Column, b.Position.Column), cmp.Compare(a.Message, b.Message))
	})
}
