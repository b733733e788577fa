package kustomization

import (
	"context"
	"fmt"
	"path"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

// Unapplied is the rule kustomization-orphaned.
//
// It is limited to Flux's own objects: a tree contains many files that are not meant to be applied, but a HelmRelease
// or a Kustomization in a directory that Flux builds is.
var Unapplied = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS009",
		Name:     "kustomization-orphaned",
		Scope:    validators.Scope{Unapplied: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "No Kustomization applies the Flux object",
			Why: "The file is in a directory that Flux builds, but no kustomization.yaml lists it: it looks " +
				"deployed and is not.",
			Fix: "List the file in a kustomization.yaml, or remove it. Where it is off on purpose, leave its entry in a " +
				"comment.",
			Since: "v0.1.0",
		},
	},
	Check: func(_ context.Context, p *validators.Pass) error {
		if !isFlux(p) {
			return nil
		}
		f := p.Report(validators.Path{}, nil, "no Kustomization applies this %s", p.Object.GetKind())
		if file, entry := p.Provenance.ReferencedBy, p.Provenance.Entry; file != "" {
			f.Message += fmt.Sprintf("; %s does not list %s", file, entry)
			f.Fix = listEntry(file, entry)
		} else if entry != "" {
			f.Message += "; without a kustomization.yaml Flux applies files that end in .yaml or .yml only"
			f.Fix = fmt.Sprintf("Write it as YAML in a file that ends in .yaml, or list %s in a kustomization.yaml.", path.Base(entry))
		}
		return nil
	},
}
