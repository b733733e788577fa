package values

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"

	"github.com/flux-admission/flux-admission/internal/charts/schema"
	"github.com/flux-admission/flux-admission/validators"
)

// Chart is a chart prepared for composing values many times. It is immutable and safe for concurrent use.
type Chart struct {
	chart *chart.Chart
	// defaults are what Helm makes of the chart's values when a release sets none. Only for charts whose top-level keys do not
	// depend on one another: those without subcharts.
	defaults map[string]any
}

// Layer is what one chart's schema is put to.
type Layer struct {
	// Chart is the chart or subchart, its name being the one it is known by in the release's values.
	Chart *chart.Chart
	// Path is the place of the chart's values in the release's.
	Path validators.Path
	// Values are the chart's values: a map, an Open or Unknown of package schema, or what stands there by mistake.
	Values any
}

// NewChart prepares a chart, which must not be changed any more. The error quotes nothing of the chart's values.
func NewChart(c *chart.Chart) (*Chart, error) {
	out := &Chart{chart: c}
	if !simple(c) {
		return out, nil
	}
	defaults, err := util.CoalesceValues(c, map[string]any{})
	if err != nil {
		return nil, errors.New("Helm cannot compose the chart's own values") //nolint:staticcheck // Helm is a name
	}
	out.defaults = defaults
	return out, nil
}

// simple tells whether a chart's values are composed key by key: without subcharts, and with nothing imported.
func simple(c *chart.Chart) bool {
	return len(c.Dependencies()) == 0 && !slices.ContainsFunc(c.Metadata.Dependencies, func(d *chart.Dependency) bool {
		return d == nil || len(d.ImportValues) > 0
	})
}

// Compose puts a release's values over the chart's and returns the chart and its enabled subcharts, each with its values, parents first.
// What is not known is marked. The second result says what of the chart could not be taken into account.
func (c *Chart) Compose(r *Release) ([]Layer, []string, error) {
	if r.Open {
		var missing []string
		if len(c.chart.Dependencies()) > 0 {
			missing = []string{"subcharts, which the missing values may disable"}
		}
		return []Layer{{Chart: c.chart, Values: open(r.Values, r.placeholders)}}, missing, nil
	}
	if c.defaults != nil {
		merged, err := c.mergeSimple(r.Values)
		if err != nil {
			return nil, nil, err
		}
		return []Layer{{Chart: c.chart, Values: mark(merged, r.placeholders, c.chart.Values)}}, nil, nil
	}
	return c.composeTree(r)
}

// mergeSimple has Helm merge only the keys that the release sets; all others are the chart's, as Helm would leave them.
// Copying the defaults of a large chart costs more than everything else that is done for a review.
func (c *Chart) mergeSimple(values map[string]any) (map[string]any, error) {
	touched := make(map[string]any, len(values))
	for k := range values {
		if d, ok := c.chart.Values[k]; ok {
			touched[k] = d
		}
	}
	merged, err := coalesce(&chart.Chart{Metadata: c.chart.Metadata, Values: touched}, values)
	if err != nil {
		return nil, err
	}
	for k, d := range c.defaults {
		if _, ok := values[k]; !ok {
			merged[k] = d
		}
	}
	return merged, nil
}

func coalesce(c *chart.Chart, values map[string]any) (map[string]any, error) {
	merged, err := util.CoalesceValues(c, values)
	if err != nil {
		// The text quotes the value.
		return nil, errors.New("Helm cannot merge the release's values into the chart's") //nolint:staticcheck // Helm is a name
	}
	return merged, nil
}

// composeTree composes the values of a chart with subcharts.
func (c *Chart) composeTree(r *Release) ([]Layer, []string, error) {
	tree := clone(c.chart)
	// What is no table where a subchart's values belong, Helm cannot merge; it is reported instead.
	if layers := misfits(tree, r.Values, nil); len(layers) > 0 {
		return layers, nil, nil
	}
	if err := chartutil.ProcessDependencies(tree, r.Values); err != nil {
		return nil, nil, errors.New("Helm cannot resolve the chart's dependencies with these values") //nolint:staticcheck // Helm is a name
	}
	merged, err := coalesce(tree, r.Values)
	if err != nil {
		return nil, nil, err
	}
	root := mark(merged, r.placeholders, nil)
	w := walker{root: root}
	w.visit(tree, nil, root, "")
	return w.layers, w.missing, nil
}

// misfits returns a layer for every subchart whose values are set to something else than a map.
func misfits(c *chart.Chart, values map[string]any, path validators.Path) []Layer {
	var out []Layer
	names := map[string]*chart.Chart{}
	for _, d := range c.Dependencies() {
		listed := false
		for _, m := range c.Metadata.Dependencies {
			if m == nil || m.Name != d.Name() {
				continue
			}
			listed = true
			names[cmp.Or(m.Alias, m.Name)] = d
		}
		if !listed {
			names[d.Name()] = d
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		switch v := values[name].(type) {
		case nil:
		case map[string]any:
			out = append(out, misfits(names[name], v, path.Child(name))...)
		default:
			out = append(out, Layer{Chart: names[name], Path: path.Child(name), Values: v})
		}
	}
	return out
}

// clone copies what ProcessDependencies changes: the charts and their metadata, not their values and schemas.
func clone(c *chart.Chart) *chart.Chart {
	out := *c
	md := *c.Metadata
	if md.Dependencies != nil {
		md.Dependencies = make([]*chart.Dependency, 0, len(c.Metadata.Dependencies))
		for _, d := range c.Metadata.Dependencies {
			if d != nil {
				copied := *d
				md.Dependencies = append(md.Dependencies, &copied)
			}
		}
	}
	out.Metadata = &md
	deps := make([]*chart.Chart, 0, len(c.Dependencies()))
	for _, d := range c.Dependencies() {
		deps = append(deps, clone(d))
	}
	out.SetDependencies(deps...)
	return &out
}

// walker lists the charts that Helm would validate.
type walker struct {
	root    any
	layers  []Layer
	missing []string
}

func (w *walker) visit(c *chart.Chart, path validators.Path, values any, prefix string) {
	self := len(w.layers)
	w.layers = append(w.layers, Layer{Chart: c, Path: path, Values: values})
	m, ok := values.(map[string]any)
	o, isOpen := values.(schema.Open)
	if isOpen {
		m, ok = o, true
	}
	if !ok {
		return
	}
	for _, d := range c.Dependencies() {
		name := d.Name()
		sub := m[name]
		if w.uncertain(c, name, prefix) {
			// Whether the subchart is there at all depends on a value that is not known.
			w.missing = append(w.missing, fmt.Sprintf("subchart %s, whose condition is not known", name))
			m = maps.Clone(m)
			m[name] = schema.Unknown{MayVanish: true}
			w.layers[self].Values = m
			if isOpen {
				w.layers[self].Values = schema.Open(m)
			}
			continue
		}
		if sub != nil {
			w.visit(d, path.Child(name), sub, prefix+name+".")
		}
	}
}

// uncertain tells whether a value that enables a subchart is not known.
func (w *walker) uncertain(parent *chart.Chart, name, prefix string) bool {
	for _, d := range parent.Metadata.Dependencies {
		if d.Name != name {
			continue
		}
		for c := range strings.SplitSeq(d.Condition, ",") {
			if c = strings.TrimSpace(c); c != "" && w.unknownAt(prefix+c) {
				return true
			}
		}
		for _, tag := range d.Tags {
			if w.unknownAt("tags." + tag) {
				return true
			}
		}
	}
	return false
}

func (w *walker) unknownAt(dotted string) bool {
	v := w.root
	for k := range strings.SplitSeq(dotted, ".") {
		switch m := v.(type) {
		case map[string]any:
			v = m[k]
		case schema.Open:
			v = m[k]
		}
		if _, ok := v.(schema.Unknown); ok {
			return true
		}
	}
	return false
}

// mark replaces placeholders by Unknown, copying the maps and lists on the way to them. The defaults tell whether a key may vanish: a
// placeholder that becomes null removes a default. With defaults nil any key may.
func mark(v any, placeholders map[string]bool, defaults map[string]any) any {
	if len(placeholders) == 0 {
		return v
	}
	m := marker{placeholders: placeholders}
	out, _ := m.mark(v, defaults, defaults == nil)
	return out
}

type marker struct{ placeholders map[string]bool }

func (m marker) mark(v any, defaults any, vanish bool) (any, bool) {
	switch v := v.(type) {
	case string:
		if m.placeholders[v] {
			return schema.Unknown{MayVanish: vanish || defaults != nil}, true
		}
	case map[string]any:
		d, _ := defaults.(map[string]any)
		var out map[string]any
		isOpen := false
		for k, c := range v {
			if m.placeholders[k] {
				isOpen = true
			}
			marked, changed := m.mark(c, d[k], vanish)
			if !changed && !m.placeholders[k] {
				continue
			}
			if out == nil {
				out = maps.Clone(v)
			}
			out[k] = marked
			if m.placeholders[k] {
				delete(out, k)
			}
		}
		switch {
		case isOpen:
			return schema.Open(out), true
		case out != nil:
			return out, true
		}
	case []any:
		var out []any
		for i, c := range v {
			// An item of a list is there, whatever it is.
			marked, changed := m.mark(c, nil, false)
			if !changed {
				continue
			}
			if out == nil {
				out = slices.Clone(v)
			}
			out[i] = marked
		}
		if out != nil {
			return out, true
		}
	}
	return v, false
}

// open makes every map of the values one that may have more keys. Null may remove a default, which may not be there to be removed.
func open(v any, placeholders map[string]bool) any {
	switch v := v.(type) {
	case nil:
		return schema.Unknown{MayVanish: true}
	case string:
		if placeholders[v] {
			return schema.Unknown{MayVanish: true}
		}
	case map[string]any:
		out := make(schema.Open, len(v))
		for k, c := range v {
			if !placeholders[k] {
				out[k] = open(c, placeholders)
			}
		}
		return out
	case []any:
		// Lists replace one another: what stands in one is all of it.
		return mark(v, placeholders, map[string]any{})
	}
	return v
}

// GlobalKey is the key whose values a chart shares with its subcharts.
const GlobalKey = common.GlobalKey
