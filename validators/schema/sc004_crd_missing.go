package schema

import (
	"context"
	"fmt"

	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

// CRDMissing is the rule crd-missing.
//
// For the API server a misspelled kind and a kind in the wrong API group are the same as a kind whose
// CustomResourceDefinition is missing.
var CRDMissing = &validators.Rule{
	Meta: validators.Meta{
		ID:       "SC004",
		Name:     "crd-missing",
		Scope:    validators.Scope{AnyKind: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "CRD is not installed",
			Why: "The API server answers \"no matches for kind\" until a CustomResourceDefinition declares the " +
				"kind, and everything that depends on the Kustomization waits.",
			Fix:   "Correct apiVersion and kind, or install the CustomResourceDefinition.",
			Since: since,
		},
	},
	Check: checkCRDMissing,
}

func checkCRDMissing(ctx context.Context, p *validators.Pass) error {
	gvk := p.Object.GroupVersionKind()
	if gvk.Kind == "" {
		return nil // no object
	}
	kind, presence, err := p.Lookup.Kind(ctx, gvk.GroupKind())
	switch presence {
	case validators.Present:
		return nil
	case validators.Unknown:
		p.Unknown("cannot determine whether %s (%s) is installed: %v", gvk.Kind, gvk.Group, orNotFound(err))
		return nil
	case validators.Absent:
	}
	text := kindName(gvk) + " is not installed"
	if kind == nil || len(kind.Suggestions) == 0 {
		p.Report(validators.NewPath("kind"), gvk.Kind, "%s", text)
		return nil
	}
	near := kind.Suggestions[0]
	meant, nearKind := near.WithVersion(gvk.Version), (*validators.Kind)(nil)
	if k, presence, _ := p.Lookup.Kind(ctx, near); presence == validators.Present && len(k.Served) > 0 {
		meant.Version, nearKind = k.Served[0], k
	}
	path, value := validators.NewPath("kind"), meant.Kind
	if near.Kind == gvk.Kind {
		path, value = validators.NewPath("apiVersion"), meant.GroupVersion().String()
	}
	f := p.Report(path, path.Lookup(p.Object.Object), "%s; did you mean %s?", text, kindName(meant))
	f.Fix = fmt.Sprintf("Set apiVersion to %s and kind to %s.", meant.GroupVersion(), meant.Kind)
	// The edit of one field must make the object valid.
	if len(kind.Suggestions) == 1 && oneFieldApart(gvk, meant) && fits(ctx, nearKind, p.Object, meant) {
		f.Edits = []validators.Edit{{Op: validators.EditReplace, Path: path, Value: value}}
	}
	return nil
}

func oneFieldApart(a, b k8sschema.GroupVersionKind) bool {
	return (a.Kind == b.Kind) != (a.GroupVersion() == b.GroupVersion())
}
