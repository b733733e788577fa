package schema

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/version"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

// APIVersionNotServed is the rule api-version-not-served.
//
// It uses installed definitions only: another release of an operator may serve other versions.
var APIVersionNotServed = &validators.Rule{
	Meta: validators.Meta{
		ID:       "SC003",
		Name:     "api-version-not-served",
		Scope:    validators.Scope{AnyKind: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "API version is not served",
			Why: "The API server serves the kind, but not in this version: it answers \"no matches for kind\", and " +
				"everything that depends on the Kustomization waits.",
			Fix:   "Use a version that is served.",
			Since: since,
		},
	},
	Check: checkAPIVersion,
}

func checkAPIVersion(ctx context.Context, p *validators.Pass) error {
	gvk := p.Object.GroupVersionKind()
	kind, presence, err := p.Lookup.Kind(ctx, gvk.GroupKind())
	if presence == validators.Absent { // another rule reports it
		return nil
	}
	if kind == nil {
		p.Unknown("cannot determine the served versions of %s (%s): %v", gvk.Kind, gvk.Group, orNotFound(err))
		return nil
	}
	if slices.Contains(kind.Served, gvk.Version) {
		reportDeprecated(ctx, p, kind)
		return nil
	}
	if !kind.Installed && kind.Retired[gvk.Version] == "" {
		p.Unknown("cannot determine the served versions of %s (%s): %s does not serve %s, but another release may", gvk.Kind, gvk.Group, kind.Origin, gvk.Version)
		return nil
	}
	text := fmt.Sprintf("%s is not served", kindName(gvk))
	if why := kind.Retired[gvk.Version]; why != "" {
		text += " " + why
	} else {
		text += " by " + kind.Origin
	}
	f := p.Report(validators.NewPath("apiVersion"), gvk.GroupVersion().String(), "%s", text)
	// An older release may serve it, and it may be the one that is installed.
	f.Uncertain = !kind.Installed
	if len(kind.Served) == 0 {
		return nil
	}
	if !newer(kind.Served[0], gvk.Version) {
		f.Fix = fmt.Sprintf("Update what installs the kind: %s serves only older versions.", kind.Origin)
		return nil
	}
	to := gvk
	to.Version = kind.Served[0]
	var served []string
	for _, v := range kind.Served {
		to := gvk
		to.Version = v
		served = append(served, to.GroupVersion().String())
	}
	f.Fix = fmt.Sprintf("Set apiVersion to %s.", strings.Join(served, " or "))
	if fits(ctx, kind, p.Object, to) {
		f.Edits = []validators.Edit{{Op: validators.EditReplace, Path: validators.NewPath("apiVersion"), Value: to.GroupVersion().String()}}
	}
	return nil
}

// newer reports whether the API server prefers the version to the other one.
func newer(v, than string) bool { return version.CompareKubeAwareVersionStrings(v, than) > 0 }

// reportDeprecated warns of a served version that the installed definition deprecates in favor of a newer one.
func reportDeprecated(ctx context.Context, p *validators.Pass, kind *validators.Kind) {
	gvk := p.Object.GroupVersionKind()
	by := kind.Deprecated[gvk.Version]
	if by == "" || !kind.Installed || !newer(kind.Served[0], gvk.Version) {
		return
	}
	to := gvk
	to.Version = kind.Served[0]
	f := p.Report(validators.NewPath("apiVersion"), gvk.GroupVersion().String(), "%s is deprecated %s, and a later release removes it", kindName(gvk), by)
	f.Uncertain = true
	f.Fix = fmt.Sprintf("Write apiVersion: %s.", to.GroupVersion())
	if fits(ctx, kind, p.Object, to) {
		f.Edits = []validators.Edit{{Op: validators.EditReplace, Path: validators.NewPath("apiVersion"), Value: to.GroupVersion().String()}}
	}
}
