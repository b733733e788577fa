package helmrelease

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// UnknownKey is the rule helm-values-unknown-key.
//
// It speaks where a schema is silent: the chart has none, or one that takes further keys. It knows a key by the chart's values.yaml, by the
// comments in it and by what the templates ask for, and says nothing where a chart passes on whatever it is given. Where the chart can be rendered, a key
// without which it renders to the same is the answer.
var UnknownKey = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR002",
		Name:     "helm-values-unknown-key",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Admission: v1alpha1.ActionWarn, Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "HelmRelease values that nothing in the chart reads",
			Why: "Helm takes every key that the chart's schema does not refuse, and ignores what no template reads: the release installs, and the setting " +
				"has no effect. It is a misspelt name, a name of an earlier version of the chart, or one in the wrong place.",
			Fix:   "Correct the name, move it to where the chart reads it, or remove it.",
			Since: "v0.1.0",
		},
		Reads: ValuesSchema.Reads,
	},
	Check: checkUnknownKey,
}

func checkUnknownKey(ctx context.Context, p *validators.Pass) error {
	ref, ok := ChartRef(p.Object)
	if !ok {
		return nil // the CRD refuses that
	}
	chart, ok := chartOf(ctx, p, ref)
	if !ok {
		return nil
	}
	values := releaseValues(ctx, p.Object, p.Lookup)
	verdict, err := chart.Validate(ctx, values)
	if err != nil {
		p.Unknown("the values for chart %s %s are not known: %v", chart.Name(), chart.Version(), err)
		return nil
	}
	keys := verdict.UnusedValues
	// Templated tells what texts only hint at. What a schema refuses is not rendered.
	if len(verdict.Violations) == 0 {
		release := asInstalled(p.Object, values)
		release.UnusedValues = true
		if out, presence, _ := chart.Template(ctx, release); presence == validators.Present && out.UnusedValues != nil {
			keys = out.UnusedValues
		}
	}
	for i, k := range keys {
		if i == maxViolations {
			f := p.Report(validators.NewPath("spec", "values"), nil, "and %d more keys that chart %s %s does not know", len(keys)-i, chart.Name(), chart.Version())
			f.Key = "more"
			break
		}
		reportUnknownKey(p, chart, k)
	}
	return nil
}

func reportUnknownKey(p *validators.Pass, chart validators.Chart, k validators.UnusedValue) {
	path := validators.NewPath("spec", "values")
	switch {
	case k.Inline:
		path = append(path, k.Path...)
	case k.From > 0:
		path = validators.NewPath("spec", "valuesFrom").Index(k.From - 1)
	}
	message := "nothing in chart " + chart.Name() + " " + chart.Version() + " reads " + k.Path.String()
	if k.Chart != chart.Name() {
		message = "nothing in subchart " + k.Chart + " of chart " + chart.Name() + " " + chart.Version() + " reads " + k.Path.String()
	}
	if k.Suggestion != "" {
		message += ", did you mean '" + k.Suggestion + "'?"
	}
	f := p.Report(path, nil, "%s", message)
	// The same key under another version of the chart is the same mistake.
	f.Key = k.Chart + " " + k.Path.Pointer()
	// No edits: without a schema nothing says whether the value fits under the other name.
}
