package helmrelease

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// maxViolations limits the findings on one release; the others are counted.
const maxViolations = 50

// maxCorrections bounds the corrections of one release that are tried: each validates all values again.
const maxCorrections = 20

// ValuesSchema is the rule helm-values-schema.
//
// Helm refuses values that violate the schema at the next install or upgrade, and the release stays as it was.
var ValuesSchema = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR001",
		Name:     "helm-values-schema",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Admission: v1alpha1.ActionDeny, Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "Values violate the chart's schema",
			Why: "Before an install or upgrade Helm validates the composed values (the chart's own, then " +
				"spec.valuesFrom, then spec.values) against the values.schema.json of the chart and of each " +
				"enabled subchart. If they are invalid, the HelmRelease is not applied and stays not ready.",
			Fix:   "Correct the values at the positions, or choose a chart version whose schema allows them.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{
			{Kind: "ConfigMap"}, {Kind: "Secret"},
			flux.HelmRepository, flux.HelmChart, flux.OCIRepository, flux.GitRepository, flux.Bucket,
		},
	},
	Check: checkValuesSchema,
}

func checkValuesSchema(ctx context.Context, p *validators.Pass) error {
	next := nextAction(p.Request)
	if next.disabled {
		if next.otherDisabled {
			p.Skip("spec.%s.disableSchemaValidation disables the chart's schema", next.name)
		} else {
			p.Skip(
				"spec.%s.disableSchemaValidation disables the chart's schema for the next action only; spec.%s.disableSchemaValidation is not set",
				next.name,
				next.other,
			)
		}
		return nil
	}
	ref, ok := ChartRef(p.Object)
	if !ok {
		p.Unknown("the HelmRelease references no chart")
		return nil
	}
	chart, ok := chartOf(ctx, p, ref)
	if !ok {
		return nil
	}
	all := releaseValues(ctx, p.Object, p.Lookup)
	values, secrets := withoutSecrets(all)
	result, err := chart.Validate(ctx, values)
	if err != nil {
		p.Unknown("cannot validate the values for chart %s %s: %v", chart.Name(), chart.Version(), err)
		return nil
	}
	attempts := 0
	for i, v := range result.Violations {
		if i == maxViolations {
			f := p.Report(validators.NewPath("spec", "values"), nil, "and %d more violations of the schema of chart %s %s",
				len(result.Violations)-i+result.More, chart.Name(), chart.Version())
			f.Key = "more"
			break
		}
		f := report(p, chart, v, next)
		edit, ok := edit(p, f.Path, v)
		if !ok || attempts == maxCorrections || ctx.Err() != nil {
			continue
		}
		attempts++
		if resolves(ctx, chart, values, edit, result) {
			f.Edits = []validators.Edit{edit}
		}
	}
	if len(secrets) > 0 {
		result.Missing = without(result.Missing, values, func(s validators.ValuesSource) bool {
			return s.Kind == "Secret" && slices.Contains(secrets, s.Name)
		})
		if len(result.Violations) == 0 {
			validateSecrets(ctx, p, chart, all, secrets, &result)
		}
	}
	reportMissing(p, chart, all, result)
	return nil
}

// validateSecrets validates the values with those from Secrets, if result, that of the others, has no violation. The
// author of the release may have written the schema and may not be allowed to read the Secrets, so that what is reported
// is one sentence without anything that depends on their content: no position, keyword, operand, key or number.
func validateSecrets(
	ctx context.Context, p *validators.Pass, chart validators.Chart, values validators.Values, secrets []string,
	result *validators.ValuesResult,
) {
	for i, name := range secrets {
		secrets[i] = "Secret " + p.Object.GetNamespace() + "/" + name
	}
	from := strings.Join(secrets, ", ")
	full, err := chart.Validate(ctx, values)
	switch {
	case err != nil || len(full.Violations) == 0 && len(full.Missing) > len(result.Missing):
		p.Unknown("cannot validate the values of %s for chart %s %s", from, chart.Name(), chart.Version())
	case len(full.Violations) > 0:
		at := validators.NewPath("spec", "valuesFrom")
		if i := slices.IndexFunc(values.From, func(s validators.ValuesSource) bool {
			return s.Kind == "Secret" && s.Presence == validators.Present
		}); i >= 0 {
			at = at.Index(i)
		}
		f := p.Report(at, nil, "the values fail the schema of chart %s %s with those of %s", chart.Name(), chart.Version(), from)
		f.Key = "secret"
		if p.Provenance != nil {
			// The Secret is in the tree, as plain text. A message of a schema quotes no value.
			v := full.Violations[0]
			f.Fix = fmt.Sprintf("Correct the value at '%s': %s. ", v.Pointer, v.Message) + f.Fix
		} else {
			f.Fix = "Correct the values in the Secret; `helm template` with them reports the positions. " + f.Fix
		}
	}
	result.HasSchema = full.HasSchema || result.HasSchema
}

// without returns the missing parts without the selected sources that are Unknown.
func without(missing []string, values validators.Values, selected func(validators.ValuesSource) bool) []string {
	return slices.DeleteFunc(slices.Clone(missing), func(m string) bool {
		return slices.ContainsFunc(values.From, func(s validators.ValuesSource) bool {
			return s.Presence == validators.Unknown && selected(s) && m == s.Kind+" "+values.Namespace+"/"+s.Name+" could not be read"
		})
	})
}

// reportMissing records what could not be validated. Which Secrets are read for rules is up to the operator, and no
// reason to refuse a release that uses others.
func reportMissing(p *validators.Pass, chart validators.Chart, values validators.Values, result validators.ValuesResult) {
	if !result.HasSchema || len(result.Missing) == 0 {
		return
	}
	rest := without(result.Missing, values, func(s validators.ValuesSource) bool { return s.Withheld })
	if len(rest) == 0 {
		p.Skip("%s. The other values were validated for chart %s %s",
			strings.Join(withheld(values), "; "), chart.Name(), chart.Version())
		return
	}
	p.Unknown(
		"cannot validate all values against the schema of chart %s %s; missing: %s",
		chart.Name(),
		chart.Version(),
		strings.Join(result.Missing, "; "),
	)
}

// action is what Helm does next, and whether it validates the values then.
type action struct {
	name, other             string
	disabled, otherDisabled bool
}

// nextAction returns the next action: a release with a history is upgraded.
func nextAction(r validators.Request) action {
	a := action{name: "install", other: "upgrade"}
	if r.Operation == validators.Update {
		for _, o := range []*unstructured.Unstructured{r.Object, r.Old} {
			if o == nil {
				continue
			}
			if history, _, _ := unstructured.NestedSlice(o.Object, "status", "history"); len(history) > 0 {
				a.name, a.other = "upgrade", "install"
			}
		}
	}
	a.disabled, _, _ = unstructured.NestedBool(r.Object.Object, "spec", a.name, "disableSchemaValidation")
	a.otherDisabled, _, _ = unstructured.NestedBool(r.Object.Object, "spec", a.other, "disableSchemaValidation")
	return a
}

func report(p *validators.Pass, chart validators.Chart, v validators.Violation, next action) *validators.Finding {
	path := validators.NewPath("spec", "values")
	switch {
	case v.Inline:
		path = append(path, v.Path...)
	case v.From > 0:
		path = validators.NewPath("spec", "valuesFrom").Index(v.From - 1)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "at '%s': %s", v.Pointer, v.Message)
	if v.Suggestion != "" {
		fmt.Fprintf(&b, ", did you mean '%s'?", v.Suggestion)
	}
	if v.Chart != chart.Name() {
		fmt.Fprintf(&b, " (subchart %s of chart %s %s)", v.Chart, chart.Name(), chart.Version())
	} else {
		fmt.Fprintf(&b, " (chart %s %s)", chart.Name(), chart.Version())
	}
	f := p.Report(path, nil, "%s", b.String())
	// Another chart version, or a schema with another message, does not make it another violation.
	f.Key = strings.Join([]string{v.Chart, v.Path.Pointer(), v.Keyword}, " ")
	if len(v.Allowed) > 0 {
		f.Fix = "Use one of the allowed names: " + strings.Join(v.Allowed, ", ") + ". " + f.Fix
	}
	switch {
	case givenByHelm(v, chart):
		// Nothing in the values sets it, and nothing in them can remove it.
		f.Message += fmt.Sprintf("; Helm itself gives the values of every subchart the key global, and the schema of %s does not allow it", v.Chart)
		f.Fix = fmt.Sprintf("Choose a version of the chart whose schema allows global: it is the chart's mistake. "+
			"Until then set spec.install.disableSchemaValidation and spec.upgrade.disableSchemaValidation to true, or disable subchart %s.", v.Chart)
	case !v.Inline && v.From == 0 && len(v.Path) > 0:
		f.Fix = "Set spec.values." + v.Path.String() + ". " + f.Fix
	}
	if next.otherDisabled {
		f.Fix += fmt.Sprintf(
			" spec.%s.disableSchemaValidation is set but does not apply to the next action, which is %s.",
			next.other,
			next.name,
		)
	}
	return f
}

// givenByHelm reports whether a violation is about the key global of a subchart that no value of the release sets: Helm
// gives it to every subchart (helm.sh/helm/v4/pkg/chart/common/util, coalesceGlobals).
func givenByHelm(v validators.Violation, chart validators.Chart) bool {
	return v.Chart != chart.Name() && !v.Inline && v.From == 0 && len(v.Path) > 1 && v.Path[len(v.Path)-1].Key == "global" &&
		(v.Keyword == "additionalProperties" || v.Keyword == "unevaluatedProperties" || v.Keyword == "propertyNames")
}

// edit returns the edit that corrects a misspelled name or value, if there is one suggestion.
func edit(p *validators.Pass, path validators.Path, v validators.Violation) (validators.Edit, bool) {
	if v.Suggestion == "" || !v.Inline || len(v.Path) == 0 {
		return validators.Edit{}, false
	}
	switch v.Keyword {
	case "enum":
		return validators.Edit{Op: validators.EditReplace, Path: path, Value: v.Suggestion}, true
	case "additionalProperties", "unevaluatedProperties", "propertyNames":
		parent := path[:len(path)-1]
		if m, _ := parent.Lookup(p.Object.Object).(map[string]any); m != nil {
			if _, taken := m[v.Suggestion]; !taken {
				return validators.Edit{Op: validators.EditMove, From: path, Path: parent.Child(v.Suggestion)}, true
			}
		}
	}
	return validators.Edit{}, false
}

// resolves reports whether an edit of the release's own values removes violations without adding others: the nearest
// name is not always the right one.
func resolves(
	ctx context.Context,
	chart validators.Chart,
	values validators.Values,
	e validators.Edit,
	before validators.ValuesResult,
) bool {
	inline := runtime.DeepCopyJSON(values.Inline)
	within := len(validators.NewPath("spec", "values"))
	parent, _ := e.Path[within : len(e.Path)-1].Lookup(inline).(map[string]any)
	if parent == nil {
		return false
	}
	name := e.Path[len(e.Path)-1].Key
	if e.Op == validators.EditMove {
		was := e.From[len(e.From)-1].Key
		parent[name] = parent[was]
		delete(parent, was)
	} else {
		parent[name] = e.Value
	}
	values.Inline = inline
	after, err := chart.Validate(ctx, values)
	if err != nil || len(after.Violations)+after.More >= len(before.Violations)+before.More {
		return false
	}
	had := map[string]bool{}
	for _, v := range before.Violations {
		had[v.Pointer+v.Keyword+v.Message] = true
	}
	return !slices.ContainsFunc(
		after.Violations,
		func(v validators.Violation) bool { return !had[v.Pointer+v.Keyword+v.Message] },
	)
}

// describe returns the chart's name for messages.
func describe(ref validators.ChartRef) string {
	source := fmt.Sprintf("%s %s/%s", ref.Source.Kind, ref.Source.Namespace, ref.Source.Name)
	if ref.Chart == "" {
		return "chart of " + source
	}
	if ref.Version == "" {
		return fmt.Sprintf("chart %s of %s", ref.Chart, source)
	}
	return fmt.Sprintf("chart %s %s of %s", ref.Chart, ref.Version, source)
}
