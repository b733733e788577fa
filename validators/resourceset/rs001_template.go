// Package resourceset has the rules on ResourceSets of the Flux Operator.
package resourceset

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/resourceset"
	"github.com/flux-admission/flux-admission/validators"
)

// TemplateFailed is the rule resourceset-template-failed.
//
// The Flux Operator executes the templates of a ResourceSet as Go templates with the delimiters << and >>, and with an
// error for a missing input. It applies nothing of a ResourceSet of which one template fails. Only the object's own
// inputs are used: those of providers are known in the cluster only.
var TemplateFailed = &validators.Rule{
	Meta: validators.Meta{
		ID:       "RS001",
		Name:     "resourceset-template-failed",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{{Group: "fluxcd.controlplane.io", Kind: "ResourceSet"}}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{
			Admission: v1alpha1.ActionWarn,
			Offline:   v1alpha1.ActionDeny,
			Reason:    "The operator in the cluster may have functions that this release does not know.",
		},
		Doc: validators.Doc{
			Title: "Template of the ResourceSet fails",
			Why: "The Flux Operator applies nothing of the ResourceSet, and reports the error of the template in its " +
				"status.",
			Fix:   "Close every << with >>, and use inputs and functions that exist.",
			Since: "v0.1.0",
		},
	},
	Check: func(_ context.Context, p *validators.Pass) error {
		for _, failed := range resourceset.Check(p.Object) {
			p.Report(failed.Template, nil, "the template in %s fails: %v", failed.Template, failed.Err)
		}
		return nil
	},
}
