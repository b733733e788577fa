package sourcetree

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/yamlposition"
)

// Decode decodes an object as if Flux had written it as YAML and read it as JSON: maps with string keys, int64 where
// a number has no fraction, times as text. It saves the three serializations in between.
func Decode(n *yaml.Node) (map[string]any, error) {
	m := map[string]any{}
	if err := n.Decode(&m); err != nil {
		return nil, fmt.Errorf("decoding: %w", err)
	}
	if err := normalizeMap(m); err != nil {
		return nil, err
	}
	return m, nil
}

func normalizeMap(m map[string]any) error {
	for k, v := range m {
		n, err := normalize(v)
		if err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
		m[k] = n
	}
	return nil
}

func normalize(v any) (any, error) {
	switch v := v.(type) {
	case map[string]any:
		return v, normalizeMap(v)
	case []any:
		for i := range v {
			n, err := normalize(v[i])
			if err != nil {
				return nil, fmt.Errorf("[%d]: %w", i, err)
			}
			v[i] = n
		}
		return v, nil
	case string, bool, nil, int64:
		return v, nil
	case int:
		return int64(v), nil
	case uint64:
		if v <= math.MaxInt64 {
			return int64(v), nil
		}
		return float64(v), nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("%v has no form in JSON", v)
		}
		if v == math.Trunc(v) && math.Abs(v) < 1<<63 {
			return int64(v), nil
		}
		return v, nil
	case time.Time:
		return v.Format(time.RFC3339Nano), nil
	case map[any]any:
		return nil, fmt.Errorf("a key is not a string")
	default:
		return nil, fmt.Errorf("a value of type %T has no form in JSON", v)
	}
}

// DecodeJSON decodes an object as kustomize does after a substitution, which rounds integers above 2^53.
func DecodeJSON(data []byte) (map[string]any, error) {
	m := map[string]any{}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("decoding: %w", err)
	}
	return m, normalizeMap(m)
}

// Identity is the part of an object that names it.
type Identity struct{ APIVersion, Kind, Namespace, Name string }

// Identify returns the identity of a document.
func Identify(n *yaml.Node) Identity {
	return Identity{
		yamlposition.Scalar(n, "apiVersion"), yamlposition.Scalar(n, "kind"),
		yamlposition.Scalar(n, "metadata", "namespace"), yamlposition.Scalar(n, "metadata", "name"),
	}
}

// Group returns the API group; empty for the core group.
func (id Identity) Group() string {
	g, _, ok := strings.Cut(id.APIVersion, "/")
	if !ok {
		return ""
	}
	return g
}

// IsObject reports whether the document looks like a Kubernetes object. A kustomization.yaml is none.
func (id Identity) IsObject() bool {
	return id.APIVersion != "" && id.Kind != "" && id.Group() != "kustomize.config.k8s.io"
}

// Object returns the object of the document at an index, as it is in the file; nil when the document is none.
func (f *File) Object(index int) *unstructured.Unstructured {
	doc := f.Parse().Documents[index]
	object, err := Decode(yamlposition.Root(doc))
	if err != nil || !Identify(doc).IsObject() {
		return nil
	}
	return &unstructured.Unstructured{Object: object}
}
