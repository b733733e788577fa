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

// maxAttempts limits how often a chart is templated to attribute violations to values.
const maxAttempts = 100

// RenderedInvalid is the rule helm-rendered-invalid.
//
// It reports what the release's values cause, not mistakes of the chart's author: no release can repair an object
// that is invalid with the chart's own values too.
var RenderedInvalid = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR009",
		Name:     "helm-rendered-invalid",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "Templated object of the chart is invalid",
			Why: "Templates copy values into objects, and a chart's schema, if there is one, does not contain the " +
				"rules of Kubernetes: a number instead of a string, a duplicate mount path or port, a field that " +
				"does not exist. The API server rejects the object, and the install or upgrade fails half-way.",
			Fix:   "Correct the values; the message names the field of the object that they set.",
			Since: "v0.1.0",
		},
		Reads: ValuesSchema.Reads,
	},
	Check: checkRenderedInvalid,
}

// violation is one problem of a templated object.
type violation struct {
	of   validators.TemplatedObject
	path validators.Path
	// text begins with the field.
	text string
}

// key identifies a violation independently of names and list indexes.
func (f violation) key() string {
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
	r, ok := templatedOf(ctx, p)
	if !ok || r.Failure != nil {
		return nil
	}
	found, pending := violations(ctx, p.Lookup, r.Objects)
	patched := 0
	found = slices.DeleteFunc(found, func(f violation) bool {
		if postRendered(p.Object, f.of.Object) {
			patched++
			return true
		}
		return false
	})
	if pending > 0 {
		p.Unknown("chart %s %s templates unresolved values, which were not validated", r.chart.Name(), r.chart.Version())
	}
	if patched > 0 {
		p.Unknown("spec.postRenderers may repair invalid objects of chart %s %s", r.chart.Name(), r.chart.Version())
	}
	if len(found) == 0 {
		return nil
	}
	t := attempts{look: p.Lookup, templated: r}
	own, ok := t.with(ctx, validators.Values{Namespace: r.release.Values.Namespace})
	seen := 0
	for _, f := range found {
		if own.violations[f.key()] > 0 {
			own.violations[f.key()]--
			continue // invalid with the chart's own values too
		}
		path, attributed := t.attribute(ctx, f)
		if !attributed && !ok {
			continue // it may be invalid with the chart's own values too
		}
		if seen++; seen > maxViolations {
			break
		}
		if !attributed {
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
		report := p.Report(
			path,
			nil,
			"chart %s %s templates an invalid %s: %s (%s)",
			r.chart.Name(),
			r.chart.Version(),
			name,
			f.text,
			f.of.Template,
		)
		report.Key = f.key()
	}
	return nil
}

// violations returns the violations of templated objects whose kind is known, and counts those that depend on
// unresolved values.
func violations(
	ctx context.Context,
	look validators.Lookup,
	objects []validators.TemplatedObject,
) (out []violation, pending int) {
	for _, r := range objects {
		o := r.Object
		gvk := o.GroupVersionKind()
		kind, _, _ := look.Kind(ctx, gvk.GroupKind())
		if kind == nil || kind.Schemas == nil || !slices.Contains(kind.Served, gvk.Version) {
			continue // other rules report unknown kinds and versions
		}
		s, err := kind.Schemas.Schema(gvk.Version)
		if err != nil {
			continue
		}
		by := ""
		if !kind.Installed {
			by = ", according to " + kind.Origin
		}
		add := func(path validators.Path, text string) {
			if unresolved.Value(path.Lookup(o.Object)) {
				pending++
				return
			}
			out = append(out, violation{r, path, text + by})
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
	}
	return out, pending
}

// postRendered reports whether a release's post-renderers may change more of an object than its images.
func postRendered(release, o *unstructured.Unstructured) bool {
	renderers, _, _ := unstructured.NestedSlice(release.Object, "spec", "postRenderers")
	for _, item := range renderers {
		m, _ := item.(map[string]any)
		patches, _, _ := unstructured.NestedSlice(m, "kustomize", "patches")
		for _, item := range patches {
			patch, _ := item.(map[string]any)
			target, _ := patch["target"].(map[string]any)
			kind, name := text(target, "kind"), text(target, "name")
			// A name may be a regular expression; a patch without a target names the object in its body.
			if (kind == "" || kind == o.GetKind()) &&
				(name == "" || name == o.GetName() || strings.ContainsAny(name, ".*[(|^$\\")) &&
				(target != nil || strings.Contains(text(patch, "patch"), o.GetKind())) {
				return true
			}
		}
	}
	return false
}

// attempts templates a release without parts of its values.
type attempts struct {
	look validators.Lookup
	templated
	count int
}

// attempt is the result of one attempt.
type attempt struct {
	// violations are counted by key.
	violations map[string]int
	objects    map[string]bool
}

// objectKey identifies an object of a chart.
func objectKey(r validators.TemplatedObject) string {
	return strings.Join([]string{r.Template, r.Object.GetKind(), r.Object.GetNamespace(), r.Object.GetName()}, " ")
}

// with templates the chart with other values; false if that fails.
func (t *attempts) with(ctx context.Context, values validators.Values) (attempt, bool) {
	if t.count++; t.count > maxAttempts {
		return attempt{}, false
	}
	release := t.release
	release.Values = values
	out, presence, _ := t.chart.Template(ctx, release)
	if presence != validators.Present || out.Failure != nil {
		return attempt{}, false
	}
	result := attempt{violations: map[string]int{}, objects: map[string]bool{}}
	found, _ := violations(ctx, t.look, out.Objects)
	for _, f := range found {
		result.violations[f.key()]++
	}
	for _, o := range out.Objects {
		result.objects[objectKey(o)] = true
	}
	return result, true
}

// attribute returns the deepest path in a release's values without which a violation disappears; false if there is
// none. A value whose removal drops the whole object is used only if no better candidate exists.
func (t *attempts) attribute(ctx context.Context, f violation) (validators.Path, bool) {
	all, _ := violations(ctx, t.look, t.Objects)
	before := 0
	for _, other := range all {
		if other.key() == f.key() {
			before++
		}
	}
	values := t.release.Values
	without := func(less validators.Values) (resolved, remains bool) {
		result, ok := t.with(ctx, less)
		return ok && result.violations[f.key()] < before, result.objects[objectKey(f.of)]
	}
	var at validators.Path
	for {
		table, _ := at.Lookup(values.Inline).(map[string]any)
		var next validators.Path
		for _, k := range slices.Sorted(maps.Keys(table)) {
			less := values
			less.Inline = withoutKey(values.Inline, at.Child(k))
			resolved, remains := without(less)
			if resolved && (remains || next == nil) {
				next = at.Child(k)
			}
			if resolved && remains {
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
		if resolved, _ := without(less); resolved {
			return validators.NewPath("spec", "valuesFrom").Index(i), true
		}
	}
	return nil, false
}

// withoutKey returns a copy of a map without the key at a path through maps.
func withoutKey(m map[string]any, at validators.Path) map[string]any {
	out := maps.Clone(m)
	if len(at) == 1 {
		delete(out, at[0].Key)
		return out
	}
	next, _ := m[at[0].Key].(map[string]any)
	out[at[0].Key] = withoutKey(next, at[1:])
	return out
}
