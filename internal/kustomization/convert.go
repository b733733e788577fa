package kustomization

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// toObject decodes a rendered object to what it is after Flux has written it as YAML and read it as JSON: maps with string keys, int64
// where a number has no fraction, times as text. It does without the three serialisations in between.
func toObject(n *yaml.Node) (map[string]any, error) {
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

// fromJSON decodes an object as kustomize does after a substitution, which is without regard for integers above 2^53.
func fromJSON(data []byte) (map[string]any, error) {
	m := map[string]any{}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("decoding: %w", err)
	}
	return m, normalizeMap(m)
}

// deepCopy copies what toObject returns.
func deepCopy(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = deepCopy(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = deepCopy(e)
		}
		return out
	}
	return v
}

// anyString tells whether a key or a string in the value satisfies the condition.
func anyString(v any, cond func(string) bool) bool {
	switch v := v.(type) {
	case string:
		return cond(v)
	case map[string]any:
		for k, e := range v {
			if cond(k) || anyString(e, cond) {
				return true
			}
		}
	case []any:
		for _, e := range v {
			if anyString(e, cond) {
				return true
			}
		}
	}
	return false
}

// substitutable tells whether envsubst would change the text: it opens a variable with ${, and $$ is an escaped dollar sign.
func substitutable(s string) bool { return strings.Contains(s, "${") || strings.Contains(s, "$$") }
