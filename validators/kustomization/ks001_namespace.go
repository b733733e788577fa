// Package kustomization holds the rules on Flux Kustomizations.
package kustomization

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// NamespaceParams are the parameters of kustomization-namespace.
type NamespaceParams struct {
	// AllowedNamespaces are the exact names of the namespaces that a Flux Kustomization may live in.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:default={"flux-system"}
	// +listType=set
	AllowedNamespaces []string `json:"allowedNamespaces,omitempty"`
}

// Namespace is the rule kustomization-namespace.
//
// A Kustomization's namespace decides which sources, dependencies, secrets and service account its short names mean. One that a
// parent's `namespace:` transformer has moved looks right in Git and fails an hour later, when its GitRepository or its dependsOn
// is not found next to it. Only the namespace in which the API server stores the object counts, and that is the one seen here.
var Namespace = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS001",
		Name:     "kustomization-namespace",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{
			Admission: v1alpha1.ActionDeny, Offline: v1alpha1.ActionWarn,
			Reason: "Most repositories keep Kustomizations in namespaces of their own on purpose, so check only warns.",
		},
		Doc: validators.Doc{
			Title: "Flux Kustomization in a namespace that is not allowed",
			Why: "Names in sourceRef, dependsOn, decryption and serviceAccountName are looked up in the Kustomization's own namespace. " +
				"In the wrong one they mean other objects or none: the Kustomization never becomes Ready, and all that depends on it waits.",
			Fix: "Set metadata.namespace to an allowed namespace, and look for a `namespace:` in the kustomization.yaml of a parent directory " +
				"or a targetNamespace on the parent Kustomization, which move it.",
			Since: "v0.1.0",
		},
		Group:  "kustomization-namespace",
		Params: func() any { return &NamespaceParams{AllowedNamespaces: []string{"flux-system"}} },
	},
	Check: checkNamespace,
}

func checkNamespace(_ context.Context, p *validators.Pass) error {
	allowed := p.Params.(*NamespaceParams).AllowedNamespaces
	ns := p.Object.GetNamespace()
	if slices.Contains(allowed, ns) {
		return nil
	}
	where := "namespace " + ns
	if ns == "" {
		where = "no namespace"
	}
	f := p.Report(validators.NewPath("metadata", "namespace"), ns, "Kustomization is in %s, allowed is %s", where, strings.Join(allowed, ", "))
	if len(allowed) == 1 {
		op := validators.EditReplace
		if ns == "" {
			op = validators.EditAdd
		}
		f.Edits = []validators.Edit{{Op: op, Path: f.Path, Value: allowed[0]}}
	}
	return nil
}
