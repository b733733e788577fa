package helmrelease

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// UnknownKey is the rule helm-values-unknown-key.
//
// It covers charts without a schema, or with a schema that allows additional keys. A key is known by the chart's
// values.yaml, by the comments in it and by its use in templates; keys below a map that a chart passes on as a whole
// are not reported. If the chart can be templated, a key is unused exactly if the result without it is the same.
var UnknownKey = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR002",
		Name:     "helm-values-unknown-key",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Admission: v1alpha1.ActionWarn, Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Chart does not use a value",
			Why: "Helm accepts every key that the chart's schema does not forbid, and ignores those that no " +
				"template uses: the release is installed and the setting has no effect. The name is misspelled, " +
				"belongs to another version of the chart, or is in the wrong place.",
			Fix:   "Correct the name, move it to where the chart uses it, or remove it.",
			Since: "v0.1.0",
		},
		Reads: ValuesSchema.Reads,
	},
	Check: checkUnknownKey,
}

func checkUnknownKey(ctx context.Context, p *validators.Pass) error {
	ref, ok := ChartRef(p.Object)
	if !ok {
		return nil // the CRD rejects that
	}
	chart, ok := chartOf(ctx, p, ref)
	if !ok {
		return nil
	}
	values := releaseValues(ctx, p.Object, p.Lookup)
	if p.Provenance == nil {
		values, _ = withoutSecrets(values) // a finding names the key
	}
	result, err := chart.Validate(ctx, values)
	if err != nil {
		p.Unknown("cannot compose the values for chart %s %s: %v", chart.Name(), chart.Version(), err)
		return nil
	}
	keys := result.UnusedValues(ctx)
	// Templating is exact where texts are only hints. Helm does not template a chart whose schema rejects the values.
	if len(result.Violations) == 0 {
		release := installOf(p.Object, values)
		release.UnusedValues = true
		if out, presence, _ := chart.Template(ctx, release); presence == validators.Present && out.UnusedValues != nil {
			keys = out.UnusedValues
		}
	}
	for i, k := range keys {
		if i == maxViolations {
			f := p.Report(
				validators.NewPath("spec", "values"),
				nil,
				"and %d more values that chart %s %s does not use",
				len(keys)-i,
				chart.Name(),
				chart.Version(),
			)
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
	message := fmt.Sprintf("chart %s %s does not use the value %s", chart.Name(), chart.Version(), k.Path)
	if k.Chart != chart.Name() {
		message = fmt.Sprintf("subchart %s of %s", k.Chart, message)
	}
	last := k.Path[len(k.Path)-1].Key
	dotted := strings.Contains(last, ".")
	switch {
	case dotted:
		message += fmt.Sprintf("; the dots in '%s' are part of one key", last)
	case k.Suggestion != "":
		message += fmt.Sprintf("; did you mean '%s'?", k.Suggestion)
	}
	f := p.Report(path, nil, "%s", message)
	if dotted {
		f.Fix = "Write the key as nested maps, one for each dot, as the chart's values.yaml has them, or remove it."
	}
	// Another version of the chart does not make it another finding.
	f.Key = k.Chart + " " + k.Path.Pointer()
	// No edits: without a schema it is unknown whether the value is valid under the other name.
}
