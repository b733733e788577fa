package schema

import (
	"context"
	"fmt"
	"slices"
	"strings"

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
		return nil
	}
	if !kind.Installed {
		p.Unknown(
			"cannot determine the served versions of %s (%s): %s does not serve %s, but another release may",
			gvk.Kind,
			gvk.Group,
			kind.Origin,
			gvk.Version,
		)
		return nil
	}
	text := fmt.Sprintf("%s is not served", kindName(gvk))
	if why := kind.Retired[gvk.Version]; why != "" {
		text += " " + why
	} else {
		text += " by " + kind.Origin
	}
	f := p.Report(validators.NewPath("apiVersion"), gvk.GroupVersion().String(), "%s", text)
	if len(kind.Served) == 0 {
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
		f.Edits = []validators.Edit{
			{Op: validators.EditReplace, Path: validators.NewPath("apiVersion"), Value: to.GroupVersion().String()},
		}
	}
	return nil
}
