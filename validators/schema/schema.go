// Package schema has the rules on schemas and definitions of kinds, for objects of any kind.
package schema

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
)

// since is the first release with these rules.
const since = "v0.1.0"

// kindName returns the kind and version for messages: Deployment (apps/v1).
func kindName(gvk k8sschema.GroupVersionKind) string {
	return fmt.Sprintf("%s (%s)", gvk.Kind, gvk.GroupVersion())
}

// attributed is a schema with its origin for messages.
type attributed struct {
	validators.Schema
	// by is empty for an installed schema, else ", according to CloudNativePG 1.30.0".
	by string
	// asOf is the release beyond which the schema knows no fields; empty if it is the API server's.
	asOf string
	// uncertain means that another release may take what is invalid in this one.
	uncertain bool
}

// schemaOf returns the schema of the object's version. It returns false if there is none: recorded as skipped or
// Unknown unless another rule reports it.
func schemaOf(ctx context.Context, p *validators.Pass) (attributed, bool) {
	if unresolved.IsEncryptedObject(p.Object.Object) {
		p.Skip("the object is encrypted with SOPS")
		return attributed{}, false
	}
	gvk := p.Object.GroupVersionKind()
	kind, presence, err := p.Lookup.Kind(ctx, gvk.GroupKind())
	switch {
	case kind == nil || kind.Schemas == nil:
		if presence != validators.Absent { // another rule reports it
			p.Unknown("cannot determine the schema of %s: %v", kindName(gvk), orNotFound(err))
		}
		return attributed{}, false
	case !slices.Contains(kind.Served, gvk.Version):
		if !kind.Installed { // else another rule reports it
			p.Unknown("cannot determine the schema of %s: %s has no such version", kindName(gvk), kind.Origin)
		}
		return attributed{}, false
	}
	s, err := kind.Schemas.Schema(gvk.Version)
	if err != nil {
		p.Unknown("cannot determine the schema of %s: %v", kindName(gvk), err)
		return attributed{}, false
	}
	j := attributed{Schema: s, asOf: kind.AsOf, uncertain: kind.Uncertain}
	if !kind.Installed {
		j.by = ", according to " + kind.Origin
	}
	return j, true
}

// orNotFound returns the error of a lookup, or the reason for a lookup without one.
func orNotFound(err error) any {
	if err == nil {
		return "found no CustomResourceDefinition"
	}
	return err
}

// fits reports whether the object is valid with another apiVersion and kind.
func fits(
	ctx context.Context,
	kind *validators.Kind,
	o *unstructured.Unstructured,
	to k8sschema.GroupVersionKind,
) bool {
	if kind == nil || kind.Schemas == nil {
		return false
	}
	s, err := kind.Schemas.Schema(to.Version)
	if err != nil {
		return false
	}
	moved := o.DeepCopy()
	moved.SetGroupVersionKind(to)
	return len(s.UnknownFields(moved)) == 0 && len(s.InvalidValues(ctx, moved)) == 0
}
