package schema

import (
	"context"
	"fmt"
	"strings"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
)

// UnknownField is the rule unknown-field.
//
// A strict write and server-side apply reject a field that the schema does not have; every other write drops it
// silently. Either way the object does not have the effect that its author expects.
var UnknownField = &validators.Rule{
	Meta: validators.Meta{
		ID:       "SC001",
		Name:     "unknown-field",
		Scope:    validators.Scope{AnyKind: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "Field does not exist in the schema",
			Why: "Flux's server-side apply fails on a field that the schema of the kind does not have, and " +
				"everything that depends on the Kustomization waits; a write without strict validation drops the " +
				"field silently.",
			Fix:   "Correct the name or the place of the field, or remove it.",
			Since: since,
		},
	},
	Check: checkUnknownField,
}

func checkUnknownField(ctx context.Context, p *validators.Pass) error {
	s, ok := schemaOf(ctx, p)
	if !ok {
		if !unresolved.IsEncryptedObject(p.Object.Object) {
			for _, path := range unknownMetadata(p.Object) {
				p.Report(path, nil, "%s is not a field of any object's metadata", path)
			}
		}
		return nil
	}
	unknown := s.UnknownFields(p.Object)
	wanted := map[string]int{}
	for _, f := range unknown {
		wanted[f.Suggestion.String()]++
	}
	for _, f := range unknown {
		text := fmt.Sprintf("%s is not a field of %s%s", f.Path, kindName(p.Object.GroupVersionKind()), s.by)
		// What is below metadata is the same in all releases, and no field has a space in its name.
		uncertain := s.asOf != "" && f.Path[0].Key != "metadata" && !strings.Contains(f.Path[len(f.Path)-1].Key, " ")
		if uncertain {
			text = fmt.Sprintf("%s is not a field of %s as of %s; a newer release may have it", f.Path, kindName(p.Object.GroupVersionKind()), s.asOf)
		}
		if f.Suggestion == nil {
			p.Report(f.Path, nil, "%s", text).Uncertain = uncertain
			continue
		}
		finding := p.Report(f.Path, nil, "%s; did you mean %s?", text, f.Suggestion)
		finding.Fix, finding.Uncertain = fmt.Sprintf("Rename the field to %s.", f.Suggestion), uncertain
		// Two fields cannot both be renamed to the same one. A field that a newer release may have is not renamed.
		if !uncertain && f.Renamable && wanted[f.Suggestion.String()] == 1 {
			finding.Edits = []validators.Edit{{Op: validators.EditMove, From: f.Path, Path: f.Suggestion}}
		}
	}
	return nil
}
