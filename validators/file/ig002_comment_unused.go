package file

import (
	"context"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

// CommentUnused is the rule ignore-comment-unused.
var CommentUnused = &validators.Rule{
	Meta: validators.Meta{
		ID:       "IG002",
		Name:     "ignore-comment-unused",
		Scope:    validators.Scope{File: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Comment ignores what is not reported",
			Why: "The finding that the comment was written for is gone. The next one of the same rule at the same position " +
				"would be ignored unseen.",
			Fix:   "Remove the rule from the comment, or the comment.",
			Since: "v0.1.0",
		},
	},
	Check: func(_ context.Context, p *validators.Pass) error {
		report(p, validators.ProblemCommentUnused)
		return nil
	},
}
