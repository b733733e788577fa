package validators

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Kind is what is known of one kind of objects.
type Kind struct {
	// Origin says where the knowledge comes from, in words for a person: a file with a CustomResourceDefinition, "CloudNativePG 1.27.0".
	Origin string
	// Installed says that this is the definition that the API server has. Otherwise it is one that is known from elsewhere: the cluster's
	// may be of another release, with other versions and fields.
	Installed bool
	// External says that something else than what is looked at installs the kind, so that it is there from the start.
	External bool
	// BuiltIn says that the kind is Kubernetes' own: no CustomResourceDefinition declares it.
	BuiltIn bool
	// Served are the versions that the API server serves, the preferred one first.
	Served []string
	// Retired says of versions that were served once since when they are not: "since Kubernetes 1.25". It may be nil.
	Retired map[string]string
	// Near are kinds that may have been meant, nearest first; only for a kind that is Absent.
	Near []schema.GroupKind
	// Schemas gives the schemas of the served versions; nil when none is known.
	Schemas Schemas
}

// Schemas gives the schema of each version of a kind.
type Schemas interface {
	// Schema returns the schema of a version. The error says why there is none to be had: the version is not served, or its schema is
	// not one that an API server would take.
	Schema(version string) (Schema, error)
}

// Schema is what one version of a kind may hold, as the API server sees it on a strict write. It is safe for concurrent use and
// changes nothing of the objects it is given.
type Schema interface {
	// UnknownFields returns the fields that the schema does not have, in the order of their paths. What is below an unknown field is not listed.
	UnknownFields(o *unstructured.Unstructured) []UnknownField
	// InvalidValues returns the values that the API server would refuse, unknown fields left out of account, in the order of their paths.
	InvalidValues(ctx context.Context, o *unstructured.Unstructured) []InvalidValue
}

// UnknownField is a field that a schema does not have.
type UnknownField struct {
	Path Path
	// Suggestion is the field that was likely meant; nil when none is near, or more than one is.
	Suggestion Path
	// Renamable tells that Suggestion is not set and takes the value as it is.
	Renamable bool
}

// InvalidValue is a value that a schema does not allow, or one that it demands and that is missing.
type InvalidValue struct {
	// Path is the offending field; for a missing one, the field that should be there.
	Path Path
	// Message says what is wrong, to be read after the field's name: "must be an integer, is a string". It quotes what the schema
	// says, never the value: it may come from a Secret.
	Message string
}
