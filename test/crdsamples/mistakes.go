package crdsamples

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Mistake is an object with one mistake.
type Mistake struct {
	// Path is the field that is wrong, as "spec.list[0].name".
	Path string
	// Unknown means that the schema has no such field, else its value is of a wrong type.
	Unknown bool
	Object  *unstructured.Unstructured
}

// UnknownField is the field that Mistakes adds.
const UnknownField = "notAFieldOfIt"

// Mistakes returns copies of the objects, each with one mistake: an unknown field in each object that the samples contain, and a value of a wrong
// type in each scalar field.
func Mistakes(crd *apiextensionsv1.CustomResourceDefinition, version string, samples []*unstructured.Unstructured) []Mistake {
	i := slices.IndexFunc(crd.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool { return v.Name == version })
	m := &mistakes{seen: map[string]bool{}}
	props := crd.Spec.Versions[i].Schema.OpenAPIV3Schema
	for _, o := range samples {
		m.of = o
		if spec, ok := props.Properties["spec"]; ok {
			m.walk(&spec, o.Object["spec"], []string{"spec"})
		}
	}
	return m.list
}

type mistakes struct {
	of   *unstructured.Unstructured
	seen map[string]bool // by path
	list []Mistake
}

func (m *mistakes) walk(s *apiextensionsv1.JSONSchemaProps, at any, path []string) {
	if s.XPreserveUnknownFields != nil && *s.XPreserveUnknownFields {
		return
	}
	switch at := at.(type) {
	case map[string]any:
		if s.AdditionalProperties == nil {
			m.add(append(slices.Clone(path), UnknownField), "x", true)
		}
		for _, name := range slices.Sorted(maps.Keys(at)) {
			m.walk(child(s, name), at[name], append(slices.Clone(path), name))
		}
	case []any:
		for i := range at {
			m.walk(s.Items.Schema, at[i], append(slices.Clone(path), strconv.Itoa(i)))
		}
	case string:
		m.add(path, true, false)
	default:
		m.add(path, "text", false)
	}
}

func (m *mistakes) add(path []string, value any, unknown bool) {
	var name strings.Builder
	for i, step := range path {
		if _, err := strconv.Atoi(step); err == nil {
			name.WriteString("[" + step + "]")
			continue
		}
		if i > 0 {
			name.WriteString(".")
		}
		name.WriteString(step)
	}
	if m.seen[name.String()] {
		return
	}
	m.seen[name.String()] = true
	o := m.of.DeepCopy()
	number(o, strings.ToLower(o.GetKind())+"-"+o.GroupVersionKind().Version+"-mistake-"+strconv.Itoa(len(m.list)))
	var at any = o.Object
	for _, step := range path[:len(path)-1] {
		switch parent := at.(type) {
		case map[string]any:
			at = parent[step]
		case []any:
			i, _ := strconv.Atoi(step)
			at = parent[i]
		}
	}
	last := path[len(path)-1]
	switch parent := at.(type) {
	case map[string]any:
		parent[last] = value
	case []any:
		i, _ := strconv.Atoi(last)
		parent[i] = value
	}
	m.list = append(m.list, Mistake{name.String(), unknown, o})
}
