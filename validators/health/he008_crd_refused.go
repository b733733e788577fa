package health

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/condition"
	"github.com/flux-admission/flux-admission/validators"
)

// DefinitionRefused is the rule crd-refused.
//
// The API server stores a CustomResourceDefinition and reports in conditions what it does not accept: NamesAccepted=False if another
// definition has the names, NonStructuralSchema=True for a schema by which it neither prunes nor sets defaults. A new definition has no
// such condition, or a moment of Established=False.
var DefinitionRefused = &validators.Rule{
	Meta: validators.Meta{
		ID:        "HE008",
		Name:      "crd-refused",
		Scope:     validators.Scope{Kinds: []schema.GroupKind{definitionKind}},
		Stages:    validators.StageAudit,
		Component: Component,
		Severity:  validators.SeverityError,
		Defaults:  validators.Defaults{Audit: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "API server does not accept the CRD",
			Why: "A definition whose names another one has is not served, and objects of its kind cannot be created. By a schema that " +
				"is not structural, nothing is pruned and no default is set.",
			Fix:   "Delete the other definition, or change the names or the schema as the condition requires.",
			Since: "v0.1.0",
		},
	},
	Check: func(_ context.Context, p *validators.Pass) error {
		list := condition.Of(p.Object)
		if c := condition.Find(list, "NamesAccepted"); c.Is("False") && c.Reason != "NotAccepted" {
			p.Report(pathOf(c).Child("status"), nil, "its names are not accepted: %s", describe(c)).Key = c.Type
		}
		if c := condition.Find(list, "NonStructuralSchema"); c.Is("True") {
			p.Report(pathOf(c).Child("status"), nil, "its schema is not structural: %s", describe(c)).Key = c.Type
		}
		return nil
	},
}
