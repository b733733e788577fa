package validators

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Kind is what is known about a kind.
type Kind struct {
	// Origin is the source of the definition, for messages: the file of a CustomResourceDefinition, "CloudNativePG 1.30.0".
	Origin string
	// Installed means that the API server has this definition. Otherwise it is from the CRD catalog: the cluster's may be of another release, with
	// other versions and fields.
	Installed bool
	// AsOf is the release that the definition is of, such as "Flux 2.10", if the API server may have a newer one: a field
	// that the schema does not have may exist there. It is empty for the definition that the API server has.
	AsOf string
	// Uncertain means that nothing shows which release the API server has, and that releases differ: a value that is
	// invalid in this one may be valid there.
	Uncertain bool
	// External means that something outside the tree installs the kind, so that it exists from the start.
	External bool
	// Scope is Namespaced or Cluster; ScopeUnknown without a definition.
	Scope KindScope
	// BuiltIn means that it is a built-in type of Kubernetes, without a CustomResourceDefinition.
	BuiltIn bool
	// Served are the versions that the API server serves, the preferred one first.
	Served []string
	// Retired are the versions that are no longer served, each with the release that removed it: "since Kubernetes 1.25". It may be nil.
	Retired map[string]string
	// Deprecated are the served versions that are deprecated, each with what deprecates it: "by Flux 2.7". It may be nil.
	Deprecated map[string]string
	// Suggestions are kinds with a similar name, most similar first; only for an absent kind.
	Suggestions []schema.GroupKind
	// Schemas returns the schemas of the served versions; nil if none is known.
	Schemas Schemas
}

// KindScope is whether objects of a kind have a namespace.
type KindScope string

// The scopes, as a CustomResourceDefinition spells them.
const (
	ScopeUnknown    KindScope = ""
	ScopeNamespaced KindScope = "Namespaced"
	ScopeCluster    KindScope = "Cluster"
)

// Schemas returns the schemas of the versions of a kind.
type Schemas interface {
	// Schema returns the schema of a version, or an error if the version is not served or its schema is invalid.
	Schema(version string) (Schema, error)
}

// Schema validates objects of one version of a kind, as the API server does on a strict write. It is safe for concurrent use and does not change objects.
type Schema interface {
	// UnknownFields returns the fields that the schema does not have, in the order of their paths. What is below an unknown field is not listed.
	UnknownFields(o *unstructured.Unstructured) []UnknownField
	// InvalidValues returns the values that the API server rejects, in the order of their paths. Unknown fields are ignored.
	InvalidValues(ctx context.Context, o *unstructured.Unstructured) []InvalidValue
}

// UnknownField is a field that a schema does not have.
type UnknownField struct {
	Path Path
	// Suggestion is the field with a similar name; nil if there is none, or more than one.
	Suggestion Path
	// Renamable means that Suggestion is not set and that the value is valid there.
	Renamable bool
}

// InvalidValue is a value that a schema does not allow, or a required one that is missing.
type InvalidValue struct {
	// Path is the offending field; for a missing one, the field that should be there.
	Path Path
	// Message is what is wrong, after the name of the field: "must be an integer, is a string". It quotes the schema, never the value, which may come
	// from a Secret.
	Message string
	// Incomplete means that another part of the object may make the value valid, if this one is a patch.
	Incomplete bool
	// Unquoted means that the value is a number or a truth value where the schema wants a string.
	Unquoted bool
	// Combined means that a rule about the fields of a map is violated. If the object may be patched, that is uncertain.
	Combined bool
	// Uncertain means that API servers of some releases accept the value.
	Uncertain bool
}
