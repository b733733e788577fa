package helmrelease

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// ValuesNoMap is the rule helm-values-no-map.
//
// The CRD accepts any value in spec.values. helm-controller decodes it into a map and ignores the error
// (api/v2: HelmRelease.GetValues), so that a text with YAML in it, as of a | too much, sets nothing.
var ValuesNoMap = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR016",
		Name:     "helm-values-no-map",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Admission: v1alpha1.ActionWarn, Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Values of the release are no map",
			Why:   "helm-controller installs the chart as if spec.values were not there, and reports nothing.",
			Fix:   "Write the values as YAML below spec.values, without a | or quotes.",
			Since: "v0.1.0",
		},
	},
	Check: checkValuesNoMap,
}

func checkValuesNoMap(_ context.Context, p *validators.Pass) error {
	at := validators.NewPath("spec", "values")
	written := ""
	switch v := at.Lookup(p.Object.Object).(type) {
	case nil, map[string]any:
		return nil
	case string:
		if unresolved.String(v) {
			return nil
		}
		written = "a string"
	case []any:
		written = "a list"
	default:
		written = "a single value"
	}
	p.Report(at, nil, "spec.values is %s, not a map: helm-controller installs the chart without it", written)
	return nil
}
