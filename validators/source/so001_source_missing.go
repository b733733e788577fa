// Package source holds the rules on references to Flux sources.
package source

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// Missing is the rule source-missing.
//
// A reference without a namespace means the object's own namespace. A parent's `namespace:` transformer that moves the object moves what it refers to as
// well, and the source stays where it was. The charts of HelmReleases are helm-chart-not-found's.
var Missing = &validators.Rule{
	Meta: validators.Meta{
		ID:       "SO001",
		Name:     "source-missing",
		Kinds:    []schema.GroupKind{flux.Kustomization},
		Severity: validators.SeverityError,
		Doc: validators.Doc{
			Title: "Reference to a Flux source that does not exist",
			Why: "Without its source a Kustomization is never built: it waits for the source without an end. Without a namespace, sourceRef means the " +
				"Kustomization's own namespace.",
			Fix:   "Correct the name, or set sourceRef.namespace to the namespace that the source is in.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.GitRepository, flux.OCIRepository, flux.Bucket, {Group: flux.GitRepository.Group, Kind: "ExternalArtifact"}},
	},
	Check: check,
}

func check(ctx context.Context, p *validators.Pass) error {
	at := validators.NewPath("spec", "sourceRef")
	ref, _ := at.Lookup(p.Object.Object).(map[string]any)
	kind, _ := ref["kind"].(string)
	name, _ := ref["name"].(string)
	namespace, _ := ref["namespace"].(string)
	if kind == "" || name == "" {
		return nil // the CRD refuses that
	}
	key := types.NamespacedName{Namespace: namespace, Name: name}
	if key.Namespace == "" {
		key.Namespace = p.Object.GetNamespace()
	}
	to := schema.GroupKind{Group: flux.GitRepository.Group, Kind: kind}
	flux.Reference{At: at, To: to, Key: key}.Check(ctx, p)
	return nil
}
