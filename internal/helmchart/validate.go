package helmchart

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/flux-admission/flux-admission/internal/helmchart/schema"
	"github.com/flux-admission/flux-admission/internal/helmchart/values"
	"github.com/flux-admission/flux-admission/validators"
)

// maxSteps bounds the steps of validating one release against all schemas together. Each schema has a limit of its own.
const maxSteps = 10_000_000

// Validate implements validators.Chart.
func (c *Chart) Validate(ctx context.Context, v validators.Values) (validators.ValuesResult, error) {
	release, err := values.FromRelease(ctx, v)
	if err != nil {
		return validators.ValuesResult{}, err
	}
	result, err := c.validate(ctx, release)
	if err != nil {
		return validators.ValuesResult{}, err
	}
	if literal, ok := release.Literal(); ok {
		// If unresolved strings taken literally give the same number of violations, they do not matter to the result.
		full, err := c.validate(ctx, literal)
		if err == nil && len(full.Violations)+full.More == len(result.Violations)+result.More {
			result = full
		} else {
			result.Missing = append(result.Missing, "values that hold unresolved variables or are encrypted")
		}
	}
	slices.SortStableFunc(result.Violations, func(a, b validators.Violation) int {
		return cmp.Or(cmp.Compare(a.Path.Pointer(), b.Path.Pointer()), cmp.Compare(a.Message, b.Message))
	})
	if more := len(result.Violations) - schema.MaxProblems; more > 0 { // of several subcharts
		result.Violations = result.Violations[:schema.MaxProblems]
		result.More += more
	}
	for i := range result.Violations {
		f := &result.Violations[i]
		path := f.Path
		if f.Keyword == "required" || f.Keyword == "dependentRequired" {
			path = path[:len(path)-1] // the object that lacks the field
		}
		var skip int
		f.Inline, f.From, skip = origin(path, v, release)
		f.Path = slices.Clone(f.Path[skip:])
	}
	result.UnusedValues = func(ctx context.Context) (out []validators.UnusedValue) {
		for _, k := range c.unused.Unknown(ctx, release.Values, c.schemas.knower(ctx, false)) {
			out = append(out, unusedValue(k, v, release))
		}
		return out
	}
	slices.SortStableFunc(result.Violations, func(a, b validators.Violation) int {
		return cmp.Or(cmp.Compare(a.Path.Pointer(), b.Path.Pointer()), cmp.Compare(a.Message, b.Message))
	})
	slices.Sort(result.Missing)
	result.Missing = slices.Compact(result.Missing)
	return result, nil
}

// validate composes a release's values and validates them against the schemas of the chart and its enabled subcharts.
func (c *Chart) validate(ctx context.Context, release *values.Release) (validators.ValuesResult, error) {
	layers, missing, err := c.values.Compose(release)
	if err != nil {
		return validators.ValuesResult{}, err
	}
	result := validators.ValuesResult{
		Missing:   append(slices.Clone(release.Missing), missing...),
		HasSchema: len(missing) > 0 && len(c.schemas.byDocument) > 0,
	}
	for _, name := range c.missing {
		result.Missing = append(result.Missing, "subchart "+name+", which Flux fetches when it packages the chart")
	}
	steps := 0
	for _, layer := range layers {
		n, err := c.validateLayer(ctx, layer, &result)
		if err != nil {
			return validators.ValuesResult{}, err
		}
		if steps += n; steps > maxSteps {
			return validators.ValuesResult{}, schema.ErrBudget
		}
	}
	return result, nil
}

// validateLayer validates one chart's values against its schema, and returns the steps that it took.
func (c *Chart) validateLayer(ctx context.Context, layer values.Layer, result *validators.ValuesResult) (int, error) {
	name := layer.Chart.Name()
	switch layer.Values.(type) {
	case map[string]any, schema.Open, schema.Unknown:
	default:
		result.Violations = append(result.Violations, validators.Violation{
			Chart: name, Path: layer.Path, Keyword: "type",
			Message: "got " + schema.TypeName(layer.Values) + ", want object: these are the values of a subchart",
		})
		return 0, nil
	}
	if len(layer.Chart.Schema) == 0 {
		return 0, nil
	}
	result.HasSchema = true
	compiled := c.schemas.of(layer.Chart)
	switch {
	case compiled == nil:
		result.Missing = append(result.Missing, "the schema of chart "+name+", which was not compiled")
		return 0, nil
	case compiled.err != nil:
		result.Missing = append(result.Missing, fmt.Sprintf("the schema of chart %s, which cannot be used: %v", name, compiled.err))
		return 0, nil
	}
	res, err := compiled.schema.Evaluate(ctx, layer.Values)
	if err != nil {
		return 0, fmt.Errorf("chart %s: %w", name, err)
	}
	for _, u := range res.NotLoaded {
		result.Missing = append(result.Missing, fmt.Sprintf("the schema at %s, to which chart %s refers and which is not loaded (--schema-host allows its host)", u, name))
	}
	if res.TooComplex {
		result.Missing = append(result.Missing, "what chart "+name+" requires with patterns that are too complex to evaluate")
	}
	result.More += res.More
	for _, p := range res.Problems {
		result.Violations = append(result.Violations, validators.Violation{
			Chart:      name,
			Path:       append(slices.Clone(layer.Path), p.Path...),
			Pointer:    p.Pointer,
			Keyword:    p.Keyword,
			Message:    p.Message,
			Suggestion: p.Suggestion,
			Allowed:    p.Allowed,
		})
	}
	return res.Steps, nil
}
