package chartsource

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	chart "helm.sh/helm/v4/pkg/chart/v2"
	release "helm.sh/helm/v4/pkg/release/v1"
	releaseutil "helm.sh/helm/v4/pkg/release/v1/util"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/internal/helmchart/template"
	"github.com/flux-admission/flux-admission/internal/helmchart/values"
	"github.com/flux-admission/flux-admission/validators"
)

// The bounds of looking for keys that change nothing.
const (
	maxDeadCandidates = 64
	deadKeysTimeout   = 10 * time.Second
)

// maxRenderings bounds the renderings of one chart that are kept: several rules ask for the same one, one after another.
const maxRenderings = 2

// errNoTemplates is why a chart that was read without its templates does not render.
var errNoTemplates = errors.New("the chart's templates are not there")

// templates are what a chart renders with.
type templates struct {
	// asked are the API versions that templates ask the cluster for.
	asked []string
	// lacking are the dependencies that are not beside the chart.
	lacking []*chart.Dependency
	// defaults are the chart's own values.
	defaults map[string]any
	crds     []string
	// now is the time that all renderings see.
	now time.Time

	mu   sync.Mutex
	kept []keptRendering
	// hung is the error of a rendering that was left behind: there is no second one of that chart.
	hung error
}

type keptRendering struct {
	key [sha256.Size]byte
	*rendered
}

// rendered is one rendering with what it was made of.
type rendered struct {
	ingredients
	files     map[string]string
	rendering *validators.Templated
}

// newTemplates returns what a chart renders with; nil for one that has no templates.
func newTemplates(c *chart.Chart) *templates {
	if !hasTemplates(c) {
		return nil
	}
	t := &templates{asked: template.AskedVersions(c), defaults: c.Values, now: time.Now()}
	absent := notVendored(c)
	for _, d := range c.Metadata.Dependencies {
		if d != nil && slices.Contains(absent, d.Name) {
			t.lacking = append(t.lacking, d)
		}
	}
	for _, f := range c.CRDObjects() {
		objects, failure := parse(f.Filename, string(f.File.Data))
		if failure != nil {
			continue
		}
		for _, o := range objects {
			if o.Object.GetKind() == "CustomResourceDefinition" {
				t.crds = append(t.crds, o.Object.GetName())
			}
		}
	}
	slices.Sort(t.crds)
	t.crds = slices.Compact(t.crds)
	return t
}

func hasTemplates(c *chart.Chart) bool {
	return len(c.Templates) > 0 || slices.ContainsFunc(c.Dependencies(), hasTemplates)
}

// Template implements validators.Chart.
func (c *Chart) Template(ctx context.Context, r validators.Release) (*validators.Templated, validators.Presence, error) {
	if c.templates == nil {
		return nil, validators.Unknown, errNoTemplates
	}
	release, err := values.FromRelease(ctx, r.Values)
	if err != nil {
		return nil, validators.Unknown, err
	}
	if len(release.Missing) > 0 {
		return nil, validators.Unknown, fmt.Errorf("not all of the values are known; missing: %s", strings.Join(release.Missing, "; "))
	}
	for _, d := range c.templates.lacking {
		if !c.disabled(d, release.Values) {
			return nil, validators.Unknown, fmt.Errorf("subchart %s is fetched when the chart is packaged", d.Name)
		}
	}
	out, err := c.render(ctx, r, release)
	if err != nil {
		return nil, validators.Unknown, err
	}
	rendering := *out.rendering
	if r.UnusedValues && rendering.Failure == nil {
		rendering.UnusedValues = c.deadKeys(ctx, out, r.Values, release)
	}
	return &rendering, validators.Present, nil
}

// disabled tells whether values turn a dependency off by its condition: the first of its places that is true or false says.
func (c *Chart) disabled(d *chart.Dependency, own map[string]any) bool {
	for condition := range strings.SplitSeq(d.Condition, ",") {
		path := validators.NewPath(strings.Split(strings.TrimSpace(condition), ".")...)
		for _, of := range []map[string]any{own, c.templates.defaults} {
			if on, ok := path.Lookup(of).(bool); ok {
				return !on
			}
		}
	}
	return false
}

// CRDs implements validators.Chart.
func (c *Chart) CRDs() []string {
	if c.templates == nil {
		return nil
	}
	return slices.Clone(c.templates.crds)
}

// ingredients are what a chart is rendered with.
type ingredients struct {
	name, namespace string
	values          map[string]any
	// versions are the API versions that are taken to be served.
	versions []string
}

// render renders a release, or recalls its rendering.
func (c *Chart) render(ctx context.Context, r validators.Release, of *values.Release) (*rendered, error) {
	plain, err := of.Plain()
	if err != nil {
		return nil, err
	}
	// JSON has the keys in order.
	id, err := json.Marshal([]any{r.Name, r.Namespace, r.SkipCRDs, plain})
	if err != nil {
		return nil, errors.New("the values cannot be written as JSON")
	}
	key := sha256.Sum256(id)
	t := c.templates
	t.mu.Lock()
	i := slices.IndexFunc(t.kept, func(k keptRendering) bool { return k.key == key })
	if i >= 0 {
		defer t.mu.Unlock()
		return t.kept[i].rendered, nil
	}
	t.mu.Unlock()

	s := ingredients{name: r.Name, namespace: r.Namespace, values: plain}
	out, err := c.execute(ctx, s)
	if err != nil {
		return nil, err
	}
	if out.Failure != nil && len(t.asked) > 0 {
		// The cluster may serve what the templates ask for.
		s.versions = t.asked
		if out, err = c.execute(ctx, s); err != nil {
			return nil, err
		}
	}
	made := &rendered{ingredients: s, files: out.Files, rendering: &validators.Templated{}}
	switch {
	case out.Failure == nil:
		c.objects(made, r)
	case of.HasPlaceholders():
		if err := c.failsAnyway(ctx, s, of, out.Failure); err != nil {
			return nil, err
		}
		fallthrough
	default:
		f := out.Failure
		made.rendering.Failure = &validators.TemplateFailure{Template: f.Template, Line: f.Line, Column: f.Column, Values: f.Values, Message: f.Message}
	}
	if f := made.rendering.Failure; f != nil {
		f.Message = redact(f.Message, of.Secrets())
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.kept) >= maxRenderings {
		t.kept = slices.Delete(t.kept, 0, 1)
	}
	t.kept = append(t.kept, keptRendering{key, made})
	return made, nil
}

// execute renders once.
func (c *Chart) execute(ctx context.Context, s ingredients) (*template.Output, error) {
	c.templates.mu.Lock()
	hung := c.templates.hung
	c.templates.mu.Unlock()
	if hung != nil {
		return nil, hung
	}
	tree, err := c.chart.Tree(s.values)
	if err != nil {
		return nil, err
	}
	out, err := template.Render(ctx, template.Input{
		Chart: tree, Name: s.name, Namespace: s.namespace, Values: s.values, APIVersions: s.versions, Now: c.templates.now,
	})
	if errors.Is(err, template.ErrTimeout) {
		c.templates.mu.Lock()
		c.templates.hung = err
		c.templates.mu.Unlock()
	}
	return out, err
}

// failsAnyway tells by its error whether a failure may come from a value that is filled in later.
func (c *Chart) failsAnyway(ctx context.Context, s ingredients, of *values.Release, f *template.Failure) error {
	unknown := errors.New("the chart does not render with values that are filled in later")
	for _, with := range []string{"1", "true", "text"} {
		var err error
		if s.values, err = of.Filled(with); err != nil {
			return err
		}
		out, err := c.execute(ctx, s)
		if err != nil {
			return err
		}
		if out.Failure == nil || out.Failure.Template != f.Template || out.Failure.Line != f.Line || out.Failure.Column != f.Column {
			return unknown
		}
	}
	return nil
}

// objects takes a rendering apart. What Helm cannot take apart either is a failure.
func (c *Chart) objects(r *rendered, of validators.Release) {
	out := r.rendering
	tree, err := c.chart.Tree(r.values)
	if err == nil && !of.SkipCRDs {
		for _, f := range tree.CRDObjects() {
			objects, failure := parse(f.Filename, string(f.File.Data))
			if failure != nil {
				out.Objects, out.Failure = nil, failure
				return
			}
			out.Objects = append(out.Objects, objects...)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.files)) {
		objects, failure := parse(name, r.files[name])
		if failure != nil {
			out.Objects, out.Failure = nil, failure
			return
		}
		out.Objects = append(out.Objects, objects...)
	}
}

// parse reads the objects of one rendered file. Hooks are among them, but for tests.
func parse(file, text string) ([]validators.TemplatedObject, *validators.TemplateFailure) {
	documents := releaseutil.SplitManifests(text)
	names := slices.Collect(maps.Keys(documents))
	sort.Sort(releaseutil.BySplitManifestsOrder(names))
	var out []validators.TemplatedObject
	from := 0
	for _, n := range names {
		document := documents[n]
		line := 1
		if i := strings.Index(text[from:], document); i >= 0 {
			line += strings.Count(text[:from+i], "\n")
			from += i + len(document)
		}
		fail := func(format string, args ...any) *validators.TemplateFailure {
			return &validators.TemplateFailure{Template: file, Message: fmt.Sprintf(format, args...)}
		}
		if err := archive.CheckYAML([]byte(document)); err != nil {
			return nil, fail("what it renders cannot be read: %s", plainYAML(err, line))
		}
		var root any
		if err := yaml.Unmarshal([]byte(document), &root, integers); err != nil {
			return nil, fail("what it renders is not YAML: %s", plainYAML(err, line))
		}
		if root == nil {
			continue // a comment
		}
		m, ok := root.(map[string]any)
		if !ok {
			return nil, fail("what it renders is not an object")
		}
		o := &unstructured.Unstructured{Object: whole(m).(map[string]any)}
		switch {
		case o.GetKind() == "":
			return nil, fail("an object that it renders has no kind")
		case o.GetAPIVersion() == "":
			return nil, fail("the %s that it renders has no apiVersion", o.GetKind())
		case !installed(o):
			continue
		}
		if items, _ := o.Object["items"].([]any); o.GetAPIVersion() == "v1" && strings.HasSuffix(o.GetKind(), "List") {
			for _, item := range items {
				if m, ok := item.(map[string]any); ok {
					out = append(out, validators.TemplatedObject{Object: &unstructured.Unstructured{Object: m}, Template: file, Line: line})
				}
			}
			continue
		}
		out = append(out, validators.TemplatedObject{Object: o, Template: file, Line: line})
	}
	return out, nil
}

// integers keeps numbers as they are written, so that whole can tell integers.
func integers(d *json.Decoder) *json.Decoder {
	d.UseNumber()
	return d
}

// whole makes numbers what they are in objects of an API server.
func whole(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return f
	case map[string]any:
		for k, c := range v {
			v[k] = whole(c)
		}
	case []any:
		for i, c := range v {
			v[i] = whole(c)
		}
	}
	return v
}

// installed tells whether Helm creates an object at an installation: it is no hook, or one of the hooks that Helm knows and that is not only a test.
func installed(o *unstructured.Unstructured) bool {
	hooks, ok := o.GetAnnotations()[release.HookAnnotation]
	if !ok {
		return true
	}
	for h := range strings.SplitSeq(hooks, ",") {
		switch release.HookEvent(strings.ToLower(strings.TrimSpace(h))) {
		case release.HookPreInstall, release.HookPostInstall, release.HookPreUpgrade, release.HookPostUpgrade,
			release.HookPreDelete, release.HookPostDelete, release.HookPreRollback, release.HookPostRollback:
			return true
		case release.HookTest, "test-success":
		}
	}
	return false
}

// yamlLine is where a YAML library says that it fails.
var yamlLine = regexp.MustCompile(`\bline (\d+):`)

// plainYAML is an error of a YAML library in few words. Its lines are those of a document that begins at the line first.
func plainYAML(err error, first int) string {
	text := err.Error()
	for _, prefix := range []string{"error converting YAML to JSON: ", "it is not YAML: ", "yaml: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	text = yamlLine.ReplaceAllStringFunc(text, func(s string) string {
		n, err := strconv.Atoi(s[len("line ") : len(s)-1])
		if err != nil {
			return s
		}
		return fmt.Sprintf("line %d of the rendered text:", n+first-1)
	})
	return strings.Join(strings.Fields(text), " ")
}

// redact replaces what comes from Secrets.
func redact(message string, secrets []string) string {
	// A longer one may have a shorter one in it.
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	for _, s := range secrets {
		quoted := strconv.Quote(s)
		for _, form := range []string{s, quoted[1 : len(quoted)-1], strings.Join(strings.Fields(s), " ")} {
			if len(form) > 3 {
				message = strings.ReplaceAll(message, form, hole)
				continue
			}
			message = replaceWord(message, form, hole)
		}
	}
	return strings.ReplaceAll(message, hole, "(from a Secret)")
}

// hole stands for what was redacted until all is: no text in a message has it.
const hole = "\x00"

// replaceWord replaces a short text where it stands by itself.
func replaceWord(message, word, with string) string {
	if word == "" {
		return message
	}
	letter := func(b byte) bool {
		return b == '_' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
	}
	var out strings.Builder
	for i := 0; i < len(message); {
		end := i + len(word)
		if strings.HasPrefix(message[i:], word) && (i == 0 || !letter(message[i-1])) && (end == len(message) || !letter(message[end])) {
			out.WriteString(with)
			i = end
			continue
		}
		out.WriteByte(message[i])
		i++
	}
	return out.String()
}

// deadKeys returns the keys without which the chart renders to the same; nil when that cannot be said.
func (c *Chart) deadKeys(ctx context.Context, r *rendered, v validators.Values, of *values.Release) []validators.UnusedValue {
	candidates := c.words.Candidates(of.Values, c.knows)
	if len(candidates) > maxDeadCandidates {
		candidates = candidates[:maxDeadCandidates]
	}
	out := []validators.UnusedValue{}
	if len(candidates) == 0 {
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, deadKeysTimeout)
	defer cancel()
	// What a cluster serves changes what charts render, and it may serve either.
	var bases []rendered
	for _, versions := range [][]string{nil, c.templates.asked} {
		s := r.ingredients
		s.versions = versions
		again, err := c.execute(ctx, s)
		switch {
		case err != nil:
			return nil
		case again.Failure != nil:
			continue
		case slices.Equal(versions, r.versions) && !maps.Equal(again.Files, r.files):
			return nil // it renders to something else every time
		}
		bases = append(bases, rendered{ingredients: s, files: again.Files})
		if len(c.templates.asked) == 0 {
			break
		}
	}
	same := func(without map[string]any) (bool, error) {
		for _, b := range bases {
			s := b.ingredients
			s.values = without
			made, err := c.execute(ctx, s)
			if err != nil {
				return false, err
			}
			if made.Failure != nil || !maps.Equal(made.Files, b.files) {
				return false, nil
			}
		}
		return true, nil
	}
	for _, k := range candidates {
		dead, err := same(without(r.values, k.Path).(map[string]any))
		if err != nil {
			return nil
		}
		if dead {
			u := validators.UnusedValue{Chart: k.Chart, Path: k.Path, Suggestion: k.Suggestion}
			u.Inline, u.From, _ = locate(k.Path, v, of)
			out = append(out, u)
		}
	}
	return out
}

// without returns values without the key at a path, which leads through maps only.
func without(v any, at validators.Path) any {
	m, ok := v.(map[string]any)
	if !ok || len(at) == 0 {
		return v
	}
	out := maps.Clone(m)
	if len(at) == 1 {
		delete(out, at[0].Key)
		return out
	}
	out[at[0].Key] = without(m[at[0].Key], at[1:])
	return out
}

// sizeOfFiles estimates the memory of a chart's templates and files, in bytes.
func sizeOfFiles(c *chart.Chart) int64 {
	var n int64
	for _, f := range slices.Concat(c.Templates, c.Files) {
		n += int64(len(f.Data) + len(f.Name))
	}
	return n
}
