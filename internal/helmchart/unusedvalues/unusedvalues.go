// Package unusedvalues finds the keys of a release's values that a chart does not use: no default has them, no comment
// in the chart's values.yaml mentions them, and no template reads them. Helm ignores such keys silently.
package unusedvalues

import (
	"cmp"
	"context"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	chart "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
)

// The limits of the words that are collected from the texts of one chart and its subcharts. A chart with more is not
// searched, and none are kept.
const (
	maxWords     = 100_000
	maxWordBytes = 2 << 20
)

// maxSearched bounds the keys of one release for which the most similar default is searched; later ones are not reported.
const maxSearched = 500

// Chart is what a chart's texts mention of its values. It is immutable.
type Chart struct {
	// collected is shared with all subcharts.
	collected *collected
	name      string
	defaults  map[string]any
	subs      map[string]*Chart
	// missing are the names of subcharts that are not in the chart's files.
	missing map[string]bool
	// read are the paths, joined by dots, that templates read. A map among them is passed on as a whole.
	read map[string]bool
}

// Key is a key that a chart does not use.
type Key struct {
	// Chart is the name of the chart or subchart.
	Chart string
	// Path is the key's path in the release's values.
	Path validators.Path
	// Suggestion is the most similar key that the chart has at that level; empty when there is none.
	Suggestion string
}

// collected are the words of the texts of a chart and its subcharts.
type collected struct {
	// words are those of the comments in values.yaml and of the templates.
	words map[string]bool
	// documented are the words of the comments alone.
	documented map[string]bool
	// free are the keys of maps in the values, and whether such a map commonly takes other keys; see freeForm.
	free map[string]bool
	// count and bytes are those of all words, the paths that templates read included.
	count int
	bytes int64
	// memory estimates what is kept, in bytes.
	memory int64
	// full means that there are more words than the limits allow.
	full bool
}

// add adds a word to a set. It copies the word, which is a part of a text that is not kept.
func (c *collected) add(set map[string]bool, word string) {
	if word == "" || c.full || set[word] {
		return
	}
	c.count++
	if c.bytes += int64(len(word)); c.count > maxWords || c.bytes > maxWordBytes {
		c.full = true
		return
	}
	c.memory += int64(len(word)) + 96
	set[strings.Clone(word)] = true
}

// maps adds the keys of maps in a chart's values.
func (c *collected) maps(values map[string]any) {
	for k, v := range values {
		m, ok := v.(map[string]any)
		if !ok {
			continue
		}
		if _, known := c.free[k]; !known && len(c.free) < maxWords {
			c.free[k] = freeForm(k)
			c.memory += 64
		}
		c.maps(m)
	}
}

// freeForm is the function of this name, for most keys from what is known.
func (c *collected) freeForm(name string) bool {
	if free, ok := c.free[name]; ok {
		return free
	}
	return freeForm(name)
}

// New collects the words of a chart's texts. It needs the raw values.yaml and the templates, and does not keep them.
func New(c *chart.Chart) *Chart {
	all := &collected{words: map[string]bool{}, documented: map[string]bool{}, free: map[string]bool{}}
	out := build(c, all)
	if all.full {
		*all = collected{full: true}
		return &Chart{name: out.name, collected: all}
	}
	return out
}

// Memory estimates the memory of the chart without its values, in bytes.
func (c *Chart) Memory() int64 { return 1024*int64(1+len(c.subs)) + c.collected.memory }

func build(c *chart.Chart, all *collected) *Chart {
	out := &Chart{
		name: c.Name(), defaults: c.Values, subs: map[string]*Chart{}, missing: map[string]bool{},
		collected: all, read: map[string]bool{},
	}
	all.maps(c.Values)
	for _, f := range c.Raw {
		if f.Name == "values.yaml" {
			all.comments(string(f.Data))
			out.addRead(string(f.Data)) // values may be templates
		}
	}
	for _, f := range c.Templates {
		all.templates(string(f.Data))
		out.addRead(string(f.Data))
	}
	for _, d := range c.Dependencies() {
		sub := build(d, all)
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
			out.missing[name] = true
		}
		// Conditions and tags are keys as well.
		keys := m.Condition + "," + strings.Join(m.Tags, ",")
		for _, word := range strings.FieldsFunc(keys, func(r rune) bool { return strings.ContainsRune(",. ", r) }) {
			all.add(all.words, word)
		}
	}
	return out
}

var (
	// comment matches a comment in values.yaml.
	comment = regexp.MustCompile(`(?m)#.*$`)
	// mentioned matches a key in a comment: followed by a colon, in a dotted path, or in quotes.
	mentioned = regexp.MustCompile("[A-Za-z0-9_-]+(?:\\s*:|(?:\\.[A-Za-z0-9_-]+)+)|[`'\"][A-Za-z0-9_-]+[`'\"]")
	// reference matches a path of .Values in a template.
	reference = regexp.MustCompile(`\.Values((?:\.[A-Za-z_][A-Za-z0-9_]*)+)`)
	// accessed matches a key in a template: after a dot, or in quotes as an argument.
	accessed = regexp.MustCompile("\\.[A-Za-z_][A-Za-z0-9_]*|[\"`][A-Za-z0-9_.-]+[\"`]")
)

// comments adds the keys that the comments of a text mention.
func (c *collected) comments(text string) {
	for t := range strings.Lines(text) {
		for _, m := range mentioned.FindAllString(comment.FindString(t), -1) {
			c.split(m, c.words)
			c.split(m, c.documented)
		}
	}
}

// templates adds the keys that a template accesses.
func (c *collected) templates(text string) {
	for t := range strings.Lines(text) {
		if c.full {
			return
		}
		for _, m := range accessed.FindAllString(t, -1) {
			c.split(m, c.words)
		}
	}
}

// addRead adds the paths that a text reads.
func (c *Chart) addRead(text string) {
	for t := range strings.Lines(text) {
		if c.collected.full {
			return
		}
		for _, m := range reference.FindAllStringSubmatch(t, -1) {
			c.collected.add(c.read, m[1][1:])
		}
	}
}

func (c *collected) split(s string, words map[string]bool) {
	for _, w := range strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(".:'\"` \t", r) }) {
		c.add(words, w)
	}
}

// Known reports whether a chart's schema defines or rejects the field at a path of the chart's own values.
type Known func(chart string, path validators.Path) bool

// Unknown returns the keys of a release's values that neither the chart's values nor its texts mention, in the order of
// their paths. It returns none in maps that take any key, and those that are known when ctx ends. The values are the release's alone, without the chart's.
func (c *Chart) Unknown(ctx context.Context, values map[string]any, known Known) []Key {
	if c.collected.full || len(c.defaults) == 0 && len(c.subs) == 0 {
		return nil
	}
	return find(c, values, finder{ctx: ctx, known: known})
}

// Candidates returns the keys of a release's values that may be unused, in the order of their paths: no default has
// them, no comment mentions them, and no template reads their whole path. Whether one is used shows in templating the
// chart without it.
func (c *Chart) Candidates(ctx context.Context, values map[string]any, known Known) []Key {
	if c.collected.full {
		return nil
	}
	return find(c, values, finder{ctx: ctx, known: known, candidates: true})
}

func find(c *Chart, values map[string]any, f finder) []Key {
	f.chart(c, values, nil)
	slices.SortFunc(f.keys, func(a, b Key) int { return cmp.Compare(a.Path.Pointer(), b.Path.Pointer()) })
	return f.keys
}

type finder struct {
	ctx   context.Context
	known Known
	// searched counts the keys whose most similar default was searched.
	searched int
	// candidates means that the caller templates the chart without each key that is found.
	candidates bool
	keys       []Key
}

// chart searches the values of one chart, which are at root.
func (f *finder) chart(c *Chart, values map[string]any, root validators.Path) {
	plain := values
	without := func(k string) {
		if len(plain) == len(values) {
			plain = maps.Clone(values)
		}
		delete(plain, k)
	}
	for k, v := range values {
		sub, ok := c.subs[k]
		switch {
		case k == "global" || k == "tags" || c.missing[k]:
			without(k)
		case ok:
			without(k)
			// A parent may have defaults of its own for a subchart.
			if m, ok := v.(map[string]any); ok {
				merged := *sub
				if own, ok := c.defaults[k].(map[string]any); ok {
					merged.defaults = merge(sub.defaults, own)
				}
				if len(merged.defaults) > 0 || len(merged.subs) > 0 || f.candidates {
					f.chart(&merged, m, root.Child(k))
				}
			}
		}
	}
	if len(c.defaults) > 0 || f.candidates {
		f.compare(c, plain, c.defaults, root, len(root))
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

// compare compares a map of the release with the chart's map at the same path, of which the first steps lead to the chart.
func (f *finder) compare(c *Chart, values, defaults map[string]any, at validators.Path, chart int) {
	// The paths of other keys are not needed, nor is their order.
	var searched []string
	for k, v := range values {
		def, ok := defaults[k]
		if ok {
			m, _ := v.(map[string]any)
			own, _ := def.(map[string]any)
			// Empty maps, nulls and lists take any key, and so do maps that the chart passes on to Kubernetes.
			ok = len(m) == 0 || len(own) == 0 || c.collected.freeForm(k)
		} else {
			ok = v == nil || unresolved.HasVariable(k) || !f.candidates && c.collected.words[k]
		}
		if !ok {
			searched = append(searched, k)
		}
	}
	slices.Sort(searched)
	var names []string
	for _, k := range searched {
		if f.searched >= maxSearched || f.ctx.Err() != nil {
			return
		}
		v, here := values[k], at.Child(k)
		if def, ok := defaults[k]; ok {
			if !c.read[joined(here[chart:])] {
				f.compare(c, v.(map[string]any), def.(map[string]any), here, chart)
			}
			continue
		}
		if f.known(c.name, here[chart:]) {
			continue
		}
		if names == nil {
			names = slices.Collect(maps.Keys(defaults))
		}
		f.searched++
		near := suggest.Nearest(k, names)
		if f.candidates {
			// A template reads a key with dots by index alone: .Values.a.b is not the key "a.b".
			if c.collected.documented[k] || !strings.Contains(k, ".") && c.reads(joined(here[chart:])) {
				continue
			}
		} else if near == "" && item(v, defaults) {
			continue
		}
		f.keys = append(f.keys, Key{Chart: c.name, Path: here, Suggestion: near})
	}
}

// reads reports whether a template reads a path, or one below it.
func (c *Chart) reads(dotted string) bool {
	if c.read[dotted] {
		return true
	}
	for t := range c.read {
		if strings.HasPrefix(t, dotted+".") {
			return true
		}
	}
	// The helpers of a library chart read the values of the charts that use it.
	for _, sub := range c.subs {
		if sub.reads(dotted) {
			return true
		}
	}
	return false
}

func joined(path validators.Path) string {
	keys := make([]string, len(path))
	for i, s := range path {
		keys[i] = s.Key
	}
	return strings.Join(keys, ".")
}

// item reports whether a value looks like another entry of a map of entries with names, such as hosts or users.
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

// passedOn are the names of maps that charts commonly pass on to Kubernetes or to an application unchanged.
var passedOn = []string{
	"affinity", "annotations", "args", "configmapdata", "data", "env", "environment", "envs", "envvars",
	"headers", "labels", "limits", "lifecycle", "matchlabels",
	"nodeselector", "parameters", "params", "podsecuritycontext", "properties", "requests", "resources", "rules",
	"securitycontext", "selector", "settings", "spec", "strategy",
	"updatestrategy", "volumes",
}

// passedOnEndings are the endings of such names.
var passedOnEndings = []string{
	"annotations", "config", "configs", "configuration", "env", "files", "labels", "options",
	"probe", "securitycontext", "selector", "settings", "strategy", "values",
}

// freeForm reports whether a map of this name commonly takes keys that its chart does not list.
func freeForm(name string) bool {
	n := strings.ToLower(path.Base(name))
	if slices.Contains(passedOn, n) || strings.HasPrefix(n, "extra") || strings.HasPrefix(n, "additional") || strings.HasPrefix(n, "custom") {
		return true
	}
	return slices.ContainsFunc(passedOnEndings, func(e string) bool { return strings.HasSuffix(n, e) })
}
