package schema_test

import (
	"encoding/json"
	"testing"

	"github.com/flux-admission/flux-admission/internal/helmchart/schema"
)

func FuzzSchema(f *testing.F) {
	for _, seed := range [][2]string{
		{`{"type": "object", "additionalProperties": false, "properties": {"a": {"$ref": "#/definitions/p"}}, "definitions": {"p": {"type": "integer"}}}`, `{"a": "x", "b": 1}`},
		{`{"$ref": "#"}`, `{}`},
		{`{"$schema": "http://json-schema.org/draft-04/schema#", "id": "x", "exclusiveMinimum": true, "minimum": 1}`, `1`},
		{`{"$ref": "file:///etc/passwd"}`, `{}`},
		{`{"properties": {"a": {"$ref": "#"}}, "not": {"required": ["z"]}}`, `{"a": {"a": {"z": 1}}}`},
		{`{"$id": "https://e.x/a", "$defs": {"b": {"$id": "b", "$dynamicAnchor": "n", "$dynamicRef": "#n"}}, "$ref": "b"}`, `{}`},
		{`{"anyOf": [{"oneOf": [{"if": {"const": 1}, "then": {"enum": [1]}, "else": false}]}, {"unevaluatedItems": false, "contains": {"type": "null"}}]}`, `[null, 1]`},
		{`{"pattern": "(a*)*b", "minLength": 1e2, "multipleOf": 0.1}`, `"aaaaaaaaaaaaaaaaaaaaaaaac"`},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, doc, values []byte) {
		s, err := schema.Compile(doc, nil)
		if err != nil {
			return
		}
		var v any
		if json.Unmarshal(values, &v) != nil {
			return
		}
		res, err := s.Evaluate(t.Context(), v)
		if err != nil {
			return
		}
		for _, p := range res.Problems {
			if p.Message == "" || p.Keyword == "" {
				t.Errorf("a problem without a message or keyword: %+v", p)
			}
		}
	})
}
