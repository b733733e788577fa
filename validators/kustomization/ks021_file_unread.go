package kustomization

import (
	"context"
	"fmt"
	"strings"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

// FileUnread is the rule kustomization-file-unread.
//
// It is about the objects of other kinds than Flux's own, which kustomization-orphaned reports, and never more than an
// audit: trees contain files that are kept for later. Each file is reported once, and only where a kustomization.yaml has
// to list it, does not, and does not have it in a comment.
var FileUnread = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS021",
		Name:     "kustomization-file-unread",
		Scope:    validators.Scope{Unapplied: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityInfo,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionAudit},
		Doc: validators.Doc{
			Title: "No build reads the file",
			Why: "The file has Kubernetes objects and is in a directory that Flux builds, but no kustomization.yaml lists it: " +
				"it looks deployed and is not.",
			Fix:   Unapplied.Doc.Fix,
			Since: "v0.1.0",
		},
	},
	Check: func(_ context.Context, p *validators.Pass) error {
		if isFlux(p) {
			return nil
		}
		file, entry := p.Provenance.ReferencedBy, p.Provenance.Entry
		f := p.Report(validators.Path{}, nil, "no Kustomization reads this file; %s does not list %s", file, entry)
		f.Key = file + " " + entry
		f.Fix = listEntry(file, entry)
		return nil
	},
}

// isFlux reports whether the object is of one of Flux's own kinds.
func isFlux(p *validators.Pass) bool {
	return strings.HasSuffix(p.Object.GroupVersionKind().Group, ".toolkit.fluxcd.io")
}

// listEntry returns the fix of an entry that a kustomization.yaml does not have.
func listEntry(file, entry string) string {
	return fmt.Sprintf("List %s under resources in %s, or remove it. An entry in a comment there is taken as disabled.", entry, file)
}
