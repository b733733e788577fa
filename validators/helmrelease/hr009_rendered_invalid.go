package helmrelease

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// maxTrials bounds how often a chart is rendered to find the values that a problem comes from.
const maxTrials = 100

// RenderedInvalid is the rule helm-rendered-invalid.
//
// It reports what the release's values make of the chart, not what the chart's author got wrong: what is there with the chart's own values as well, no
// release can repair.
var RenderedInvalid = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR009",
		Name:     "helm-rendered-invalid",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "HelmRelease whose chart renders objects that the API server refuses",
			Why: "Values are put into objects by templates, and a chart's schema, if it has one, does not know what Kubernetes takes there: a number where a text belongs, " +
				"the same mount path or port twice, a field that does not exist. The API server refuses the object, and the installation or upgrade fails half way.",
			Fix:   "Correct the values named; the message says what they become in the rendered object.",
			Since: "v0.1.0",
		},
		Reads: ValuesSchema.Reads,
	},
	Check: checkRenderedInvalid,
}

// flaw is one problem of a rendered object.
type flaw struct {
	of   validators.TemplatedObject
	path validators.Path
	// text says what is wrong, the field first.
	text string
}

// key tells flaws apart, whatever a release or a list entry before theirs is called.
func (f flaw) key() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s ", f.of.Template, f.of.Object.GetKind())
	for _, s := range f.path {
		if !s.IsIndex() {
			fmt.Fprintf(&b, "/%q", s.Key)
		}
	}
	return b.String()
}

func checkRenderedInvalid(ctx context.Context, p *validators.Pass) error {
	r, ok := renderingOf(ctx, p)
	if !ok || r.Failure != nil {
		return nil
	}
	found, later := flaws(ctx, p.Lookup, r.Objects)
	patched := 0
	found = slices.DeleteFunc(found, func(f flaw) bool {
		if postRendered(p.Object, f.of.Object) {
			patched++
			return true
		}
		return false
	})
	if later > 0 {
		p.Unknown("some values in what chart %s %s renders are filled in later, and were not judged", r.chart.Name(), r.chart.Version())
	}
	if patched > 0 {
		p.Unknown("spec.postRenderers may repair what is wrong with some objects that chart %s %s renders", r.chart.Name(), r.chart.Version())
	}
	if len(found) == 0 {
		return nil
	}
	t := trials{look: p.Lookup, rendering: r}
	own, rendered := t.with(ctx, validators.Values{Namespace: r.release.Values.Namespace})
	seen := 0
	for _, f := range found {
		if own.flaws[f.key()] > 0 {
			own.flaws[f.key()]--
			continue // the chart's author's
		}
		path, ok := t.blame(ctx, f)
		if !ok && !rendered {
			continue // whose it is cannot be told
		}
		if seen++; seen > maxViolations {
			break
		}
		if !ok {
			path = chartPath(p.Object)
			if len(r.release.Values.Inline) > 0 {
				path = validators.NewPath("spec", "values")
			}
		}
		o := f.of.Object
		name := o.GetKind() + " " + o.GetName()
		if o.GetNamespace() != "" {
			name = o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
		}
		report := p.Report(path, nil, "chart %s %s renders a %s that the API server refuses: %s (%s)", r.chart.Name(), r.chart.Version(), name, f.text, f.of.Template)
		report.Key = f.key()
	}
	return nil
}

// flaws returns what is wrong with rendered objects whose kind is known, and how many flaws depend on values that are filled in later.
func flaws(ctx context.Context, look validators.Lookup, objects []validators.TemplatedObject) (out []flaw, later int) {
	for _, r := range objects {
		o := r.Object
		gvk := o.GroupVersionKind()
		kind, _, _ := look.Kind(ctx, gvk.GroupKind())
		if kind == nil || kind.Schemas == nil || !slices.Contains(kind.Served, gvk.Version) {
			continue // rules on kinds and versions speak of objects in Git
		}
		s, err := kind.Schemas.Schema(gvk.Version)
		if err != nil {
			continue
		}
		by := ""
		if !kind.Installed {
			by = ", as " + kind.Origin + " has it"
		}
		add := func(path validators.Path, text string) {
			if unresolved.Value(path.Lookup(o.Object)) {
				later++
				return
			}
			out = append(out, flaw{r, path, text + by})
		}
		for _, f := range s.UnknownFields(o) {
			text := fmt.Sprintf("%s is not a field of %s (%s)", f.Path, gvk.Kind, gvk.GroupVersion())
			if f.Suggestion != nil {
				text += fmt.Sprintf("; did you mean %s?", f.Suggestion)
			}
			add(f.Path, text)
		}
		for _, v := range s.InvalidValues(ctx, o) {
			add(v.Path, cmp.Or(v.Path.String(), "the object")+" "+v.Message)
		}
		for _, path := range samePortNames(o) {
			add(path, path.String()+" is the name of another port of the list")
		}
	}
	return out, later
}

// samePortNames returns the port names that the API server refuses because an earlier port of the same container or Service has them. Ports
// with the same number are found by their schema.
func samePortNames(o *unstructured.Unstructured) []validators.Path {
	var out []validators.Path
	list := func(at validators.Path) {
		ports, _ := at.Lookup(o.Object).([]any)
		seen := map[string]bool{}
		for i, item := range ports {
			m, _ := item.(map[string]any)
			name := text(m, "name")
			if name != "" && seen[name] {
				out = append(out, at.Index(i).Child("name"))
			}
			seen[name] = true
		}
	}
	var pod validators.Path
	switch gvk := o.GroupVersionKind(); gvk.GroupKind() {
	case schema.GroupKind{Kind: "Service"}:
		list(validators.NewPath("spec", "ports"))
		return out
	case schema.GroupKind{Kind: "Pod"}:
		pod = validators.NewPath("spec")
	case schema.GroupKind{Group: "batch", Kind: "CronJob"}:
		pod = validators.NewPath("spec", "jobTemplate", "spec", "template", "spec")
	default:
		if gvk.Group != "apps" && gvk.Group != "batch" {
			return nil
		}
		pod = validators.NewPath("spec", "template", "spec")
	}
	for _, field := range []string{"initContainers", "containers"} {
		at := pod.Child(field)
		containers, _ := at.Lookup(o.Object).([]any)
		for i := range containers {
			list(at.Index(i).Child("ports"))
		}
	}
	return out
}

// postRendered tells whether a release's post-renderers may change an object in more than its images.
func postRendered(release, o *unstructured.Unstructured) bool {
	renderers, _, _ := unstructured.NestedSlice(release.Object, "spec", "postRenderers")
	for _, item := range renderers {
		m, _ := item.(map[string]any)
		patches, _, _ := unstructured.NestedSlice(m, "kustomize", "patches")
		for _, item := range patches {
			patch, _ := item.(map[string]any)
			target, _ := patch["target"].(map[string]any)
			kind, name := text(target, "kind"), text(target, "name")
			// A name may be a regular expression; a patch without a target names its object itself.
			if (kind == "" || kind == o.GetKind()) && (name == "" || name == o.GetName() || strings.ContainsAny(name, ".*[(|^$\\")) &&
				(target != nil || strings.Contains(text(patch, "patch"), o.GetKind())) {
				return true
			}
		}
	}
	return false
}

// trials renders a release with parts of its values left out.
type trials struct {
	look validators.Lookup
	rendering
	count int
}

// trial is what a rendering has.
type trial struct {
	// flaws are how many there are of a key.
	flaws   map[string]int
	objects map[string]bool
}

// objectKey tells objects of a rendering apart.
func objectKey(r validators.TemplatedObject) string {
	return strings.Join([]string{r.Template, r.Object.GetKind(), r.Object.GetNamespace(), r.Object.GetName()}, " ")
}

// with renders the chart with other values; false when it does not render with them.
func (t *trials) with(ctx context.Context, values validators.Values) (trial, bool) {
	if t.count++; t.count > maxTrials {
		return trial{}, false
	}
	release := t.release
	release.Values = values
	out, presence, _ := t.chart.Template(ctx, release)
	if presence != validators.Present || out.Failure != nil {
		return trial{}, false
	}
	made := trial{flaws: map[string]int{}, objects: map[string]bool{}}
	found, _ := flaws(ctx, t.look, out.Objects)
	for _, f := range found {
		made.flaws[f.key()]++
	}
	for _, o := range out.Objects {
		made.objects[objectKey(o)] = true
	}
	return made, true
}

// blame finds the one place in a release's values without which a flaw is gone, the deepest there is; false when there is none. A place without
// which the whole object is gone is only the second best.
func (t *trials) blame(ctx context.Context, f flaw) (validators.Path, bool) {
	all, _ := flaws(ctx, t.look, t.Objects)
	before := 0
	for _, other := range all {
		if other.key() == f.key() {
			before++
		}
	}
	values := t.release.Values
	gone := func(less validators.Values) (flawless, stays bool) {
		made, ok := t.with(ctx, less)
		return ok && made.flaws[f.key()] < before, made.objects[objectKey(f.of)]
	}
	var at validators.Path
	for {
		table, _ := at.Lookup(values.Inline).(map[string]any)
		var next validators.Path
		for _, k := range slices.Sorted(maps.Keys(table)) {
			less := values
			less.Inline = without(values.Inline, at.Child(k))
			flawless, stays := gone(less)
			if flawless && (stays || next == nil) {
				next = at.Child(k)
			}
			if flawless && stays {
				break
			}
		}
		if next == nil {
			break
		}
		at = next
	}
	if at != nil {
		return append(validators.NewPath("spec", "values"), at...), true
	}
	for i := range values.From {
		less := values
		less.From = slices.Delete(slices.Clone(values.From), i, i+1)
		if flawless, _ := gone(less); flawless {
			return validators.NewPath("spec", "valuesFrom").Index(i), true
		}
	}
	return nil, false
}

// without returns a map without the key at a path, which leads through maps.
func without(m map[string]any, at validators.Path) map[string]any {
	out := maps.Clone(m)
	if len(at) == 1 {
		delete(out, at[0].Key)
		return out
	}
	next, _ := m[at[0].Key].(map[string]any)
	out[at[0].Key] = without(next, at[1:])
	return out
}
