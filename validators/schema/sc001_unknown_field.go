package schema

import (
	"context"
	"fmt"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

// UnknownField is the rule unknown-field.
//
// A strict write and server-side apply refuse a field that the schema does not have; every other write drops it silently. Either way the
// object does not do what its file says.
var UnknownField = &validators.Rule{
	Meta: validators.Meta{
		ID:       "SC001",
		Name:     "unknown-field",
		Scope:    validators.Scope{AnyKind: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "Field that the kind does not have",
			Why: "The schema of the kind has no such field. Flux's server-side apply fails on it, and everything behind the Kustomization waits; " +
				"a write that does not validate strictly drops the field, and nothing of what it says happens.",
			Fix:   "Correct the field's name or place, or remove it.",
			Since: since,
		},
	},
	Check: checkUnknownField,
}

func checkUnknownField(ctx context.Context, p *validators.Pass) error {
	s, ok := schemaOf(ctx, p)
	if !ok {
		return nil
	}
	unknown := s.UnknownFields(p.Object)
	wanted := map[string]int{}
	for _, f := range unknown {
		wanted[f.Suggestion.String()]++
	}
	for _, f := range unknown {
		text := fmt.Sprintf("%s is not a field of %s%s", f.Path, kindName(p.Object.GroupVersionKind()), s.by)
		if f.Suggestion == nil {
			p.Report(f.Path, nil, "%s", text)
			continue
		}
		finding := p.Report(f.Path, nil, "%s; did you mean %s?", text, f.Suggestion)
		finding.Fix = fmt.Sprintf("Write %s instead.", f.Suggestion)
		// Two fields that mean the same one cannot both become it.
		if f.Renamable && wanted[f.Suggestion.String()] == 1 {
			finding.Edits = []validators.Edit{{Op: validators.EditMove, From: f.Path, Path: f.Suggestion}}
		}
	}
	return nil
}
