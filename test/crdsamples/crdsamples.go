// Package crdsamples makes valid objects of a CustomResourceDefinition from its schema, for tests that compare validators with an API server.
package crdsamples

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
)

// repairs limits the search for the fields that a CEL rule wants beside another one.
const repairs = 4000

// onlyName is the name that the kinds of the Flux Operator with one object in a cluster must have.
const onlyName = "flux"

// Steps of a path that are no property's name: the first item of a list, and a key of a map.
const (
	item = "[]"
	key  = "key"
)

// texts has values for each pattern that occurs in a schema, every alternative of the pattern among them. A pattern that is not listed is an error:
// whoever adds it knows what it means.
var texts = map[string][]string{
	``:                                         {"sample"},
	`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`:         {"1h30m", "0s", "1.5s", "250ms"},
	`^([0-9]+(\.[0-9]+)?(ms|s|m))+$`:           {"60s", "1m30s", "500ms"},
	`^(http|https|ssh)://.*$`:                  {"https://example.com/org/repo", "http://example.com", "ssh://git@example.com:22/org/repo"},
	`^(http|https)://.*$`:                      {"https://example.com/x", "http://example.com"},
	`^(http|https)://`:                         {"https://example.com/x", "http://example.com"},
	`^https?://`:                               {"https://example.com/x", "http://example.com"},
	`^oci://.*$`:                               {"oci://registry.example.com/org/repo"},
	`^(http|https|oci)://.*$`:                  {"https://example.com/charts", "http://example.com", "oci://registry.example.com/charts"},
	`^((http|https|oci)://.*){0,1}$`:           {"https://example.com/org/repo", "http://example.com", "oci://registry.example.com/repo"},
	`^([a-zA-Z0-9_\-.\\\/]|\[[0-9]{1,5}\])+$`:  {"a.b[0].c", `annotations.example\.com/key`},
	`^[\-._a-zA-Z0-9]+$`:                       {"values.yaml", "a_b-c"},
	`^@([a-z0-9]([a-z0-9_-]*[a-z0-9])?)/(.*)$`: {"@repo/apps/**", "@a_b-c/"},
	`^@([a-z0-9]([a-z0-9_-]*[a-z0-9])?)$`:      {"@repo"},
	`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`:          {"sample", "a-1"},
	`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`:          {"sample", "a-1"},
	`^[a-z0-9]([a-z0-9_-]*[a-z0-9])?$`:         {"repo", "a_b-1"},
	`^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$`:     {"sample", "*"},
	`^@(artifact)/(.*)$`:                       {"@artifact/", "@artifact/apps"},
	`^@artifact/([^/]{0,1}|[^./][^/]|[.][^./]|[^/]{3,})(/([^/]{0,1}|[^./][^/]|[.][^./]|[^/]{3,}))*$`: {"@artifact/", "@artifact/apps/a"},
	`^$|^[^+:]`: {"sample", ""},
}

// Samples are valid objects of one version.
type Samples struct {
	Objects []*unstructured.Unstructured
	// Missing are the values that no valid object with them was found for, as "path=value".
	Missing []string
}

// target is a value to be part of a sample.
type target struct {
	path  []string
	value any // nil for any
}

func (t target) String() string {
	name := strings.Join(t.path, ".")
	if t.value == nil {
		return name
	}
	return fmt.Sprintf("%s=%v", name, t.value)
}

type generator struct {
	props      *apiextensionsv1.JSONSchemaProps
	structural *structuralschema.Structural
	openAPI    validation.SchemaValidator
	cel        *cel.Validator
	base       map[string]any
	rand       *rand.Rand
}

// Of returns objects of a version of a definition that together set every property of its schema, to each value of an enumeration, to both
// truth values and to a text for each alternative of a pattern. The status is left out: nobody may create one. What is valid is decided by the libraries of the API server. The names of the
// objects are unique; those that may have one name only differ by their namespaces.
func Of(ctx context.Context, crd *apiextensionsv1.CustomResourceDefinition, version string) (*Samples, error) {
	g, err := newGenerator(crd, version)
	if err != nil {
		return nil, fmt.Errorf("making samples of %s %s: %w", crd.Name, version, err)
	}
	targets, err := g.targets()
	if err != nil {
		return nil, fmt.Errorf("making samples of %s %s: %w", crd.Name, version, err)
	}
	out := &Samples{}
	var objects []map[string]any
	for _, t := range targets {
		if slices.ContainsFunc(objects, t.in) || g.extend(ctx, objects, t) {
			continue
		}
		o, err := g.create(ctx, t)
		switch {
		case err != nil:
			return nil, fmt.Errorf("making samples of %s %s: %w", crd.Name, version, err)
		case o == nil:
			out.Missing = append(out.Missing, t.String())
		default:
			objects = append(objects, o)
		}
	}
	for i, o := range objects {
		u := &unstructured.Unstructured{Object: o}
		number(u, strings.ToLower(crd.Spec.Names.Kind)+"-"+version+"-"+strconv.Itoa(i))
		out.Objects = append(out.Objects, u)
	}
	return out, nil
}

// number makes an object unique by its name, or by its namespace if it may have one name only.
func number(o *unstructured.Unstructured, name string) {
	if o.GetName() == onlyName {
		o.SetNamespace(name)
		return
	}
	o.SetName(name)
}

func newGenerator(crd *apiextensionsv1.CustomResourceDefinition, version string) (*generator, error) {
	i := slices.IndexFunc(crd.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool { return v.Name == version })
	if i < 0 {
		return nil, fmt.Errorf("it has no such version")
	}
	props := crd.Spec.Versions[i].Schema.OpenAPIV3Schema
	internal := &apiextensions.JSONSchemaProps{}
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(props, internal, nil); err != nil {
		return nil, err
	}
	structural, err := structuralschema.NewStructural(internal)
	if err != nil {
		return nil, err
	}
	openAPI, _, err := validation.NewSchemaValidator(internal)
	if err != nil {
		return nil, err
	}
	metadata := map[string]any{"name": "sample"}
	if slices.ContainsFunc(props.XValidations, func(r apiextensionsv1.ValidationRule) bool { return r.Rule == "self.metadata.name == '"+onlyName+"'" }) {
		metadata["name"] = onlyName
	}
	if crd.Spec.Scope == apiextensionsv1.NamespaceScoped {
		metadata["namespace"] = "default"
	}
	return &generator{
		props: props, structural: structural, openAPI: openAPI, cel: cel.NewValidator(structural, true, celconfig.PerCallLimit),
		base: map[string]any{"apiVersion": crd.Spec.Group + "/" + version, "kind": crd.Spec.Names.Kind, "metadata": metadata},
		rand: rand.New(rand.NewPCG(1, 2)), // the same samples in every run
	}, nil
}

// targets returns what the samples have to contain, parents first.
func (g *generator) targets() (out []target, err error) {
	var walk func(s *apiextensionsv1.JSONSchemaProps, path []string)
	add := func(path []string, value any) { out = append(out, target{slices.Clone(path), value}) }
	walk = func(s *apiextensionsv1.JSONSchemaProps, path []string) {
		values, e := candidates(s)
		if e != nil && err == nil {
			err = fmt.Errorf("%s: %w", strings.Join(path, "."), e)
		}
		if len(values) == 0 {
			add(path, nil)
		}
		for _, v := range values {
			add(path, v)
		}
		for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
			if len(path) == 0 && (name == "apiVersion" || name == "kind" || name == "metadata" || name == "status") {
				continue
			}
			p := s.Properties[name]
			walk(&p, append(slices.Clone(path), name))
		}
		if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
			walk(s.AdditionalProperties.Schema, append(slices.Clone(path), key))
		}
		if s.Items != nil && s.Items.Schema != nil {
			walk(s.Items.Schema, append(slices.Clone(path), item))
		}
	}
	walk(g.props, nil)
	return out, err
}

// candidates returns the values of a scalar to try; none for an object or a list with a schema of its own.
func candidates(s *apiextensionsv1.JSONSchemaProps) ([]any, error) {
	var out []any
	for _, e := range s.Enum {
		var v any
		if err := json.Unmarshal(e.Raw, &v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	switch {
	case len(out) > 0:
		return out, nil
	case s.XIntOrString:
		return []any{int64(1), "25%"}, nil
	case s.XPreserveUnknownFields != nil && *s.XPreserveUnknownFields && len(s.Properties) == 0:
		anything := map[string]any{"text": "x", "list": []any{int64(1), map[string]any{"a": nil}}}
		if s.XEmbeddedResource {
			anything = map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "x"}, "data": map[string]any{"a": "b"}}
		}
		return []any{anything}, nil
	case s.Type == "boolean":
		return []any{true, false}, nil
	case s.Type == "integer", s.Type == "number":
		out := []any{int64(1)}
		if s.Minimum != nil {
			out[0] = int64(*s.Minimum)
		}
		if s.Maximum != nil {
			out = append(out, int64(*s.Maximum))
		}
		return out, nil
	case s.Type == "string":
		return stringCandidates(s)
	}
	return nil, nil
}

func stringCandidates(s *apiextensionsv1.JSONSchemaProps) (out []any, err error) {
	if s.Format == "date-time" {
		return []any{"2026-01-02T15:04:05Z"}, nil
	}
	if s.Format != "" {
		return nil, fmt.Errorf("no value is known for the format %s", s.Format)
	}
	list, ok := texts[s.Pattern]
	if !ok {
		return nil, fmt.Errorf("no value is known for the pattern %s: add one to the table", s.Pattern)
	}
	pattern, err := regexp.Compile(s.Pattern)
	if err != nil {
		return nil, err
	}
	for _, text := range list {
		if !pattern.MatchString(text) {
			return nil, fmt.Errorf("the table has %q for the pattern %s, which it does not match", text, s.Pattern)
		}
		if s.MinLength == nil || int64(len(text)) >= *s.MinLength {
			out = append(out, text)
		}
	}
	return out, nil
}

// minimal returns the smallest value that the types and required fields of a schema allow.
func minimal(s *apiextensionsv1.JSONSchemaProps) any {
	if s.Default != nil {
		var v any
		if json.Unmarshal(s.Default.Raw, &v) == nil {
			return v
		}
	}
	if values, _ := candidates(s); len(values) > 0 {
		return runtime.DeepCopyJSONValue(values[0])
	}
	if s.Type == "array" {
		list := []any{}
		if s.MinItems != nil && s.Items != nil {
			for range *s.MinItems {
				list = append(list, minimal(s.Items.Schema))
			}
		}
		return list
	}
	o := map[string]any{}
	for _, name := range s.Required {
		p := s.Properties[name]
		o[name] = minimal(&p)
	}
	return o
}

// child returns the schema of a step from a schema.
func child(s *apiextensionsv1.JSONSchemaProps, step string) *apiextensionsv1.JSONSchemaProps {
	if step == item {
		return s.Items.Schema
	}
	if p, ok := s.Properties[step]; ok {
		return &p
	}
	if s.AdditionalProperties != nil {
		return s.AdditionalProperties.Schema
	}
	return nil
}

// set sets a value, with the parents that it needs, and returns the changed object.
func set(s *apiextensionsv1.JSONSchemaProps, at any, path []string, value any) any {
	if len(path) == 0 {
		switch {
		case value != nil:
			return runtime.DeepCopyJSONValue(value)
		case at != nil:
			return at
		case s.Items != nil:
			return []any{minimal(s.Items.Schema)}
		case s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil:
			return map[string]any{key: minimal(s.AdditionalProperties.Schema)}
		}
		return minimal(s)
	}
	next := child(s, path[0])
	if path[0] == item {
		list, _ := at.([]any)
		if len(list) == 0 {
			return []any{set(next, nil, path[1:], value)}
		}
		list[0] = set(next, list[0], path[1:], value)
		return list
	}
	o, ok := at.(map[string]any)
	if !ok {
		o, _ = minimal(s).(map[string]any)
	}
	if o == nil {
		o = map[string]any{}
	}
	o[path[0]] = set(next, o[path[0]], path[1:], value)
	return o
}

// unset removes a property.
func unset(at any, path []string) {
	for _, step := range path[:len(path)-1] {
		at, _ = get(at, step)
	}
	if o, ok := at.(map[string]any); ok {
		delete(o, path[len(path)-1])
	}
}

func get(at any, step string) (any, bool) {
	if step == item {
		list, _ := at.([]any)
		if len(list) == 0 {
			return nil, false
		}
		return list[0], true
	}
	o, _ := at.(map[string]any)
	v, ok := o[step]
	return v, ok
}

func (t target) find(o map[string]any) (any, bool) {
	var at any = o
	for _, step := range t.path {
		next, ok := get(at, step)
		if !ok {
			return nil, false
		}
		at = next
	}
	return at, true
}

// in reports whether an object contains the target.
func (t target) in(o map[string]any) bool {
	v, ok := t.find(o)
	return ok && (t.value == nil || reflect.DeepEqual(v, t.value))
}

// extend adds a target to one of the objects, and reports whether one stays valid with it.
func (g *generator) extend(ctx context.Context, objects []map[string]any, t target) bool {
	for i, o := range objects {
		if _, ok := t.find(o); ok {
			continue // another value, which the object is there for
		}
		changed, _ := set(g.props, runtime.DeepCopyJSON(o), t.path, t.value).(map[string]any)
		if len(g.invalid(ctx, changed)) == 0 {
			objects[i] = changed
			return true
		}
	}
	return false
}

// create returns a new valid object with the target, or nil if it finds none.
func (g *generator) create(ctx context.Context, t target) (map[string]any, error) {
	base, _ := minimal(g.props).(map[string]any)
	maps.Copy(base, runtime.DeepCopyJSON(g.base))
	base, _ = set(g.props, base, t.path, t.value).(map[string]any)
	for o, try := base, 0; try < repairs; try++ {
		errs := g.invalid(ctx, o)
		if len(errs) == 0 {
			return o, nil
		}
		// Most repairs are near: a long way from the start helps as seldom as a long stay.
		if try%8 == 0 {
			o = runtime.DeepCopyJSON(base)
		}
		changed, err := g.repair(runtime.DeepCopyJSON(o), errs[g.rand.IntN(len(errs))])
		if err != nil {
			return nil, err
		}
		if t.in(changed) {
			o = changed
		}
	}
	return nil, nil
}

// mention is a field of the object that a CEL rule is about.
var mention = regexp.MustCompile(`self((?:\.[a-zA-Z_]\w*)+)`)

// repair changes some of the fields that the CEL rules of an invalid object mention.
func (g *generator) repair(o map[string]any, e *field.Error) (map[string]any, error) {
	at, path := g.props, []string{}
	for _, step := range strings.FieldsFunc(e.Field, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		if _, err := strconv.Atoi(step); err == nil && at.Type == "array" {
			step = item
		}
		next := child(at, step)
		if next == nil {
			break
		}
		at, path = next, append(path, step)
	}
	var fields [][]string
	for _, r := range at.XValidations {
		for _, m := range mention.FindAllStringSubmatch(r.Rule, -1) {
			var name []string
			for s, step := at, 0; ; step++ {
				steps := strings.Split(m[1], ".")[1:]
				if step == len(steps) || s == nil {
					break
				}
				if s = child(s, strings.Trim(steps[step], "_")); s != nil {
					name = append(name, strings.Trim(steps[step], "_"))
				}
			}
			if len(name) > 0 {
				fields = append(fields, append(slices.Clone(path), name...))
			}
		}
	}
	if len(fields) == 0 {
		return nil, fmt.Errorf("the sample is not valid, and no CEL rule is why: %w", e)
	}
	for range 1 + g.rand.IntN(2) {
		f := fields[g.rand.IntN(len(fields))]
		parent, s := g.props, g.props
		for _, step := range f {
			parent, s = s, child(s, step)
		}
		values, err := candidates(s)
		if err != nil {
			return nil, err
		}
		switch n := g.rand.IntN(len(values) + 2); {
		case n < len(values):
			o, _ = set(g.props, o, f, values[n]).(map[string]any)
		case n == len(values):
			o, _ = set(g.props, o, f, nil).(map[string]any)
		case !slices.Contains(parent.Required, f[len(f)-1]):
			unset(o, f)
		}
	}
	return o, nil
}

// invalid returns what the libraries of the API server object to.
func (g *generator) invalid(ctx context.Context, o map[string]any) field.ErrorList {
	o = runtime.DeepCopyJSON(o)
	defaulting.Default(o, g.structural)
	if errs := validation.ValidateCustomResource(nil, o, g.openAPI); len(errs) > 0 {
		return errs
	}
	if g.cel == nil {
		return nil
	}
	errs, _ := g.cel.Validate(ctx, nil, g.structural, o, nil, celconfig.RuntimeCELCostBudget)
	slices.SortFunc(errs, func(a, b *field.Error) int { return strings.Compare(a.Error(), b.Error()) })
	return errs
}
