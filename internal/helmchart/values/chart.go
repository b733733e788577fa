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

// Chart is a chart prepared for composing values many times. It is safe for concurrent use, and never changes its
// source.
type Chart struct {
	chart *chart.Chart
	// conditionsOnly is the chart with only the values that enable subcharts; nil when the chart has neither subcharts nor
	// imports.
	conditionsOnly *chart.Chart
	// conditionKeys are the top-level keys, of any chart in the tree, that conditionsOnly keeps.
	conditionKeys map[string]bool

	mu sync.Mutex
	// processed are the chart's trees with different subcharts enabled, by the names of these.
	processed map[string]*processed
}

// processed is a chart after Helm has processed its dependencies.
type processed struct {
	tree *chart.Chart
	// defaults are the values of the tree when a release sets none; nil when Helm cannot compose them without the
	// release's.
	defaults map[string]any
}

// Tree returns the chart as Helm templates it with a release's values, with the subcharts that these enable. It must
// not be changed.
func (c *Chart) Tree(values map[string]any) (*chart.Chart, error) {
	p, err := c.process(values)
	if err != nil {
		return nil, err
	}
	return p.tree, nil
}

// maxProcessed bounds the trees of one chart that are cached: releases enable few combinations of subcharts.
const maxProcessed = 8

// Layer is the values of one chart, to be validated against its schema.
type Layer struct {
	// Chart is the chart or subchart. Its name is the one that the release's values use.
	Chart *chart.Chart
	// Path is the path of the chart's values in the release's.
	Path validators.Path
	// Values are the chart's values: a map, an Open or Unknown of package schema, or a value of another type by mistake.
	Values any
}

// NewChart prepares a chart, which must not be changed any more.
func NewChart(c *chart.Chart) *Chart {
	out := &Chart{chart: c, processed: map[string]*processed{}}
	if !simple(c) {
		out.conditionKeys = map[string]bool{GlobalKey: true, "tags": true}
		addConditionKeys(c, out.conditionKeys)
		out.conditionsOnly = keepKeys(c, out.conditionKeys)
		return out
	}
	out.processed[""] = newProcessed(c)
	return out
}

// simple reports whether Helm's processing of dependencies leaves a chart unchanged: it has no subcharts and no
// imports.
func simple(c *chart.Chart) bool {
	return len(c.Dependencies()) == 0 && !slices.ContainsFunc(c.Metadata.Dependencies, func(d *chart.Dependency) bool {
		return d == nil || len(d.ImportValues) > 0
	})
}

// addConditionKeys adds the keys that conditions lead through: the segments of their paths and the names of subcharts.
func addConditionKeys(c *chart.Chart, keys map[string]bool) {
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
		addConditionKeys(d, keys)
	}
}

// keepKeys copies a chart and its subcharts with only the values of some top-level keys. Helm merges top-level keys
// independently of one another, so that with the keys of conditions it enables the same subcharts.
func keepKeys(c *chart.Chart, keys map[string]bool) *chart.Chart {
	out := *c
	out.Values, out.Schema, out.Files = pick(c.Values, keys), nil, nil
	deps := make([]*chart.Chart, 0, len(c.Dependencies()))
	for _, d := range c.Dependencies() {
		deps = append(deps, keepKeys(d, keys))
	}
	out.SetDependencies(deps...)
	return &out
}

// pick copies the values of some top-level keys.
func pick(values map[string]any, keys map[string]bool) map[string]any {
	out := map[string]any{}
	for k, v := range values {
		if keys[k] {
			out[k] = v
		}
	}
	return out
}

func newProcessed(tree *chart.Chart) *processed {
	p := &processed{tree: tree}
	if defaults, err := coalesce(tree, map[string]any{}); err == nil {
		p.defaults = defaults
	}
	return p
}

// process returns the chart with the subcharts that the values enable. Importing values does not depend on the
// release's values, so that the names of the enabled subcharts identify the tree.
func (c *Chart) process(values map[string]any) (*processed, error) {
	key := ""
	if c.conditionsOnly != nil {
		tree := clone(c.conditionsOnly)
		if err := processDependencies(tree, pick(values, c.conditionKeys)); err != nil {
			return nil, err
		}
		key = enabled(tree)
	}
	c.mu.Lock()
	p := c.processed[key]
	c.mu.Unlock()
	if p != nil {
		return p, nil
	}
	tree := clone(c.chart)
	if err := processDependencies(tree, values); err != nil {
		return nil, err
	}
	p = newProcessed(tree)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.processed) >= maxProcessed {
		clear(c.processed)
	}
	c.processed[key] = p
	return p, nil
}

func processDependencies(tree *chart.Chart, values map[string]any) error {
	if err := chartutil.ProcessDependencies(tree, values); err != nil {
		return errors.New("Helm cannot resolve the chart's dependencies with these values") //nolint:staticcheck // Helm is a name
	}
	return nil
}

// enabled returns the names of the subcharts of a tree.
func enabled(c *chart.Chart) string {
	var b strings.Builder
	for _, d := range c.Dependencies() {
		fmt.Fprintf(&b, "%q(%s)", d.Name(), enabled(d))
	}
	return b.String()
}

// Compose merges a release's values over the chart's, and returns the chart and its enabled subcharts, each with its
// values, parents first. Unknown values are marked. The second result names the subcharts that could not be included.
func (c *Chart) Compose(r *Release) ([]Layer, []string, error) {
	if r.Open {
		var missing []string
		if len(c.chart.Dependencies()) > 0 {
			missing = []string{"subcharts, which the missing values may disable"}
		}
		opened := open(r.Values, r.unknown)
		markGlobals(c.chart, opened)
		return []Layer{{Chart: c.chart, Values: opened}}, missing, nil
	}
	// Helm cannot merge anything but a map into a subchart's values; it is reported instead.
	if layers := typeConflicts(c.chart, r.Values, nil); len(layers) > 0 {
		return layers, nil, nil
	}
	p, err := c.process(r.Values)
	if err != nil {
		return nil, nil, err
	}
	merged, err := p.merge(r.Values)
	if err != nil {
		return nil, nil, err
	}
	defaults := c.chart.Values
	if c.conditionsOnly != nil {
		defaults = nil // subcharts may have some as well
	}
	root := mark(merged, r.unknown, defaults)
	w := walker{root: root}
	w.visit(p.tree, nil, root, "")
	return w.layers, w.missing, nil
}

// merge merges a release's values over the chart's as Helm does. The result shares the maps that do not change: copying the values of
// a large chart costs more than validating them.
//
// A subchart's values depend on two keys of its parent: its name and global. Helm's library merges these where the release sets
// them; where it does not, they are the defaults.
func (p *processed) merge(values map[string]any) (map[string]any, error) {
	if p.defaults == nil {
		return coalesce(p.tree, values)
	}
	part := &chart.Chart{Metadata: p.tree.Metadata, Values: map[string]any{}}
	set := map[string]any{}
	global, hasGlobal := values[GlobalKey]
	var subcharts []*chart.Chart
	for _, d := range p.tree.Dependencies() {
		v, ok := values[d.Name()]
		if !ok && !hasGlobal {
			continue
		}
		copied := *d // AddDependency changes it
		subcharts = append(subcharts, &copied)
		if ok {
			set[d.Name()] = v
		}
		if hasGlobal {
			set[GlobalKey] = global
		}
		for _, k := range []string{d.Name(), GlobalKey} {
			if def, ok := p.tree.Values[k]; ok {
				part.Values[k] = def
			}
		}
	}
	if len(subcharts) == 0 {
		return p.overlay(values), nil
	}
	part.AddDependency(subcharts...)
	merged, err := coalesce(part, set)
	if err != nil {
		return nil, err
	}
	own := maps.Clone(values)
	maps.DeleteFunc(own, func(k string, _ any) bool {
		_, ok := set[k]
		return ok
	})
	out := maps.Clone(p.overlay(own))
	for k := range set {
		delete(out, k) // Helm may have removed it
	}
	maps.Copy(out, merged)
	return out, nil
}

// overlay merges values over the defaults of a chart, without what is special to subcharts. It is Helm's coalesceValues in
// helm.sh/helm/v4/pkg/chart/common/util, without its copies.
func (p *processed) overlay(values map[string]any) map[string]any {
	out, changed := overlay(values, p.defaults)
	for k, v := range values {
		if v != nil {
			continue
		}
		// At the top level, a null also removes the key if the chart's own value is null.
		if _, ok := p.tree.Values[k]; !ok {
			continue
		}
		if !changed {
			out, changed = maps.Clone(values), true
		}
		delete(out, k)
	}
	return out
}

// overlay merges values over defaults, which contain no null, as Helm's coalesceTables does: a null in values removes the default. It
// changes neither, and reports whether the result differs from values.
func overlay(values, defaults map[string]any) (map[string]any, bool) {
	out, changed := values, false
	change := func() map[string]any {
		if !changed {
			out, changed = make(map[string]any, max(len(values), len(defaults))), true
			maps.Copy(out, values)
		}
		return out
	}
	for k, d := range defaults {
		v, ok := values[k]
		if !ok {
			change()[k] = d
			continue
		}
		if v == nil {
			delete(change(), k)
			continue
		}
		m, isMap := v.(map[string]any)
		def, wasMap := d.(map[string]any)
		if !isMap || !wasMap {
			continue
		}
		if merged, differs := overlay(m, def); differs {
			change()[k] = merged
		}
	}
	return out, changed
}

func coalesce(c *chart.Chart, values map[string]any) (map[string]any, error) {
	merged, err := util.CoalesceValues(c, values)
	if err != nil {
		// The error quotes the value.
		return nil, errors.New("Helm cannot merge the release's values into the chart's") //nolint:staticcheck // Helm is a name
	}
	return merged, nil
}

// markGlobals makes the global values that are set for subcharts unknown: the parent's take precedence.
func markGlobals(c *chart.Chart, values any) {
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
		markGlobals(d, sub)
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

// typeConflicts returns a layer for every subchart whose values are set to something other than a map.
func typeConflicts(c *chart.Chart, values map[string]any, path validators.Path) []Layer {
	var out []Layer
	names := subcharts(c)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		switch v := values[name].(type) {
		case nil:
		case map[string]any:
			out = append(out, typeConflicts(names[name], v, path.Child(name))...)
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
			w.missing = append(w.missing, fmt.Sprintf("subchart %s, whose condition is unresolved", name))
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

// uncertain reports whether a value that enables a subchart is unknown.
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

// mark replaces unknown strings by schema.Unknown, and copies the maps and lists that lead to them. A string that turns
// out to be null removes the chart's default: the key may vanish if there is one. With defaults nil, any key may.
func mark(v any, unknown map[string]bool, defaults map[string]any) any {
	if len(unknown) == 0 {
		return v
	}
	m := marker{unknown: unknown}
	out, _ := m.mark(v, defaults, false, defaults == nil)
	return out
}

type marker struct{ unknown map[string]bool }

// mark marks one value. Has means that the chart has a default for it, null included.
func (m marker) mark(v any, defaults any, has, vanish bool) (any, bool) {
	switch v := v.(type) {
	case string:
		if m.unknown[v] {
			return schema.Unknown{MayVanish: vanish || has}, true
		}
	case map[string]any:
		d, _ := defaults.(map[string]any)
		var out map[string]any
		isOpen := false
		for k, c := range v {
			if m.unknown[k] {
				isOpen = true
			}
			def, has := d[k]
			marked, changed := m.mark(c, def, has, vanish)
			if !changed && !m.unknown[k] {
				continue
			}
			if out == nil {
				out = maps.Clone(v)
			}
			out[k] = marked
			if m.unknown[k] {
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
			// An item of a list cannot vanish.
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

// open turns every map into a schema.Open, which may have other keys. A null may vanish: it removes a default, if there
// is one.
func open(v any, unknown map[string]bool) any {
	switch v := v.(type) {
	case nil:
		return schema.Unknown{MayVanish: true}
	case string:
		if unknown[v] {
			return schema.Unknown{MayVanish: true}
		}
	case map[string]any:
		out := make(schema.Open, len(v))
		for k, c := range v {
			if !unknown[k] {
				out[k] = open(c, unknown)
			}
		}
		return out
	case []any:
		// A list replaces another as a whole.
		return mark(v, unknown, map[string]any{})
	}
	return v
}

// GlobalKey is the key whose values a chart shares with its subcharts.
const GlobalKey = common.GlobalKey
