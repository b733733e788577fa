package helmrelease

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
	"github.com/flux-admission/flux-admission/validators/reference"
)

// defaultValuesKey is the default of valuesKey in the HelmRelease API.
const defaultValuesKey = "values.yaml"

// ValuesReferenceMissing is the rule helm-values-reference-missing.
//
// The default is a warning: an operator may be about to create the Secret, and one apply may bring both objects.
var ValuesReferenceMissing = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR004",
		Name:     "helm-values-reference-missing",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Admission: v1alpha1.ActionWarn, Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "valuesFrom names a missing object or key",
			Why: "helm-controller cannot compose the values if an object or a key in spec.valuesFrom is missing " +
				"and not optional: the release is not applied.",
			Fix: "Create the object with that key in the release's namespace, correct the reference, or set " +
				"optional: true.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{{Kind: "ConfigMap"}, {Kind: "Secret"}},
	},
	Check: checkValuesReferences,
}

func checkValuesReferences(ctx context.Context, p *validators.Pass) error {
	for i, s := range releaseValues(ctx, p.Object, p.Lookup).From {
		at := validators.NewPath("spec", "valuesFrom").Index(i)
		switch {
		case s.Optional:
		case p.Provenance != nil && s.Presence != validators.Present && reference.Generated(ctx, p.Lookup, schema.GroupKind{Kind: s.Kind},
			types.NamespacedName{Namespace: p.Object.GetNamespace(), Name: s.Name}):
			// An operator creates it from an object of the tree. At admission the Secret itself is looked up.
		case s.Presence == validators.Absent:
			p.Report(at.Child("name"), s.Name, "%s %s/%s does not exist", s.Kind, p.Object.GetNamespace(), s.Name)
		case s.Presence == validators.Present && !hasKey(s.Object, key(s)):
			where := at.Child("valuesKey")
			p.Report(
				where,
				where.Lookup(p.Object.Object),
				"%s %s/%s has no key %s",
				s.Kind,
				p.Object.GetNamespace(),
				s.Name,
				key(s),
			)
		case s.Withheld:
			p.Skip("%s", s.Reason)
		case s.Presence == validators.Unknown:
			reason := ""
			if s.Reason != "" {
				reason = ": " + s.Reason
			}
			p.Unknown("cannot determine whether %s %s/%s exists%s", s.Kind, p.Object.GetNamespace(), s.Name, reason)
		}
	}
	return nil
}

func key(s validators.ValuesSource) string {
	if s.Key == "" {
		return defaultValuesKey
	}
	return s.Key
}

// hasKey reports whether a ConfigMap or Secret has a key that Flux reads. Flux does not read the binary data of a
// ConfigMap.
func hasKey(o *unstructured.Unstructured, key string) bool {
	fields := []string{"data"}
	if o.GetKind() == "Secret" {
		// A Secret in Git may have its values as plain text.
		fields = append(fields, "stringData")
	}
	for _, f := range fields {
		if m, _ := o.Object[f].(map[string]any); m != nil {
			if _, ok := m[key]; ok {
				return true
			}
		}
	}
	return false
}
