package helmrelease

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// SchemaValidationHalfDisabled is the rule helm-schema-validation-half-disabled.
//
// helm-controller reads the field of the action that it takes, and that alone. A release that needs the field for its
// first install needs it for every upgrade as well, which fails days later with a change that has nothing to do with
// it. An explicit false for the other action is taken as intended.
var SchemaValidationHalfDisabled = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR010",
		Name:     "helm-schema-validation-half-disabled",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Admission: v1alpha1.ActionWarn, Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Schema validation is disabled for one action only",
			Why: "helm-controller reads spec.install.disableSchemaValidation for an install and " +
				"spec.upgrade.disableSchemaValidation for an upgrade. Values that violate the chart's schema pass one " +
				"action, and the other fails.",
			Fix:   "Set the field for the other action too, or correct the values and remove it.",
			Since: "v0.1.0",
		},
	},
	Check: checkHalfDisabled,
}

func checkHalfDisabled(_ context.Context, p *validators.Pass) error {
	const field = "disableSchemaValidation"
	for action, other := range map[string]string{"install": "upgrade", "upgrade": "install"} {
		disabled, _, _ := unstructured.NestedBool(p.Object.Object, "spec", action, field)
		if _, set, _ := unstructured.NestedBool(p.Object.Object, "spec", other, field); !disabled || set {
			continue
		}
		p.Report(
			validators.NewPath("spec", action, field),
			true,
			"schema validation is disabled for %s but not for %s",
			action,
			other,
		)
	}
	return nil
}
