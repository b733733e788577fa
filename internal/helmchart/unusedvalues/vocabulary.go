// Package unusedvalues tells which keys of a release's values a chart reads nowhere: no default of it has them, no comment in its values.yaml
// mentions them, none of its templates asks for them. Helm ignores such keys in silence.
package unusedvalues

import (
	"cmp"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	chart "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/validators"
)

// maxWords bounds the words that are kept of one chart's texts; beyond it nothing can be said.
const maxWords = 50_000

// Chart is what a chart's texts say of its values. It is immutable.
type Chart struct {
	name     string
	defaults map[string]any
	subs     map[string]*Chart
	// elsewhere are the names of subcharts that are not at hand.
	elsewhere map[string]bool
	// words are those of the comments in values.yaml and of the templates, of the whole tree of charts.
	words map[string]bool
	// documented are the words of the comments alone.
	documented map[string]bool
	// taken are the paths, joined by dots, of what templates take as a whole: what stands below is passed on, or read elsewhere.
	taken map[string]bool
}

// Key is a key that a chart knows nothing of.
type Key struct {
	// Chart is the name of the chart or subchart.
	Chart string
	// Path is the key's place in the release's values.
	Path validators.Path
	// Suggestion is the nearest key that the chart has in its place; empty when there is none near.
	Suggestion string
}

// New reads a chart's texts. The raw values.yaml and the templates have to be there; they are not kept.
func New(c *chart.Chart) *Chart {
	return build(c, map[string]bool{}, map[string]bool{})
}

func build(c *chart.Chart, words, documented map[string]bool) *Chart {
	out := &Chart{name: c.Name(), defaults: c.Values, subs: map[string]*Chart{}, elsewhere: map[string]bool{}, words: words, documented: documented, taken: map[string]bool{}}
	for _, f := range c.Raw {
		if f.Name == "values.yaml" {
			comments(string(f.Data), words)
			comments(string(f.Data), documented)
			out.takes(string(f.Data)) // values can be templates as well
		}
	}
	for _, f := range c.Templates {
		templates(string(f.Data), words)
		out.takes(string(f.Data))
	}
	for _, d := range c.Dependencies() {
		sub := build(d, words, documented)
		out.subs[d.Name()] = sub
		for _, m := range c.Metadata.Dependencies {
			if m != nil && m.Name == d.Name() {
				out.subs[cmp.Or(m.Alias, m.Name)] = sub
			}
		}
	}
	for _, m := range c.Metadata.Dependencies {
		if m == nil {
			continue
		}
		if name := cmp.Or(m.Alias, m.Name); out.subs[name] == nil {
			out.elsewhere[name] = true
		}
		// Conditions and tags are keys too.
		for _, word := range strings.FieldsFunc(m.Condition+","+strings.Join(m.Tags, ","), func(r rune) bool { return strings.ContainsRune(",. ", r) }) {
			add(word, words)
		}
	}
	return out
}

func add(word string, words map[string]bool) {
	if word != "" && len(words) <= maxWords {
		words[word] = true
	}
}

var (
	comment = regexp.MustCompile(`(?m)#.*$`)
	// In a comment a key is followed by a colon, or stands in a dotted path or in quotes.
	mentioned = regexp.MustCompile("[A-Za-z0-9_-]+(?:\\s*:|(?:\\.[A-Za-z0-9_-]+)+)|[`'\"][A-Za-z0-9_-]+[`'\"]")
	// In a template a key follows a dot, or stands in quotes as an argument.
	reference = regexp.MustCompile(`\.Values((?:\.[A-Za-z_][A-Za-z0-9_]*)+)`)
	asked     = regexp.MustCompile("\\.[A-Za-z_][A-Za-z0-9_]*|[\"`][A-Za-z0-9_.-]+[\"`]")
)

func comments(text string, words map[string]bool) {
	for _, c := range comment.FindAllString(text, -1) {
		for _, m := range mentioned.FindAllString(c, -1) {
			split(m, words)
		}
	}
}

func templates(text string, words map[string]bool) {
	for _, m := range asked.FindAllString(text, -1) {
		split(m, words)
	}
}

// takes notes what a text refers to by its whole path.
func (c *Chart) takes(text string) {
	for _, m := range reference.FindAllStringSubmatch(text, -1) {
		if len(c.taken) <= maxWords {
			c.taken[m[1][1:]] = true
		}
	}
}

func split(s string, words map[string]bool) {
	for _, w := range strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(".:'\"` \t", r) }) {
		add(w, words)
	}
}

// Known tells whether a chart's schema knows the field at a path of the chart's own values, or refuses it by itself.
type Known func(chart string, path validators.Path) bool

// Unknown returns the keys of a release's values that the chart knows nothing of, in the order of their paths. It is silent where a chart
// takes whatever it is given. The values are those of the release alone, without the chart's.
func (c *Chart) Unknown(values map[string]any, known Known) []Key {
	if len(c.words) > maxWords || len(c.defaults) == 0 && len(c.subs) == 0 {
		return nil
	}
	return find(c, values, finder{known: known})
}

// Candidates returns the keys of a release's values that the chart may know nothing of, in the order of their paths: no default of it has them, no comment
// mentions them, and no template asks for them by their whole path. Templated the chart without one tells whether it is read all the same.
func (c *Chart) Candidates(values map[string]any, known Known) []Key {
	if len(c.words) > maxWords || len(c.taken) > maxWords {
		return nil
	}
	return find(c, values, finder{known: known, rendered: true})
}

func find(c *Chart, values map[string]any, f finder) []Key {
	f.chart(c, values, nil)
	slices.SortFunc(f.keys, func(a, b Key) int { return cmp.Compare(a.Path.Pointer(), b.Path.Pointer()) })
	return f.keys
}

type finder struct {
	known Known
	// rendered tells that what is found is rendered without it.
	rendered bool
	keys     []Key
}

// chart looks at the values of one chart, which start at root.
func (f *finder) chart(c *Chart, values map[string]any, root validators.Path) {
	plain := map[string]any{}
	for k, v := range values {
		sub, ok := c.subs[k]
		switch {
		case k == "global" || k == "tags" || c.elsewhere[k]:
		case ok:
			// A parent may set defaults of its own for a subchart, and read its values.
			if m, ok := v.(map[string]any); ok {
				merged := *sub
				if own, ok := c.defaults[k].(map[string]any); ok {
					merged.defaults = merge(sub.defaults, own)
				}
				if len(merged.defaults) > 0 || len(merged.subs) > 0 || f.rendered {
					f.chart(&merged, m, root.Child(k))
				}
			}
		default:
			plain[k] = v
		}
	}
	if len(c.defaults) > 0 || f.rendered {
		f.table(c, plain, c.defaults, root, root)
	}
}

func merge(a, b map[string]any) map[string]any {
	out := maps.Clone(a)
	if out == nil {
		out = map[string]any{}
	}
	for k, v := range b {
		if m, ok := v.(map[string]any); ok {
			if own, ok := out[k].(map[string]any); ok {
				v = merge(own, m)
			}
		}
		out[k] = v
	}
	return out
}

// table holds a map of the release's against the chart's map in the same place.
func (f *finder) table(c *Chart, values, defaults map[string]any, at, root validators.Path) {
	for k, v := range values {
		here := at.Child(k)
		def, ok := defaults[k]
		if ok {
			m, isMap := v.(map[string]any)
			own, wasMap := def.(map[string]any)
			// An empty map, null or a list takes what it is given; so do maps that the chart passes on to Kubernetes.
			if isMap && wasMap && len(own) > 0 && !freeForm(k) && !c.taken[dotted(here[len(root):])] {
				f.table(c, m, own, here, root)
			}
			continue
		}
		if v == nil || strings.Contains(k, "${") || f.known(c.name, here[len(root):]) {
			continue
		}
		near := suggest.Nearest(k, slices.Collect(maps.Keys(defaults)))
		if f.rendered {
			if c.documented[k] || c.asks(dotted(here[len(root):])) {
				continue
			}
		} else if c.words[k] || near == "" && item(v, defaults) {
			continue
		}
		f.keys = append(f.keys, Key{Chart: c.name, Path: here, Suggestion: near})
	}
}

// asks tells whether a template asks for a place, or for something in it.
func (c *Chart) asks(place string) bool {
	if c.taken[place] {
		return true
	}
	for t := range c.taken {
		if strings.HasPrefix(t, place+".") {
			return true
		}
	}
	// The helpers of a library chart are given the values of the charts that use it.
	for _, sub := range c.subs {
		if sub.asks(place) {
			return true
		}
	}
	return false
}

func dotted(path validators.Path) string {
	keys := make([]string, len(path))
	for i, s := range path {
		keys[i] = s.Key
	}
	return strings.Join(keys, ".")
}

// item tells whether a value looks like one more of the things that a map holds by name: hosts, controllers, users.
func item(v any, siblings map[string]any) bool {
	m, ok := v.(map[string]any)
	if !ok || len(siblings) == 0 {
		return false
	}
	shares := false
	for _, s := range siblings {
		sm, ok := s.(map[string]any)
		if !ok {
			return false
		}
		for k := range m {
			if _, both := sm[k]; both {
				shares = true
			}
		}
	}
	return shares
}

// passedOn are the names of maps that charts hand to Kubernetes or to an application as they are.
var passedOn = []string{
	"affinity", "annotations", "args", "configmapdata", "data", "env", "environment", "envs", "envvars", "headers", "labels", "limits", "lifecycle", "matchlabels",
	"nodeselector", "parameters", "params", "podsecuritycontext", "properties", "requests", "resources", "rules", "securitycontext", "selector", "settings", "spec", "strategy",
	"updatestrategy", "volumes",
}

var passedOnEndings = []string{
	"annotations", "config", "configs", "configuration", "env", "files", "labels", "options", "probe", "securitycontext", "selector", "settings", "strategy", "values",
}

// freeForm tells whether a map of this name takes keys that its chart does not list.
func freeForm(name string) bool {
	n := strings.ToLower(path.Base(name))
	if slices.Contains(passedOn, n) || strings.HasPrefix(n, "extra") || strings.HasPrefix(n, "additional") || strings.HasPrefix(n, "custom") {
		return true
	}
	return slices.ContainsFunc(passedOnEndings, func(e string) bool { return strings.HasSuffix(n, e) })
}
