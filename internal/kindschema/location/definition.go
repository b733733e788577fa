package location

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/validators"
)

// Definition returns a definition of a kind with the schemas of the given versions, each from the first location that
// has it. Its release is unknown: the API server's may have other fields. It is nil unless there is one for every version: what the
// locations lack would otherwise look like a version that is not served. Scope is that of the kind, as far as it is
// known: schemas do not have it.
func Definition(
	ctx context.Context, locations []*Location, gk schema.GroupKind, versions []string, scope validators.KindScope,
) (*kindschema.Definition, error) {
	var list []any
	origin := ""
	for i, version := range versions {
		content, at, err := find(ctx, locations, gk.WithVersion(version))
		if content == nil || err != nil {
			return nil, err
		}
		if i == 0 {
			origin = at
		}
		content = structural(content).(map[string]any)
		properties, _ := content["properties"].(map[string]any)
		if properties == nil {
			properties = map[string]any{}
		}
		properties["apiVersion"], properties["kind"] = map[string]any{"type": "string"}, map[string]any{"type": "string"}
		properties["metadata"] = map[string]any{"type": "object"}
		content["type"], content["properties"] = "object", properties
		list = append(list, map[string]any{
			"name": version, "served": true, "storage": i == 0, "schema": map[string]any{"openAPIV3Schema": content},
		})
	}
	plural := strings.ToLower(gk.Kind) + "s"
	object := map[string]any{
		"metadata": map[string]any{"name": plural + "." + gk.Group},
		"spec": map[string]any{
			"group": gk.Group, "scope": string(scope), "versions": list,
			"names": map[string]any{"kind": gk.Kind, "plural": plural},
		},
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object, crd); err != nil {
		return nil, fmt.Errorf("%s is not the schema of a kind: %w", origin, err)
	}
	return &kindschema.Definition{CRD: crd, Origin: origin, AsOf: origin, Uncertain: true}, nil
}

func find(ctx context.Context, locations []*Location, gvk schema.GroupVersionKind) (map[string]any, string, error) {
	for _, l := range locations {
		if content, at, err := l.Schema(ctx, gvk); content != nil || err != nil {
			return content, at, err
		}
	}
	return nil, "", nil
}

// structural returns a JSON schema, which tools derive from a CustomResourceDefinition and make stricter, as the
// structural schema of one: additionalProperties beside properties, lists of types and references have no place there.
// What it cannot express is left out, so that values are accepted rather than refused; so are rules in CEL, which rely on
// defaults.
func structural(v any) any {
	from, ok := v.(map[string]any)
	if !ok {
		return map[string]any{preserve: true}
	}
	if from["format"] == "int-or-string" || from[intOrString] == true {
		return map[string]any{intOrString: true}
	}
	out := map[string]any{}
	for key, value := range from {
		switch key {
		case "properties":
			properties, _ := value.(map[string]any)
			converted := map[string]any{}
			for name, property := range properties {
				converted[name] = structural(property)
			}
			out[key] = converted
		case "items":
			out[key] = structural(value)
		case "additionalProperties":
			if _, isSchema := value.(map[string]any); isSchema {
				out[key] = structural(value)
			}
		case "oneOf", "anyOf":
			if onlyRequired(value) {
				out[key] = value
			}
		case "const":
			out["enum"] = []any{value}
		case "type":
			setType(out, value)
		case "description", "format", "required", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems",
			"minProperties", "maxProperties", "multipleOf", "nullable", "enum", preserve, "x-kubernetes-embedded-resource",
			"x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type":
			out[key] = value
		}
	}
	return complete(out, from)
}

const (
	preserve    = "x-kubernetes-preserve-unknown-fields"
	intOrString = "x-kubernetes-int-or-string"
)

// complete adds what a structural schema must have.
func complete(out, from map[string]any) map[string]any {
	if out["properties"] != nil {
		delete(out, "additionalProperties") // the two exclude each other
		if from["additionalProperties"] == true {
			out[preserve] = true
		}
	}
	if slices.Contains(asList(out["enum"]), nil) {
		delete(out, "enum") // one with null is not expressed
	}
	switch {
	case out["type"] != nil:
	case out["properties"] != nil || out["additionalProperties"] != nil:
		out["type"] = "object"
	case out["items"] != nil:
		out["type"] = "array"
	default:
		return map[string]any{preserve: true}
	}
	switch {
	case out["type"] == "array" && out["items"] == nil:
		out["items"] = map[string]any{preserve: true}
	case out["type"] == "object" && out["properties"] == nil && out["additionalProperties"] == nil:
		out[preserve] = true
	}
	return out
}

// setType sets the type, of which "null" in a list is nullable.
func setType(out map[string]any, value any) {
	if _, isText := value.(string); isText {
		out["type"] = value
		return
	}
	types := asList(value)
	rest := slices.DeleteFunc(slices.Clone(types), func(t any) bool { return t == "null" })
	if len(rest) == 1 {
		out["type"] = rest[0]
		if len(rest) < len(types) {
			out["nullable"] = true
		}
	}
}

func asList(v any) []any {
	list, _ := v.([]any)
	return list
}

// onlyRequired reports whether the alternatives only require fields.
func onlyRequired(v any) bool {
	list := asList(v)
	return len(list) > 0 && !slices.ContainsFunc(list, func(item any) bool {
		m, _ := item.(map[string]any)
		return len(m) != 1 || !slices.Equal(slices.Collect(maps.Keys(m)), []string{"required"})
	})
}
