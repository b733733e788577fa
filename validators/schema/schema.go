// Package schema holds the rules on what the schema of an object's kind says: they look at objects of every kind.
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

// kindName names the object's kind and version for a person: Deployment (apps/v1).
func kindName(gvk k8sschema.GroupVersionKind) string {
	return fmt.Sprintf("%s (%s)", gvk.Kind, gvk.GroupVersion())
}

// judged is a schema with the words for where it comes from.
type judged struct {
	validators.Schema
	// by is empty where it is the schema that is installed, else ", as CloudNativePG 1.27.0 has it".
	by string
}

// schemaOf returns the schema of the object's version. Where there is none to judge by, it has said so, unless another rule says it.
func schemaOf(ctx context.Context, p *validators.Pass) (judged, bool) {
	if unresolved.IsEncryptedObject(p.Object.Object) {
		p.Skip("the object is encrypted with SOPS")
		return judged{}, false
	}
	gvk := p.Object.GroupVersionKind()
	kind, presence, err := p.Lookup.Kind(ctx, gvk.GroupKind())
	switch {
	case kind == nil || kind.Schemas == nil:
		if presence != validators.Absent { // crd-missing reports it
			p.Unknown("the schema of %s is not known: %v", kindName(gvk), orNothing(err))
		}
		return judged{}, false
	case !slices.Contains(kind.Served, gvk.Version):
		if !kind.Installed { // otherwise api-version-not-served reports it
			p.Unknown("the schema of %s is not known: %s has no such version", kindName(gvk), kind.Origin)
		}
		return judged{}, false
	}
	s, err := kind.Schemas.Schema(gvk.Version)
	if err != nil {
		p.Unknown("the schema of %s is not known: %v", kindName(gvk), err)
		return judged{}, false
	}
	j := judged{Schema: s}
	if !kind.Installed {
		j.by = ", as " + kind.Origin + " has it"
	}
	return j, true
}

// orNothing is a reason where a lookup gave none.
func orNothing(err error) any {
	if err == nil {
		return "there is no CustomResourceDefinition of it to be seen"
	}
	return err
}

// fits tells whether the object would be valid with another apiVersion and kind, by the schema of that kind.
func fits(ctx context.Context, kind *validators.Kind, o *unstructured.Unstructured, to k8sschema.GroupVersionKind) bool {
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
