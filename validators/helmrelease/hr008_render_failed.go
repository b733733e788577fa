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
// It needs the chart with its templates, which only a check of a Git tree has. Values that the chart's schema refuses are left to helm-values-schema: Helm
// does not come to render then.
var RenderFailed = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR008",
		Name:     "helm-render-failed",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "HelmRelease whose chart does not render",
			Why: "Helm renders the chart's templates with the composed values before it installs or upgrades. A template that fails, because a value is missing, of another type, " +
				"or in a combination that the chart's author refuses, leaves the release as it was and the HelmRelease not ready.",
			Fix:   "Set the value that the template asks for, or correct the one it cannot take; the message names the template and its line.",
			Since: "v0.1.0",
		},
		Reads: ValuesSchema.Reads,
	},
	Check: checkRenderFailed,
}

func checkRenderFailed(ctx context.Context, p *validators.Pass) error {
	r, ok := renderingOf(ctx, p)
	if !ok || r.Failure == nil {
		return nil
	}
	failure := r.Failure
	path := chartPath(p.Object)
	inline := inlineAt(r.release.Values.Inline, failure.Values)
	if inline != nil {
		path = append(validators.NewPath("spec", "values"), inline...)
	}
	place := ""
	if failure.Template != "" {
		place = " (" + failure.Template
		if failure.Line > 0 {
			place += fmt.Sprintf(":%d", failure.Line)
		}
		place += ")"
	}
	f := p.Report(path, nil, "chart %s %s does not render: %s%s", r.chart.Name(), r.chart.Version(), failure.Message, place)
	// The same failure in another version of the chart is the same failure, wherever its line has moved.
	f.Key = failure.Template + " " + failure.Values.Pointer() + " " + failure.Message
	if len(failure.Values) > 0 && inline == nil {
		f.Fix = "The template asks for spec.values." + failure.Values.String() + ", which spec.values does not set. " + f.Fix
	}
	return nil
}

// inlineAt returns the part of a path that inline values set: all of it, or up to what is no map, so that nothing can be below it. Nil when they do not.
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
