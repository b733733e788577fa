// Package chartsource finds the chart that a HelmRelease refers to and says what its schemas make of the release's values.
//
// A Resolver looks at the directories it was given, then at what it has read before, then at the source itself. A review waits for a source
// within a small budget only; reading goes on behind it.
package chartsource

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	chart "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/flux-admission/flux-admission/internal/helmchart/schema"
	"github.com/flux-admission/flux-admission/internal/helmchart/unusedvalues"
	"github.com/flux-admission/flux-admission/internal/helmchart/values"
	"github.com/flux-admission/flux-admission/validators"
)

// validateTimeout bounds holding values against a chart's schemas. The evaluation's own budget ends far sooner on any common machine.
const validateTimeout = 3 * time.Second

// compiled is one schema document; err says why it is of no use.
type compiled struct {
	schema *schema.Schema
	err    error
}

// Chart is a chart that is ready to judge values, and to render with them if it was read so. It is safe for concurrent use. It implements validators.Chart.
type Chart struct {
	name, version string
	chart         *values.Chart
	// schemas are the compiled schemas of the chart and its subcharts, by the first byte of what stands for the document: subcharts
	// are copied by Helm for every composition, their documents are not.
	schemas map[*byte]*compiled
	// byName are the schemas of the charts by the charts' names.
	byName map[string]*compiled
	words  *unusedvalues.Chart
	bytes  int64
	// elsewhere are dependencies whose charts are not known.
	elsewhere []string
	// cacheKey is where the chart is kept in the cache; empty for a chart that is not.
	cacheKey string
	// templates are what the chart renders with; nil for one that does not.
	templates *templates
}

// NewChart prepares a chart, which is the Chart's from then on: its templates and raw texts are dropped. It compiles the schemas of the chart and of all subcharts: off the request path.
// Load reads what schemas refer to; nil reads nothing. A schema that cannot be compiled is no error; it makes verdicts unknown.
func NewChart(c *chart.Chart, load schema.Load) *Chart { return newChart(c, load, false) }

// NewRenderable prepares a chart as NewChart does, and keeps its templates and files, so that it can be rendered.
func NewRenderable(c *chart.Chart, load schema.Load) *Chart { return newChart(c, load, true) }

func newChart(c *chart.Chart, load schema.Load, render bool) *Chart {
	out := &Chart{name: c.Name(), version: c.Metadata.Version, chart: values.NewChart(c), words: unusedvalues.New(c), schemas: map[*byte]*compiled{}, byName: map[string]*compiled{}}
	if render {
		out.templates = newTemplates(c)
	}
	out.add(c, load, map[[sha256.Size]byte]*compiled{})
	return out
}

func (c *Chart) add(ch *chart.Chart, load schema.Load, known map[[sha256.Size]byte]*compiled) {
	ch.Raw = nil
	if c.templates == nil {
		ch.Templates, ch.Files = nil, nil
	} else {
		c.bytes += sizeOfFiles(ch)
	}
	// With subcharts Helm's merged defaults are kept beside the charts' own.
	c.bytes += 4096 + 3*sizeOf(ch.Values)
	if len(ch.Schema) > 0 {
		sum := sha256.Sum256(ch.Schema)
		s := known[sum]
		if s == nil {
			s = &compiled{}
			if s.schema, s.err = schema.Compile(ch.Schema, load); s.err == nil {
				c.bytes += s.schema.Cost()
			}
			known[sum] = s
		}
		// The document is not needed any more; one byte of its own stands for it.
		ch.Schema = []byte{' '}
		c.schemas[&ch.Schema[0]], c.byName[ch.Name()] = s, s
	}
	for _, d := range ch.Dependencies() {
		c.add(d, load, known)
	}
}

// sizeOf estimates the memory of decoded values, in bytes.
func sizeOf(v any) int64 {
	n := int64(16)
	switch v := v.(type) {
	case string:
		n += int64(len(v))
	case map[string]any:
		for k, c := range v {
			n += int64(len(k)) + 48 + sizeOf(c)
		}
	case []any:
		for _, c := range v {
			n += sizeOf(c)
		}
	}
	return n
}

// Name implements validators.Chart.
func (c *Chart) Name() string { return c.name }

// Version implements validators.Chart.
func (c *Chart) Version() string { return c.version }

// Bytes estimates the memory that the chart takes.
func (c *Chart) Bytes() int64 { return c.bytes }

// Validate implements validators.Chart.
func (c *Chart) Validate(ctx context.Context, v validators.Values) (validators.ValuesResult, error) {
	ctx, cancel := context.WithTimeout(ctx, validateTimeout)
	defer cancel()
	release, err := values.FromRelease(ctx, v)
	if err != nil {
		return validators.ValuesResult{}, err
	}
	verdict, err := c.judgeAll(ctx, release)
	if err != nil {
		return validators.ValuesResult{}, err
	}
	if literal, ok := release.Literal(); ok {
		// When the placeholders, taken as text, change nothing, then the verdict is whole.
		as, err := c.judgeAll(ctx, literal)
		if err == nil && len(as.Violations) == len(verdict.Violations) {
			verdict = as
		} else {
			verdict.Missing = append(verdict.Missing, "values with placeholders that are filled in later")
		}
	}
	for i := range verdict.Violations {
		f := &verdict.Violations[i]
		path := f.Path
		if f.Keyword == "required" || f.Keyword == "dependentRequired" {
			path = path[:len(path)-1] // the object that lacks it
		}
		var moved int
		f.Inline, f.From, moved = locate(path, v, release)
		f.Path = slices.Clone(f.Path[moved:])
	}
	for _, k := range c.words.Unknown(release.Values, c.knows) {
		u := validators.UnusedValue{Chart: k.Chart, Path: k.Path, Suggestion: k.Suggestion}
		u.Inline, u.From, _ = locate(k.Path, v, release)
		verdict.UnusedValues = append(verdict.UnusedValues, u)
	}
	slices.SortStableFunc(verdict.Violations, func(a, b validators.Violation) int {
		return cmp.Or(cmp.Compare(a.Path.Pointer(), b.Path.Pointer()), cmp.Compare(a.Message, b.Message))
	})
	slices.Sort(verdict.Missing)
	verdict.Missing = slices.Compact(verdict.Missing)
	return verdict, nil
}

// judgeAll composes a release's values and puts them to the schemas of the chart and its enabled subcharts.
func (c *Chart) judgeAll(ctx context.Context, release *values.Release) (validators.ValuesResult, error) {
	layers, missing, err := c.chart.Compose(release)
	if err != nil {
		return validators.ValuesResult{}, err
	}
	verdict := validators.ValuesResult{
		Missing:   append(slices.Clone(release.Missing), missing...),
		HasSchema: len(missing) > 0 && len(c.schemas) > 0,
	}
	for _, name := range c.elsewhere {
		verdict.Missing = append(verdict.Missing, "subchart "+name+", which is fetched when the chart is packaged")
	}
	for _, layer := range layers {
		if err := c.judge(ctx, layer, &verdict); err != nil {
			return validators.ValuesResult{}, err
		}
	}
	return verdict, nil
}

// judge puts one chart's values to its schema.
func (c *Chart) judge(ctx context.Context, layer values.Layer, verdict *validators.ValuesResult) error {
	switch layer.Values.(type) {
	case map[string]any, schema.Open, schema.Unknown:
	default:
		verdict.Violations = append(verdict.Violations, validators.Violation{
			Chart: layer.Chart.Name(), Path: layer.Path, Keyword: "type",
			Message: "got " + schema.TypeName(layer.Values) + ", want object: these are the values of a subchart",
		})
		return nil
	}
	if len(layer.Chart.Schema) == 0 {
		return nil
	}
	verdict.HasSchema = true
	s := c.schemas[&layer.Chart.Schema[0]]
	if s == nil || s.err != nil {
		why := "is not known"
		if s != nil {
			why = "cannot be used: " + s.err.Error()
		}
		verdict.Missing = append(verdict.Missing, fmt.Sprintf("the schema of chart %s, which %s", layer.Chart.Name(), why))
		return nil
	}
	res, err := s.schema.Evaluate(ctx, layer.Values)
	if err != nil {
		return fmt.Errorf("chart %s: %w", layer.Chart.Name(), err)
	}
	for _, u := range res.NotLoaded {
		verdict.Missing = append(verdict.Missing, fmt.Sprintf("the schema at %s, which chart %s refers to and which is not loaded", u, layer.Chart.Name()))
	}
	for _, p := range res.Problems {
		verdict.Violations = append(verdict.Violations, validators.Violation{
			Chart:      layer.Chart.Name(),
			Path:       append(slices.Clone(layer.Path), p.Path...),
			Pointer:    p.Pointer,
			Keyword:    p.Keyword,
			Message:    p.Message,
			Suggestion: p.Suggestion,
			Allowed:    p.Allowed,
		})
	}
	return nil
}

// knows tells whether the schema of a chart, named, has anything to say of the name of a field.
func (c *Chart) knows(name string, path validators.Path) bool {
	s := c.byName[name]
	return s != nil && (s.err != nil || s.schema.Knows(path))
}

// locate says where a value was set: inline, or in an entry of valuesFrom, counted from 1. A subchart's global values may be the release's own; then the
// path is theirs without its first steps, as many as moved.
func locate(path validators.Path, v validators.Values, release *values.Release) (inline bool, from, moved int) {
	if values.Has(v.Inline, path) && (len(path) > 0 || len(v.Inline) > 0) {
		return true, 0, 0
	}
	for i, step := range path {
		if step.Key == values.GlobalKey && i > 0 {
			if values.Has(v.Inline, path[i:]) {
				return true, 0, i
			}
			break
		}
	}
	return false, release.Origin(path), 0
}
