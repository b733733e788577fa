package kustomization

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// DecryptionMissing is the rule kustomization-decryption-missing.
//
// spec.decryption is each Kustomization's own: that of the Kustomization that applies it does not help. kustomize-controller
// refuses an encrypted Secret before it applies anything ("is SOPS encrypted, configuring decryption is required"),
// and the API server an object of another kind, which has no field sops.
var DecryptionMissing = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS012",
		Name:     "kustomization-decryption-missing",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "Kustomization cannot decrypt its SOPS-encrypted objects",
			Why: "kustomize-controller refuses to apply a SOPS-encrypted Secret without spec.decryption, and applies " +
				"nothing else of the Kustomization. A parent's decryption does not count for its children.",
			Fix: "Set spec.decryption with provider: sops and the Secret with the key in this Kustomization, or " +
				"decrypt the object with another tool.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.Kustomization},
	},
	Check: checkDecryption,
}

func checkDecryption(ctx context.Context, p *validators.Pass) error {
	reportProblems(
		ctx,
		p,
		func(problem validators.Problem) bool { return problem.Kind == validators.ProblemDecryptionMissing },
		func(f *validators.Finding, problem validators.Problem) { f.Key = problem.Message },
	)
	return nil
}
