package values

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"

	"github.com/flux-admission/flux-admission/internal/helmchart/schema"
	"github.com/flux-admission/flux-admission/validators"
)

// Chart is a chart prepared for composing values many times. It is safe for concurrent use; what it was made of is never changed.
type Chart struct {
	chart *chart.Chart
	// skeleton has of the chart what decides which subcharts are enabled; nil when the chart has neither subcharts nor imports.
	skeleton *chart.Chart
	// decisive are the top-level keys, of any chart in the tree, that the skeleton keeps.
	decisive map[string]bool

	mu sync.Mutex
	// variants are the chart with different subcharts enabled, by their names.
	variants map[string]*variant
}

// variant is a chart after Helm has processed its dependencies.
type variant struct {
	tree *chart.Chart
	// defaults are the values of the tree when a release sets none; nil when Helm cannot compose them without the release's.
	defaults map[string]any
}

// Tree returns the chart as Helm renders it with a release's values: with the subcharts that these enable. It must not be changed.
func (c *Chart) Tree(values map[string]any) (*chart.Chart, error) {
	v, err := c.variant(values)
	if err != nil {
		return nil, err
	}
	return v.tree, nil
}

// maxVariants bounds the variants of one chart that are kept: releases enable few combinations of subcharts.
const maxVariants = 8

// Layer is what one chart's schema is put to.
type Layer struct {
	// Chart is the chart or subchart, its name being the one it is known by in the release's values.
	Chart *chart.Chart
	// Path is the place of the chart's values in the release's.
	Path validators.Path
	// Values are the chart's values: a map, an Open or Unknown of package schema, or what stands there by mistake.
	Values any
}

// NewChart prepares a chart, which must not be changed any more.
func NewChart(c *chart.Chart) *Chart {
	out := &Chart{chart: c, variants: map[string]*variant{}}
	if !simple(c) {
		out.decisive = map[string]bool{GlobalKey: true, "tags": true}
		decisive(c, out.decisive)
		out.skeleton = skeleton(c, out.decisive)
		return out
	}
	out.variants[""] = newVariant(c)
	return out
}

// simple tells whether Helm's processing of dependencies leaves a chart as it is: it has no subcharts, and imports nothing.
func simple(c *chart.Chart) bool {
	return len(c.Dependencies()) == 0 && !slices.ContainsFunc(c.Metadata.Dependencies, func(d *chart.Dependency) bool {
		return d == nil || len(d.ImportValues) > 0
	})
}

// decisive gathers the keys that conditions pass through: the segments of their paths and the names of subcharts.
func decisive(c *chart.Chart, keys map[string]bool) {
	for _, d := range c.Metadata.Dependencies {
		if d == nil {
			continue
		}
		keys[d.Name], keys[d.Alias] = true, true
		for k := range strings.FieldsFuncSeq(d.Condition, func(r rune) bool { return r == ',' || r == '.' || r == ' ' }) {
			keys[k] = true
		}
	}
	for _, d := range c.Dependencies() {
		keys[d.Name()] = true
		decisive(d, keys)
	}
}

// skeleton copies a chart with only the values below the decisive keys. Which subcharts Helm enables depends on nothing else, because it
// merges top-level keys independently of one another.
func skeleton(c *chart.Chart, keys map[string]bool) *chart.Chart {
	out := *c
	out.Values, out.Schema, out.Files = pick(c.Values, keys), nil, nil
	deps := make([]*chart.Chart, 0, len(c.Dependencies()))
	for _, d := range c.Dependencies() {
		deps = append(deps, skeleton(d, keys))
	}
	out.SetDependencies(deps...)
	return &out
}

func pick(values map[string]any, keys map[string]bool) map[string]any {
	out := map[string]any{}
	for k, v := range values {
		if keys[k] {
			out[k] = v
		}
	}
	return out
}

func newVariant(tree *chart.Chart) *variant {
	v := &variant{tree: tree}
	if defaults, err := coalesce(tree, map[string]any{}); err == nil {
		v.defaults = defaults
	}
	return v
}

// variant returns the chart with the subcharts enabled that the values enable. Importing values does not depend on the release's, so
// that the names of the enabled subcharts say all.
func (c *Chart) variant(values map[string]any) (*variant, error) {
	key := ""
	if c.skeleton != nil {
		tree := clone(c.skeleton)
		if err := process(tree, pick(values, c.decisive)); err != nil {
			return nil, err
		}
		key = enabled(tree)
	}
	c.mu.Lock()
	v := c.variants[key]
	c.mu.Unlock()
	if v != nil {
		return v, nil
	}
	tree := clone(c.chart)
	if err := process(tree, values); err != nil {
		return nil, err
	}
	v = newVariant(tree)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.variants) >= maxVariants {
		clear(c.variants)
	}
	c.variants[key] = v
	return v, nil
}

func process(tree *chart.Chart, values map[string]any) error {
	if err := chartutil.ProcessDependencies(tree, values); err != nil {
		return errors.New("Helm cannot resolve the chart's dependencies with these values") //nolint:staticcheck // Helm is a name
	}
	return nil
}

// enabled names the subcharts of a tree.
func enabled(c *chart.Chart) string {
	var b strings.Builder
	for _, d := range c.Dependencies() {
		fmt.Fprintf(&b, "%q(%s)", d.Name(), enabled(d))
	}
	return b.String()
}

// Compose puts a release's values over the chart's and returns the chart and its enabled subcharts, each with its values, parents first.
// What is not known is marked. The second result says what of the chart could not be taken into account.
func (c *Chart) Compose(r *Release) ([]Layer, []string, error) {
	if r.Open {
		var missing []string
		if len(c.chart.Dependencies()) > 0 {
			missing = []string{"subcharts, which the missing values may disable"}
		}
		opened := open(r.Values, r.placeholders)
		forgetGlobals(c.chart, opened)
		return []Layer{{Chart: c.chart, Values: opened}}, missing, nil
	}
	// What is no table where a subchart's values belong, Helm cannot merge; it is reported instead.
	if layers := misfits(c.chart, r.Values, nil); len(layers) > 0 {
		return layers, nil, nil
	}
	v, err := c.variant(r.Values)
	if err != nil {
		return nil, nil, err
	}
	merged, err := v.merge(r.Values)
	if err != nil {
		return nil, nil, err
	}
	defaults := c.chart.Values
	if c.skeleton != nil {
		defaults = nil // they may come from subcharts as well
	}
	root := mark(merged, r.placeholders, defaults)
	w := walker{root: root}
	w.visit(v.tree, nil, root, "")
	return w.layers, w.missing, nil
}

// merge has Helm merge only the keys that the release sets; all others are the chart's, as Helm would leave them.
// Copying the values of a large chart costs more than everything else that is done for a review.
//
// A subchart's values depend on two keys of its parent: its name and global. One that neither is set for is left alone as well.
func (v *variant) merge(values map[string]any) (map[string]any, error) {
	if v.defaults == nil {
		return coalesce(v.tree, values)
	}
	touched := make(map[string]any, len(values))
	for k := range values {
		if d, ok := v.tree.Values[k]; ok {
			touched[k] = d
		}
	}
	_, global := values[GlobalKey]
	part := &chart.Chart{Metadata: v.tree.Metadata, Values: touched}
	var subcharts []*chart.Chart
	var left []string
	for _, d := range v.tree.Dependencies() {
		if _, set := values[d.Name()]; !set && !global {
			left = append(left, d.Name())
			continue
		}
		copied := *d // being added to a chart changes it
		subcharts = append(subcharts, &copied)
		for _, k := range []string{d.Name(), GlobalKey} {
			if def, ok := v.tree.Values[k]; ok {
				touched[k] = def
			}
		}
	}
	part.AddDependency(subcharts...)
	merged, err := coalesce(part, values)
	if err != nil {
		return nil, err
	}
	for k, d := range v.defaults {
		if _, done := merged[k]; !done {
			if _, set := values[k]; !set {
				merged[k] = d
			}
		}
	}
	for _, name := range left {
		merged[name] = v.defaults[name]
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

// forgetGlobals makes the global values that are set for subcharts unknown: those of the parent go before them.
func forgetGlobals(c *chart.Chart, values any) {
	m, ok := values.(schema.Open)
	if !ok {
		return
	}
	for name, d := range subcharts(c) {
		sub, ok := m[name].(schema.Open)
		if !ok {
			continue
		}
		if _, ok := sub[GlobalKey]; ok {
			sub[GlobalKey] = schema.Unknown{}
		}
		forgetGlobals(d, sub)
	}
}

// subcharts returns the subcharts of a chart by the names they have in its values.
func subcharts(c *chart.Chart) map[string]*chart.Chart {
	out := map[string]*chart.Chart{}
	for _, d := range c.Dependencies() {
		listed := false
		for _, m := range c.Metadata.Dependencies {
			if m != nil && m.Name == d.Name() {
				listed = true
				out[cmp.Or(m.Alias, m.Name)] = d
			}
		}
		if !listed {
			out[d.Name()] = d
		}
	}
	return out
}

// misfits returns a layer for every subchart whose values are set to something else than a map.
func misfits(c *chart.Chart, values map[string]any, path validators.Path) []Layer {
	var out []Layer
	names := subcharts(c)
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
	out, _ := m.mark(v, defaults, false, defaults == nil)
	return out
}

type marker struct{ placeholders map[string]bool }

// mark marks one value; has tells that the chart has a default in its place, be it null.
func (m marker) mark(v any, defaults any, has, vanish bool) (any, bool) {
	switch v := v.(type) {
	case string:
		if m.placeholders[v] {
			return schema.Unknown{MayVanish: vanish || has}, true
		}
	case map[string]any:
		d, _ := defaults.(map[string]any)
		var out map[string]any
		isOpen := false
		for k, c := range v {
			if m.placeholders[k] {
				isOpen = true
			}
			def, has := d[k]
			marked, changed := m.mark(c, def, has, vanish)
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
			marked, changed := m.mark(c, nil, false, false)
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
