package file

import (
	"context"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

// MarkerUnused is the rule image-policy-marker-unused.
//
// image-automation-controller passes over a marker that it cannot read, or whose ImagePolicy it does not have, without an
// error. The rule needs an ImagePolicy or ImageUpdateAutomation in the tree, and evaluates the files that builds read.
var MarkerUnused = &validators.Rule{
	Meta: validators.Meta{
		ID:       "IM001",
		Name:     "image-policy-marker-unused",
		Scope:    validators.Scope{File: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Marker does not update the image",
			Why: "image-automation-controller passes over a marker that is not in its form, or names an ImagePolicy that " +
				"it does not have, without an error: the image is never updated. A marker for another part of the image " +
				"writes a value that the field cannot have.",
			Fix: "Write # {\"$imagepolicy\": \"NAMESPACE:NAME\"} behind the image, with :tag or :name where the field has one of " +
				"them, for an ImagePolicy in the namespace of an ImageUpdateAutomation that updates the file.",
			Since: "v0.1.0",
		},
	},
	Check: func(_ context.Context, p *validators.Pass) error {
		report(p, validators.ProblemMarkerUnused)
		return nil
	},
}
