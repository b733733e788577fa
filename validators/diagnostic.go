package validators

// Diagnostic is a message about a place, with what repairs it. Findings of rules and problems of files and builds are
// diagnostics.
type Diagnostic struct {
	// Message is what is wrong and where, for the person at the terminal: one sentence without a final period and without
	// a value of a Secret.
	Message string `json:"message"`
	// Position is where in Git to look. In a Finding the zero value means the position of the field at Finding.Path.
	Position Position `json:"position"`
	// Related are further positions that belong to it, such as the first of two equal keys.
	Related []Position `json:"related,omitempty"`
	// Fix is what to write instead, in whole sentences.
	Fix string `json:"fix,omitempty"`
	// Edits are suggested edits that repair it mechanically; empty when a person has to choose.
	Edits []Edit `json:"-"`
}

// ProblemKind is the kind of a Problem.
type ProblemKind string

// The kinds of problems of a Flux Kustomization.
const (
	// ProblemPathMissing: spec.path is not in the source. Name is the path as it is written, Suggestion is a path of the
	// source, if one resembles it.
	ProblemPathMissing ProblemKind = "path-missing"
	// ProblemBuildFailed: kustomize refuses to build. Position is the file at fault, Detail is kustomize's own message.
	ProblemBuildFailed ProblemKind = "build-failed"
	// ProblemSpecInvalid: the Kustomization's own spec cannot be read, such as a list where a string belongs.
	ProblemSpecInvalid ProblemKind = "spec-invalid"
	// ProblemVariableUnset: a variable without a value and without a default; Name is the variable.
	ProblemVariableUnset ProblemKind = "variable-unset"
	// ProblemDecryptionMissing: an object is encrypted with SOPS, and its Kustomization has no spec.decryption.
	ProblemDecryptionMissing ProblemKind = "decryption-missing"
	// ProblemPatchUnmatched: a patch selects no object; Name describes its target.
	ProblemPatchUnmatched ProblemKind = "patch-unmatched"
	// ProblemNothingLeft: the resources have objects, and the build has none.
	ProblemNothingLeft ProblemKind = "nothing-left"
	// ProblemImageUnmatched: an entry of images names an image that no object has; Name is the image.
	ProblemImageUnmatched ProblemKind = "image-unmatched"
	// ProblemNullInPatch: a null in a strategic merge patch of a HelmRelease's values is lost; Name is the field.
	ProblemNullInPatch ProblemKind = "null-in-patch"
	// ProblemTagNumber: the tag of an image is read as a number, and written otherwise; Name is the tag.
	ProblemTagNumber ProblemKind = "tag-number"
	// ProblemFieldDropped: Flux drops a field of a kustomization.yaml that kustomize does not have; Name is its path.
	ProblemFieldDropped ProblemKind = "field-dropped"
	// ProblemRemoteBase: a resource outside the tree was not evaluated; Name is its address.
	ProblemRemoteBase ProblemKind = "remote-base"
	// ProblemRemoteContent: the content of a generated ConfigMap or Secret is outside the tree; Name is its address.
	ProblemRemoteContent ProblemKind = "remote-content"
	// ProblemSourceUnknown: the source is neither the tree nor mapped to a directory; Name is the source. Reported once
	// for each source.
	ProblemSourceUnknown ProblemKind = "source-unknown"
)

// The kinds of problems of a file.
const (
	// ProblemDuplicateKey: a key is duplicated in a mapping; Name is the key, Related the position of the first.
	ProblemDuplicateKey ProblemKind = "duplicate-key"
	// ProblemNotYAML: the text does not parse.
	ProblemNotYAML ProblemKind = "not-yaml"
	// ProblemFileRefused: the file exceeds a limit (size, nesting, aliases) and was not read.
	ProblemFileRefused ProblemKind = "file-refused"
	// ProblemDirectoryUnread: a directory cannot be listed, so that nothing is known of what is in it; Name is the directory.
	ProblemDirectoryUnread ProblemKind = "directory-unread"
	// ProblemCommentInvalid: a comment that is to ignore findings ignores none; Name is the comment.
	ProblemCommentInvalid ProblemKind = "comment-invalid"
	// ProblemCommentUnused: a comment ignores rules that report nothing there; Name is the rules.
	ProblemCommentUnused ProblemKind = "comment-unused"
	// ProblemMarkerUnused: image-automation-controller does not act on a marker, or writes a wrong value.
	ProblemMarkerUnused ProblemKind = "marker-unused"
	// ProblemExemptionExpired: an exemption of an AdmissionPolicy has expired, or will within two weeks.
	ProblemExemptionExpired ProblemKind = "exemption-expired"
	// ProblemExemptionUnused: an exemption of an AdmissionPolicy applies to no finding in the tree.
	ProblemExemptionUnused ProblemKind = "exemption-unused"
	// ProblemEntryPointMissing: something names a path of this tree as an entry point, and it does not exist.
	ProblemEntryPointMissing ProblemKind = "entry-point-missing"
	// ProblemRootAssumed: the root of the source is taken to be another directory than the tree's; Name is the directory.
	ProblemRootAssumed ProblemKind = "root-assumed"
	// ProblemNoEntryPoint: nothing in the tree is where Flux starts; the files are evaluated without Flux.
	ProblemNoEntryPoint ProblemKind = "no-entry-point"
	// ProblemNotBuilt: kustomize cannot build a directory of a tree without an entry point; Name is the directory.
	ProblemNotBuilt ProblemKind = "not-built"
	// ProblemTemplate: a file that no Kustomization reads is the template of another tool, and not YAML before it is rendered.
	ProblemTemplate ProblemKind = "template"
)

// Problem is one thing that is wrong with a file, or with what a Flux Kustomization builds, or that could not be
// evaluated.
type Problem struct {
	Diagnostic `json:",inline"`
	Kind       ProblemKind `json:"kind"`
	// Path is the field of the Kustomization concerned; empty when it is none of them.
	Path Path `json:"-"`
	// Detail is the message of the tool that failed; may be empty.
	Detail string `json:"detail,omitempty"`
	// Name is the name of the object, file or field that Kind describes.
	Name string `json:"name,omitempty"`
	// Suggestion is the nearest existing thing to what was written; empty when nothing resembles it.
	Suggestion string `json:"suggestion,omitempty"`
	// Uncertain means that the release of Flux that the cluster runs accepts it.
	Uncertain bool `json:"-"`
}

// String returns "position: message", or the message alone when the position is unknown.
func (p *Problem) String() string {
	if p.Position.File == "" {
		return p.Message
	}
	return p.Position.String() + ": " + p.Message
}

// File is a file of a Git tree with the problems that reading it showed.
type File struct {
	// Name is relative to the tree's root, with slashes.
	Name     string
	Problems []Problem
}
