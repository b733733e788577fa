package kustomization

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/match"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// TargetNamespaceParams are the parameters of kustomization-target-namespace.
type TargetNamespaceParams struct {
	// RequiredFor selects the Kustomizations that must set spec.targetNamespace. Without an entry the rule requires
	// nothing.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	RequiredFor []match.Match `json:"requiredFor,omitempty"`
}

// Compile checks and prepares the selectors.
func (t *TargetNamespaceParams) Compile() error {
	for i := range t.RequiredFor {
		if err := t.RequiredFor[i].Compile(); err != nil {
			return fmt.Errorf("requiredFor[%d].%w", i, err)
		}
	}
	return nil
}

// TargetNamespace is the rule kustomization-target-namespace.
//
// Without targetNamespace, each object goes to the namespace in its own file, and an object without a namespace goes
// to `default`. Where a platform maps a directory to a namespace, the field keeps a team's objects in it.
var TargetNamespace = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS002",
		Name:     "kustomization-target-namespace",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{
			Admission: v1alpha1.ActionDeny, Offline: v1alpha1.ActionDeny,
			Reason: "Requires nothing until requiredFor selects Kustomizations.",
		},
		Doc: validators.Doc{
			Title: "targetNamespace is required but not set",
			Why: "Without spec.targetNamespace every object is applied to the namespace in its own file, or to " +
				"`default` if there is none. The policy requires the field where a Kustomization must stay within " +
				"one namespace.",
			Fix:   "Set spec.targetNamespace to the namespace of the Kustomization's objects.",
			Since: "v0.1.0",
		},
		Params: func() any { return &TargetNamespaceParams{} },
	},
	Check: checkTargetNamespace,
}

func checkTargetNamespace(ctx context.Context, p *validators.Pass) error {
	if target, _, _ := unstructured.NestedString(p.Object.Object, "spec", "targetNamespace"); target != "" {
		return nil
	}
	params := p.Params.(*TargetNamespaceParams)
	for i := range params.RequiredFor {
		_, ok, err := params.RequiredFor[i].Object(ctx, p.Object)
		if err != nil {
			p.Unknown("cannot determine whether spec.targetNamespace is required: %v", err)
			return nil
		}
		if ok {
			p.Report(validators.NewPath("spec", "targetNamespace"), nil, "spec.targetNamespace is required but not set")
			return nil
		}
	}
	return nil
}
