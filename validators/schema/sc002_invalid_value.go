package schema

import (
	"context"
	"slices"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

// InvalidValue is the rule invalid-value.
//
// It says what the API server's own validation says of a custom resource (types, required fields, enums, patterns, list keys, CEL rules),
// and of Kubernetes' own kinds what their types cannot take and which list entries collide. Values are not quoted: one may come from a Secret.
var InvalidValue = &validators.Rule{
	Meta: validators.Meta{
		ID:       "SC002",
		Name:     "invalid-value",
		Scope:    validators.Scope{AnyKind: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "Value that the schema of the kind refuses",
			Why:   "The API server refuses the object on every write, and everything behind the Kustomization waits.",
			Fix:   "Write a value that the schema of the kind takes.",
			Since: since,
		},
	},
	Check: checkInvalidValue,
}

func checkInvalidValue(ctx context.Context, p *validators.Pass) error {
	s, ok := schemaOf(ctx, p)
	if !ok {
		return nil
	}
	left := 0
	for _, v := range s.InvalidValues(ctx, p.Object) {
		// A rule between fields has the place of what holds them.
		if slices.ContainsFunc(p.Unresolved, func(u validators.Path) bool { return v.Path.HasPrefix(u) || u.HasPrefix(v.Path) }) {
			left++
			continue
		}
		name := v.Path.String()
		if name == "" {
			name = "the object"
		}
		p.Report(v.Path, nil, "%s %s%s", name, v.Message, s.by)
	}
	if left > 0 {
		p.Unknown("some values are encrypted, or come from variables that are not in Git, and were not judged")
	}
	return nil
}
