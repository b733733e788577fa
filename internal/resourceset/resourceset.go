// Package resourceset builds the objects of a ResourceSet of the Flux Operator from its inputs and templates.
package resourceset

import (
	"errors"
	"fmt"
	"hash/adler32"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/template"

	sprig "github.com/go-task/slim-sprig/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/validators"
)

// Limits of one ResourceSet.
const (
	maxBytes   = 8 << 20
	maxObjects = 10_000
	maxItems   = 100_000
)

var (
	errTooLarge    = errors.New("the templates produce too much")
	errUnsupported = errors.New("seq is not supported here")
)

// Object is an object of a ResourceSet, and the field with its template.
type Object struct {
	*unstructured.Unstructured
	// Template is spec.resources[i], or spec.resourcesTemplate; or the same below spec.steps[i].
	Template validators.Path
	// Text means that the template is a text, in which the object's fields have no paths.
	Text bool
}

// Error is a template that fails.
type Error struct {
	Template validators.Path
	Err      error
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Template, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Build returns the objects that a ResourceSet creates with the input sets of its providers, which are added to its
// own. Without any input set, templates are executed once without inputs, unless there are providers.
func Build(set *unstructured.Unstructured, provided []map[string]any) ([]Object, error) {
	own, _, _ := unstructured.NestedSlice(set.Object, "spec", "inputs")
	var inputs []map[string]any
	for _, item := range own {
		if m, ok := item.(map[string]any); ok {
			inputs = append(inputs, withProvider(m, set))
		}
	}
	inputs = append(inputs, provided...)
	if from, _, _ := unstructured.NestedSlice(set.Object, "spec", "inputsFrom"); len(inputs) == 0 {
		if len(from) > 0 {
			return nil, nil
		}
		inputs = []map[string]any{nil}
	}
	spec := validators.NewPath("spec")
	b := &builder{seen: map[string]bool{}}
	parts := []validators.Path{spec}
	if steps, _ := spec.Child("steps").Lookup(set.Object).([]any); len(steps) > 0 {
		parts = nil
		for i := range steps {
			parts = append(parts, spec.Child("steps").Index(i))
		}
	}
	for _, at := range parts {
		list, _ := at.Child("resources").Lookup(set.Object).([]any)
		for i, resource := range list {
			data, err := yaml.Marshal(resource)
			if err != nil {
				return b.out, fmt.Errorf("writing a template as YAML: %w", err)
			}
			if err := b.add(at.Child("resources").Index(i), string(data), inputs, false); err != nil {
				return b.out, err
			}
		}
		if text, _ := at.Child("resourcesTemplate").Lookup(set.Object).(string); text != "" {
			if err := b.add(at.Child("resourcesTemplate"), text, inputs, true); err != nil {
				return b.out, err
			}
		}
	}
	return b.out, nil
}

// Static returns the input set of a ResourceSetInputProvider of type Static.
func Static(provider *unstructured.Unstructured) map[string]any {
	values, _, _ := unstructured.NestedMap(provider.Object, "spec", "defaultValues")
	return withProvider(values, provider)
}

// withProvider returns an input set with what the Flux Operator adds to it. The id comes from the UID in a cluster; here
// it comes from the name.
func withProvider(values map[string]any, o *unstructured.Unstructured) map[string]any {
	out := map[string]any{"id": fmt.Sprint(adler32.Checksum([]byte(o.GetNamespace() + "/" + o.GetName())))}
	maps.Copy(out, values)
	out["provider"] = map[string]any{
		"apiVersion": o.GetAPIVersion(), "kind": o.GetKind(), "name": o.GetName(), "namespace": o.GetNamespace(),
	}
	return out
}

type builder struct {
	out   []Object
	seen  map[string]bool
	bytes int
}

// add adds the objects of one template, once for each input set; the first object of a name counts.
func (b *builder) add(at validators.Path, text string, inputs []map[string]any, isText bool) error {
	for _, input := range inputs {
		result, err := execute(text, input)
		if err != nil {
			return &Error{at, err}
		}
		if b.bytes += len(result); b.bytes > maxBytes {
			return &Error{at, errTooLarge}
		}
		for _, doc := range separator.Split(result, -1) {
			var m map[string]any
			if err := yaml.Unmarshal([]byte(doc), &m); err != nil {
				return &Error{at, errors.New("the result of the template is not valid YAML")}
			}
			o := &unstructured.Unstructured{Object: m}
			if len(m) == 0 || o.GetKind() == "" || o.GetAnnotations()["fluxcd.controlplane.io/reconcile"] == "disabled" {
				continue
			}
			id := strings.Join([]string{o.GroupVersionKind().Group, o.GetKind(), o.GetNamespace(), o.GetName()}, "/")
			if b.seen[id] {
				continue
			}
			b.seen[id] = true
			if b.out = append(b.out, Object{o, at, isText}); len(b.out) > maxObjects {
				return &Error{at, errTooLarge}
			}
		}
	}
	return nil
}

var separator = regexp.MustCompile(`(?m)^---.*$`)

// execute executes a template with one input set.
func execute(text string, input map[string]any) (string, error) {
	t, err := newTemplate(text, input)
	if err != nil {
		return "", fmt.Errorf("reading the template: %w", err)
	}
	out := &limited{}
	if err := t.Execute(out, nil); err != nil {
		return "", fmt.Errorf("executing the template: %w", err)
	}
	return out.String(), nil
}

// limited is the output of a template, with a limit.
type limited struct{ strings.Builder }

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > maxBytes {
		return 0, errTooLarge
	}
	return l.Builder.Write(p)
}

// functions returns the operator's own functions, and bounded ones in place of those that create large results from
// small arguments.
func functions(input map[string]any) template.FuncMap {
	mustToYaml := func(v any) (string, error) {
		data, err := yaml.Marshal(v)
		if err != nil {
			return "", fmt.Errorf("writing YAML: %w", err)
		}
		return string(data), nil
	}
	until := func(start, stop, step int) ([]int, error) {
		out := []int{}
		for i := start; step > 0 && i < stop || step < 0 && i > stop; i += step {
			if out = append(out, i); len(out) > maxItems {
				return nil, errTooLarge
			}
		}
		return out, nil
	}
	return template.FuncMap{
		"inputs":     func() any { return input },
		"mustToYaml": mustToYaml,
		"toYaml": func(v any) string {
			text, _ := mustToYaml(v)
			return text
		},
		"slugify": slugify,
		"repeat": func(n int, s string) (string, error) {
			if n < 0 || n*max(len(s), 1) > maxBytes || n > maxBytes {
				return "", errTooLarge
			}
			return strings.Repeat(s, n), nil
		},
		"until": func(n int) ([]int, error) {
			if n < 0 {
				return until(0, n, -1)
			}
			return until(0, n, 1)
		},
		"untilStep": until,
		"seq": func(...int) (string, error) {
			return "", errUnsupported
		},
	}
}

var notInSlug = regexp.MustCompile(`[^a-z0-9_]+`)

// slugify makes a name of a text: lower case, with dashes.
func slugify(s string) string {
	const maxSlug = 63
	s = strings.Trim(notInSlug.ReplaceAllString(strings.ToLower(s), "-"), "-_")
	if len(s) > maxSlug {
		s = strings.Trim(s[:maxSlug], "-_")
	}
	return s
}

// MayCreate reports whether a template of a ResourceSet names the kind, or has a kind that depends on its inputs.
func MayCreate(set *unstructured.Unstructured, kind string) bool {
	return slices.ContainsFunc(kinds(set), func(k string) bool { return k == kind || strings.HasPrefix(k, "<<") })
}

func kinds(set *unstructured.Unstructured) []string {
	data, err := yaml.Marshal(set.Object["spec"])
	if err != nil {
		return nil
	}
	var out []string
	for _, m := range kindLine.FindAllStringSubmatch(string(data), -1) {
		out = append(out, m[1])
	}
	return out
}

var kindLine = regexp.MustCompile(`(?m)^[ -]*"?kind"?: *['"]?([A-Z][A-Za-z0-9]*|<<)`)

// Check returns the templates of a ResourceSet that cannot be read, or that fail with its own inputs, each with the
// field at fault. Inputs of providers are left out: they are not known from the object.
func Check(set *unstructured.Unstructured) []*Error {
	var out []*Error
	spec := validators.NewPath("spec")
	parts := []validators.Path{spec}
	if steps, _ := spec.Child("steps").Lookup(set.Object).([]any); len(steps) > 0 {
		for i := range steps {
			parts = append(parts, spec.Child("steps").Index(i))
		}
	}
	for _, at := range parts {
		list, _ := at.Child("resources").Lookup(set.Object).([]any)
		for i, resource := range list {
			out = append(out, unreadable(resource, at.Child("resources").Index(i))...)
		}
		if text, _ := at.Child("resourcesTemplate").Lookup(set.Object).(string); text != "" {
			out = append(out, unreadable(text, at.Child("resourcesTemplate"))...)
		}
	}
	if len(out) > 0 {
		return out
	}
	if from, _, _ := unstructured.NestedSlice(set.Object, "spec", "inputsFrom"); len(from) > 0 {
		return nil
	}
	if _, err := Build(set, nil); err != nil {
		if failed, ok := errors.AsType[*Error](err); ok && !errors.Is(err, errTooLarge) && !errors.Is(err, errUnsupported) {
			out = append(out, failed)
		}
	}
	return out
}

// unreadable returns the texts below a value that are no templates, with their paths; the value itself when only all of
// its texts together are none.
func unreadable(v any, at validators.Path) []*Error {
	data, err := yaml.Marshal(v)
	if err != nil {
		return nil
	}
	whole := parseError(string(data))
	if whole == nil {
		return nil
	}
	var out []*Error
	var walk func(v any, at validators.Path)
	walk = func(v any, at validators.Path) {
		switch v := v.(type) {
		case string:
			if err := parseError(v); err != nil {
				out = append(out, &Error{at, err})
			}
		case map[string]any:
			for _, key := range slices.Sorted(maps.Keys(v)) {
				walk(v[key], at.Child(key))
			}
		case []any:
			for i, item := range v {
				walk(item, at.Index(i))
			}
		}
	}
	walk(v, at)
	if len(out) == 0 {
		out = append(out, &Error{at, whole})
	}
	return out
}

func parseError(text string) error {
	_, err := newTemplate(text, nil)
	return err
}

// templatePosition begins the messages of package template.
var templatePosition = regexp.MustCompile(`^template: template:\d+(:\d+)?: `)

// newTemplate reads a template with the functions for an input set.
func newTemplate(text string, input map[string]any) (*template.Template, error) {
	t, err := template.New("template").Delims("<<", ">>").Funcs(sprig.HermeticTxtFuncMap()).
		Funcs(functions(input)).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, errors.New(templatePosition.ReplaceAllString(err.Error(), ""))
	}
	return t, nil
}
