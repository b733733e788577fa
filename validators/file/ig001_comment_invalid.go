package file

import (
	"context"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

// CommentInvalid is the rule ignore-comment-invalid.
var CommentInvalid = &validators.Rule{
	Meta: validators.Meta{
		ID:       "IG001",
		Name:     "ignore-comment-invalid",
		Scope:    validators.Scope{File: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "Comment ignores nothing",
			Why: "A comment that names no rule of this program, or gives no reason, ignores nothing: the findings that it is " +
				"about are reported. A reason is required, so that the next reader can decide whether it still holds.",
			Fix:   "Write # flux-admission: ignore RULE REASON, with the name or ID of a rule.",
			Since: "v0.1.0",
		},
	},
	Check: func(_ context.Context, p *validators.Pass) error {
		report(p, validators.ProblemCommentInvalid)
		return nil
	},
}
