package helmrelease

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// RenderFailed is the rule helm-render-failed.
//
// It needs the chart with its templates, which only a check of a Git tree has. Helm does not template a chart whose
// schema rejects the values, so the rule on the schema reports those.
var RenderFailed = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR008",
		Name:     "helm-render-failed",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "Helm cannot template the chart",
			Why: "Helm templates the chart with the composed values before an install or upgrade. If a template " +
				"fails because a value is missing, has the wrong type, or is in a combination that the chart " +
				"rejects, the release stays as it was and the HelmRelease is not ready.",
			Fix: "Set the value that the template requires, or correct the invalid one; the message names the " +
				"template and its line.",
			Since: "v0.1.0",
		},
		Reads: ValuesSchema.Reads,
	},
	Check: checkRenderFailed,
}

func checkRenderFailed(ctx context.Context, p *validators.Pass) error {
	r, ok := templatedOf(ctx, p)
	if !ok || r.Failure == nil {
		return nil
	}
	failure := r.Failure
	path := chartPath(p.Object)
	inline := inlineAt(r.release.Values.Inline, failure.Values)
	if inline != nil {
		path = append(validators.NewPath("spec", "values"), inline...)
	}
	position := ""
	if failure.Template != "" {
		position = " (" + failure.Template
		if failure.Line > 0 {
			position += fmt.Sprintf(":%d", failure.Line)
		}
		position += ")"
	}
	f := p.Report(
		path,
		nil,
		"cannot template chart %s %s: %s%s",
		r.chart.Name(),
		r.chart.Version(),
		failure.Message,
		position,
	)
	// Another version of the chart, or another line, does not make it another failure.
	f.Key = failure.Template + " " + failure.Values.Pointer() + " " + failure.Message
	if len(failure.Values) > 0 && inline == nil {
		f.Fix = "Set spec.values." + failure.Values.String() + ", which the template uses. " + f.Fix
	}
	return nil
}

// inlineAt returns the part of a path that the inline values set: the whole path, or the part up to a value that is no
// map; nil if they set none of it.
func inlineAt(inline map[string]any, path validators.Path) validators.Path {
	var at any = inline
	for i, step := range path {
		m, ok := at.(map[string]any)
		if !ok {
			return path[:i]
		}
		if at, ok = m[step.Key]; !ok || step.IsIndex() {
			return nil
		}
	}
	return path
}
