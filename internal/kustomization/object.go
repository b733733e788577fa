package kustomization

import (
	"maps"
	"slices"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/kustomization/build"
	"github.com/flux-admission/flux-admission/internal/kustomization/entrypoint"
	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// Origin is where an object comes from.
type Origin struct {
	// File is the file that defines the object, as in positions; for a generated object the kustomization file with
	// the generator. It is empty when unknown, as for an object of a remote base.
	File string
	// Document is the index of its document in the file, from 0 and without empty documents; -1 when unknown.
	Document int
	// Generated means that a generator of the file built it.
	Generated bool
	// Synthesized means that no file has the object: the entry point itself creates it in the cluster.
	Synthesized bool
}

// Object is one object as it is applied, in the namespace that it is applied to.
type Object struct {
	*unstructured.Unstructured
	// Kustomization applies it; nil for plain manifests and for what an entry point creates.
	Kustomization *Kustomization
	Origin        Origin
	// Encrypted means that it is encrypted with SOPS: its values have no meaning.
	Encrypted bool
	// Unresolved are the fields whose value is not in Git: they are encrypted, or hold a variable without a value (as
	// ${NAME}).
	Unresolved []validators.Path

	// generator is the ResourceSet that creates the object, and template the field with its template; text means that
	// the template is one text.
	generator *Object
	template  validators.Path
	text      bool

	artifact *sourcetree.Artifact
	output   *build.Output
	entry    validators.Position // of the entry point that creates a synthesized object
	item     validators.Path     // path in the document: empty, or an item of a List
	// outermost is the build of kustomize that the object is of, in a tree without an entry point.
	outermost  *Kustomization
	mayBePatch bool // fields may be missing on purpose
	implied    bool // nothing in the tree creates it, but something must
}

// newBuiltObject returns an object that kustomize built for a Kustomization.
func newBuiltObject(k *Kustomization, built *build.Object) *Object {
	o := &Object{
		Unstructured: &unstructured.Unstructured{Object: built.Content}, Kustomization: k, artifact: k.artifact, output: k.output,
		Origin: Origin{Document: built.Document, Generated: built.Generated},
	}
	if built.File != "" {
		o.Origin.File = k.artifact.Name(built.File)
	}
	if built.Item >= 0 {
		o.item = validators.NewPath("items").Index(built.Item)
	}
	return o
}

// newEntryObject returns an object that an entry point creates.
func newEntryObject(a *sourcetree.Artifact, kind entrypoint.Kind, e entrypoint.Object) *Object {
	o := &Object{Unstructured: e.Unstructured, Origin: Origin{File: e.Position.File, Document: e.Document}}
	o.implied = kind == entrypoint.Directory && e.GetKind() == flux.Kustomization.Kind
	if e.Document < 0 {
		o.Origin.Synthesized, o.entry = true, e.Position
		return o
	}
	o.artifact = a
	o.findEncrypted()
	return o
}

// Generator returns the ResourceSet that creates the object; nil if none does.
func (o *Object) Generator() *Object { return o.generator }

// ItemPath returns the path of the object in its document: empty for the document itself, else an item of a List.
func (o *Object) ItemPath() validators.Path { return o.item }

// DeclaredNamespace returns the namespace in the object's own file, with its variables substituted; empty when it has
// none or is unknown.
func (o *Object) DeclaredNamespace() string {
	return o.declared(func(id sourcetree.Identity) string { return id.Namespace })
}

// DeclaredName returns the name in the object's own file, with its variables substituted; empty when it is unknown, or a patch sets another one.
func (o *Object) DeclaredName() string {
	if o.Locate(validators.NewPath("metadata", "name")).Role == build.RolePatch {
		return ""
	}
	return o.declared(func(id sourcetree.Identity) string { return id.Name })
}

func (o *Object) declared(part func(sourcetree.Identity) string) string {
	doc := o.document()
	if doc == nil {
		return ""
	}
	text := part(sourcetree.Identify(doc))
	if !unresolved.HasVariable(text) || o.Kustomization == nil || o.Kustomization.variables == nil {
		return text
	}
	const key = "text"
	result, err := o.Kustomization.variables.Substitute(map[string]any{key: text})
	if err != nil || len(result.Unset) > 0 || len(result.Unresolved) > 0 {
		return ""
	}
	text, _ = result.Object[key].(string)
	return text
}

// String returns "Kind namespace/name".
func (o *Object) String() string {
	return o.GetKind() + " " + objectName(o.GetNamespace(), o.GetName())
}

func objectName(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// document returns the object's document, or the item of a List that it is; nil when the object is in no file.
func (o *Object) document() *yaml.Node {
	if o.artifact == nil || o.Origin.Document < 0 || o.Origin.Generated {
		return nil
	}
	f := o.artifact.FileNamed(o.Origin.File)
	if f == nil {
		return nil
	}
	docs := f.Parse().Documents
	if o.Origin.Document >= len(docs) {
		return nil
	}
	doc := docs[o.Origin.Document]
	if len(o.item) > 0 {
		_, n, _ := yamlposition.Match(doc, nil, o.item)
		return n
	}
	return doc
}

// FileText returns the text of the object's own file; nil when it is in none.
func (o *Object) FileText() []byte {
	if o.artifact == nil {
		return nil
	}
	f := o.artifact.FileNamed(o.Origin.File)
	if f == nil {
		return nil
	}
	text, err := f.Read()
	if err != nil {
		return nil
	}
	return text
}

// findEncrypted adds the fields with an encrypted value to the unresolved ones.
func (o *Object) findEncrypted() {
	if unresolved.IsEncryptedObject(o.Object) {
		o.Encrypted = true
	}
	if o.Encrypted {
		o.Unresolved = appendFields(o.Unresolved, o.Object, nil, unresolved.IsEncrypted)
	}
}

// appendFields appends the paths of strings that satisfy the condition; of a key that does, the path of its map.
func appendFields(paths []validators.Path, v any, at validators.Path, cond func(string) bool) []validators.Path {
	switch v := v.(type) {
	case string:
		if cond(v) {
			return append(paths, at)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if cond(key) {
				return append(paths, at)
			}
			paths = appendFields(paths, v[key], at.Child(key), cond)
		}
	case []any:
		for i, e := range v {
			paths = appendFields(paths, e, at.Index(i), cond)
		}
	}
	return paths
}

// findUnknownContent adds the data of a generated object that is not in the tree to the unresolved fields.
func (o *Object) findUnknownContent() {
	if !o.Origin.Generated {
		return
	}
	data, _ := o.Object["data"].(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(data)) {
		if text, ok := data[key].(string); ok && build.IsUnknownContent(text) {
			o.Unresolved = append(o.Unresolved, validators.NewPath("data", key))
		}
	}
}
