package schema_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/helmchart/schema"
)

func compile(t testing.TB, doc string) *schema.Schema {
	t.Helper()
	s, err := schema.Compile([]byte(doc), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func decode(t testing.TB, text string) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// found evaluates and returns the problems as lines.
func found(t testing.TB, s *schema.Schema, v any) []string {
	t.Helper()
	res, err := s.Evaluate(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{}
	for _, p := range res.Problems {
		line := fmt.Sprintf("at '%s': %s [%s %s]", p.Pointer, p.Message, p.Keyword, p.Path)
		if p.Suggestion != "" {
			line += " " + p.Suggestion + "?"
		}
		lines = append(lines, line)
	}
	for _, u := range res.NotLoaded {
		lines = append(lines, "not loaded: "+u)
	}
	return lines
}

func TestSchema_Evaluate(t *testing.T) {
	const d7 = `"$schema": "http://json-schema.org/draft-07/schema#", `
	for name, tc := range map[string]struct {
		schema, values string
		want           []string
	}{
		"every unknown property is a problem of its own": {
			`{"properties": {"a": {"additionalProperties": false, "properties": {"replicas": {}}}}}`, `a: {replcas: 1, image: x}`,
			[]string{"at '/a': additional property 'image' not allowed [additionalProperties a.image]", "at '/a': additional property 'replcas' not allowed [additionalProperties a.replcas] replicas?"},
		},
		"types are named, values are not": {
			`{"properties": {"a": {"type": ["integer", "null"]}, "b": {"type": "string"}, "c": {"type": "integer"}, "d": {"type": "array"}}}`, `{a: secret, b: {}, c: 1.5, d: true}`,
			[]string{"at '/a': got string, want null or integer [type a]", "at '/b': got object, want string [type b]", "at '/c': got number, want integer [type c]", "at '/d': got boolean, want array [type d]"},
		},
		"a whole number is an integer": {`{"properties": {"a": {"type": "integer"}}}`, `a: 1.0`, nil},
		"enums are listed with the nearest": {
			`{"properties": {"a": {"enum": ["Always", "Never", null, 3]}}}`, `a: Allways`,
			[]string{"at '/a': value must be one of 'Always', 'Never', null, 3 [enum a] Always?"},
		},
		"long enums are cut": {
			`{"properties": {"a": {"enum": [1,2,3,4,5,6,7,8,9,10,11,12,13,14]}}}`, `a: 0`,
			[]string{"at '/a': value must be one of 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 2 more [enum a]"},
		},
		"constants are named":         {`{"properties": {"a": {"const": {"b": 1}}}}`, `a: {b: 2}`, []string{`at '/a': value must be {"b":1} [const a]`}},
		"numbers compare as decimals": {`{"properties": {"a": {"enum": [1]}, "b": {"multipleOf": 0.1}}}`, `{a: 1.0, b: 0.3}`, nil},
		"limits are named": {
			`{"properties": {"a": {"minimum": 1}, "b": {"maximum": 2.5}, "c": {"exclusiveMinimum": 1}, "d": {"exclusiveMaximum": 1}, "e": {"multipleOf": 3}, "f": {"minLength": 3}, "g": {"maxLength": 1}}}`,
			`{a: 0, b: 3, c: 1, d: 1, e: 4, f: ab, g: ab}`,
			[]string{
				"at '/a': must be at least 1 [minimum a]", "at '/b': must be at most 2.5 [maximum b]", "at '/c': must be more than 1 [exclusiveMinimum c]", "at '/d': must be less than 1 [exclusiveMaximum d]",
				"at '/e': must be a multiple of 3 [multipleOf e]", "at '/f': must have at least 3 characters [minLength f]", "at '/g': must have at most 1 characters [maxLength g]",
			},
		},
		"patterns are quoted, values are not": {`{"properties": {"a": {"pattern": "^[a-z]+\\d$"}}}`, `a: SECRET`, []string{`at '/a': does not match pattern '^[a-z]+\d$' [pattern a]`}},
		"formats count before draft 2019-09":  {`{` + d7 + `"properties": {"a": {"format": "email"}}}`, `a: nobody`, []string{"at '/a': is not a valid email [format a]"}},
		"formats do not count after it":       {`{"properties": {"a": {"format": "email"}}}`, `a: nobody`, nil},
		"missing properties are named one by one": {
			`{"properties": {"a": {"required": ["x", "y"]}}}`, `a: {}`,
			[]string{"at '/a': missing property 'x' [required a.x]", "at '/a': missing property 'y' [required a.y]"},
		},
		"dependencies are named": {
			`{"dependentRequired": {"a": ["b"]}, "dependentSchemas": {"a": {"required": ["c"]}}}`, `a: 1`,
			[]string{"at '': missing property 'b', required because 'a' is set [dependentRequired b]", "at '': missing property 'c' [required c]"},
		},
		"property names are held to their schema": {
			`{"propertyNames": {"enum": ["alpha", "beta"]}}`, `alhpa: 1`, []string{"at '': invalid property name 'alhpa' [propertyNames alhpa] alpha?"},
		},
		"patterns of property names": {
			`{"patternProperties": {"^x-": {"type": "string"}}, "additionalProperties": {"type": "integer"}}`, `{x-a: 1, b: c}`,
			[]string{"at '/b': got string, want integer [type b]", "at '/x-a': got number, want string [type x-a]"},
		},
		"counts of properties and items": {
			`{"minProperties": 3, "properties": {"a": {"maxItems": 1}, "b": {"minItems": 1, "maxProperties": 0}}}`, `{a: [1, 2], b: []}`,
			[]string{"at '': at least 3 properties are required [minProperties ]", "at '/a': at most 1 items are allowed [maxItems a]", "at '/b': at least 1 items are required [minItems b]"},
		},
		"items of a list": {
			`{"properties": {"a": {"uniqueItems": true, "items": {"type": "integer"}, "prefixItems": [{"type": "string"}]}}}`, `a: [x, z, 1, 1]`,
			[]string{"at '/a': items at 2 and 3 are equal [uniqueItems a]", "at '/a/1': got string, want integer [type a[1]]"},
		},
		"items of a list before draft 2020-12": {
			`{` + d7 + `"properties": {"a": {"items": [{"type": "string"}], "additionalItems": false}}}`, `a: [1, 2]`,
			[]string{"at '/a': at most 1 items are allowed [additionalItems a]", "at '/a/0': got number, want string [type a[0]]"},
		},
		"contains": {
			`{"properties": {"a": {"contains": {"const": 1}, "maxContains": 1}, "b": {"contains": {"const": 1}}}}`, `{a: [1, 1], b: [2]}`,
			[]string{"at '/a': at most 1 items that match 'contains' are allowed [maxContains a]", "at '/b': at least 1 items that match 'contains' are required [minContains b]"},
		},
		"anyOf is reduced to the alternative that was meant": {
			`{"properties": {"a": {"anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": false, "properties": {"name": {}}}]}}}`, `a: {nam: x}`,
			[]string{"at '/a': additional property 'nam' not allowed [additionalProperties a.nam] name?"},
		},
		"anyOf of types is told as types": {
			`{"properties": {"a": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}}`, `a: {}`, []string{"at '/a': got object, want integer or string [type a]"},
		},
		"oneOf that matches twice": {
			`{"properties": {"a": {"oneOf": [{"type": "number"}, {"minimum": 1}]}}}`, `a: 2`,
			[]string{"at '/a': matches more than one of the alternatives, where exactly one must match [oneOf a]"},
		},
		"oneOf told apart by a constant": {
			`{"properties": {"a": {"oneOf": [{"properties": {"kind": {"const": "x"}, "n": {"type": "integer"}}, "required": ["kind"]}, {"properties": {"kind": {"const": "y"}, "m": {"type": "integer"}}, "required": ["kind"]}]}}}`,
			`a: {kind: "y", m: none}`, []string{"at '/a/m': got string, want integer [type a.m]"},
		},
		"if, then and else": {
			`{"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"required": ["c"]}}`, `a: 1`, []string{"at '': missing property 'b' [required b]"},
		},
		"not":         {`{"properties": {"a": {"not": {"type": "string"}}}}`, `a: x`, []string{"at '/a': matches what the schema excludes with 'not' [not a]"}},
		"false":       {`{"properties": {"a": false}}`, `a: x`, []string{"at '/a': nothing is allowed here [not a]"}},
		"a reference": {`{"$defs": {"p": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/p"}}}`, `a: x`, []string{"at '/a': got string, want integer [type a]"}},
		"a self-reference": {
			`{"properties": {"child": {"$ref": "#"}, "num": {"type": "integer"}}}`, `child: {child: {child: {num: x}}}`,
			[]string{"at '/child/child/child/num': got string, want integer [type child.child.child.num]"},
		},
		"unevaluated properties": {
			`{"allOf": [{"properties": {"a": {}}}], "anyOf": [{"properties": {"b": {"type": "string"}}}, {"properties": {"c": {}}}], "unevaluatedProperties": false}`, `{a: 1, b: 1, c: 1}`,
			[]string{"at '': additional property 'b' not allowed [unevaluatedProperties b]"},
		},
		"names are escaped as Helm does": {
			`{"additionalProperties": {"type": "string"}}`, `{"a/b~c": 1}`, []string{"at '/a~1b~0c': got number, want string [type [a/b~c]]"},
		},
		"a problem reported twice is returned once":    {`{"allOf": [{"required": ["a"]}, {"required": ["a"]}]}`, `{}`, []string{"at '': missing property 'a' [required a]"}},
		"a file is not read":                           {`{"properties": {"a": {"$ref": "file:///etc/passwd"}, "b": {"type": "string"}}}`, `{a: 1, b: 1}`, []string{"at '/b': got number, want string [type b]", "not loaded: file:///etc/passwd"}},
		"a remote schema that does not apply":          {`{"properties": {"a": {"$ref": "https://user:pass@example.com/x?token=y#/z"}}}`, `{b: 1}`, nil},
		"a remote schema is named without credentials": {`{"properties": {"a": {"$ref": "https://user:pass@example.com/x?token=y#/z"}}}`, `{a: 1}`, []string{"not loaded: https://example.com/x"}},
		"what is not known cannot be excluded":         {`{"properties": {"a": {"not": {"$ref": "https://example.com/x"}}}}`, `{a: 1}`, []string{"not loaded: https://example.com/x"}},
		"a reference to the schema's own identifier is its own": {
			`{"$id": "https://example.com/root.json", "$defs": {"p": {"type": "integer"}}, "properties": {"a": {"$ref": "https://example.com/root.json#/$defs/p"}, "b": {"$ref": "root.json#/$defs/p"}}}`, `{a: x, b: 1}`,
			[]string{"at '/a': got string, want integer [type a]"},
		},
		"a property may be called like a keyword": {
			`{"properties": {"$ref": {"type": "string"}, "enum": {"properties": {"a": {"$ref": "https://example.com/x"}}}, "const": {"type": "string"}}}`, `{$ref: 1, enum: {a: 1}, const: 1}`,
			[]string{"at '/$ref': got number, want string [type $ref]", "at '/const': got number, want string [type const]", "not loaded: https://example.com/x"},
		},
		"a reference in data is data": {`{"properties": {"a": {"const": {"$ref": "https://example.com/x"}}}}`, `{a: {$ref: "https://example.com/x"}}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := found(t, compile(t, tc.schema), decode(t, tc.values))
			if strings.Join(got, "\n") != strings.Join(tc.want, "\n") {
				t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}

func TestSchema_EvaluateUnknownValues(t *testing.T) {
	u, gone := schema.Unknown{}, schema.Unknown{MayVanish: true}
	for name, tc := range map[string]struct {
		schema string
		values any
		want   []string
	}{
		"an open object may still get what is required":  {`{"required": ["a"], "minProperties": 2, "dependentRequired": {"b": ["c"]}}`, schema.Open{"b": 1.0}, nil},
		"an open object keeps what is not allowed":       {`{"additionalProperties": false, "maxProperties": 0}`, schema.Open{"b": 1.0}, []string{"at '': at most 0 properties are allowed [maxProperties ]", "at '': additional property 'b' not allowed [additionalProperties b]"}},
		"an open object is an object":                    {`{"type": "string"}`, schema.Open{}, []string{"at '': got object, want string [type ]"}},
		"a known scalar in an open object counts":        {`{"properties": {"a": {"type": "integer"}}}`, schema.Open{"a": "x"}, []string{"at '/a': got string, want integer [type a]"}},
		"an unknown value can be anything":               {`{"properties": {"a": {"type": "integer"}, "b": {"enum": [1]}, "c": {"not": {}}}}`, map[string]any{"a": u, "b": u, "c": u}, nil},
		"an unknown value under a wrong name is wrong":   {`{"additionalProperties": false}`, map[string]any{"a": u}, []string{"at '': additional property 'a' not allowed [additionalProperties a]"}},
		"an unknown value that may vanish is not":        {`{"additionalProperties": false, "required": ["a"], "dependentRequired": {"a": ["b"]}, "maxProperties": 0}`, map[string]any{"a": gone}, nil},
		"alternatives that all fail, fail":               {`{"anyOf": [{"required": ["a"], "properties": {"b": {"type": "string"}}}, {"properties": {"b": {"type": "null"}}}]}`, schema.Open{"b": 1.0}, []string{"at '': fits none of the alternatives [anyOf ]"}},
		"alternatives that may match, may match":         {`{"anyOf": [{"required": ["a"]}, {"type": "string"}]}`, schema.Open{}, nil},
		"exactly one of two that may match":              {`{"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}`, schema.Open{"a": 1.0}, nil},
		"a condition that is not known":                  {`{"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"properties": {"c": false}}}`, schema.Open{"c": 1.0}, nil},
		"a condition that makes no difference":           {`{"if": {"required": ["a"]}, "then": {"properties": {"c": {"type": "string"}}}, "else": {"properties": {"c": {"type": "null"}}}}`, schema.Open{"c": 1.0}, []string{"at '': fails both 'then' and 'else' [if ]"}},
		"a list with an unknown item has its length":     {`{"maxItems": 1, "uniqueItems": true, "contains": {"const": 1}}`, []any{u, 2.0}, []string{"at '': at most 1 items are allowed [maxItems ]"}},
		"equal items beside an unknown one":              {`{"uniqueItems": true}`, []any{u, 2.0, 2.0}, []string{"at '': items at 1 and 2 are equal [uniqueItems ]"}},
		"a constant around an unknown value":             {`{"const": {"a": 1, "b": 2}}`, map[string]any{"a": u, "b": 2.0}, nil},
		"a constant that differs elsewhere":              {`{"const": {"a": 1, "b": 2}}`, map[string]any{"a": u, "b": 3.0}, []string{`at '': value must be {"a":1,"b":2} [const ]`}},
		"what an unknown alternative may have looked at": {`{"anyOf": [{"required": ["x"], "properties": {"a": {}}}, {}], "unevaluatedProperties": false}`, schema.Open{"a": 1.0}, nil},
		"what no alternative looks at":                   {`{"anyOf": [{"properties": {"a": {}}}, {}], "unevaluatedProperties": false}`, schema.Open{"b": 1.0}, []string{"at '': additional property 'b' not allowed [unevaluatedProperties b]"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := found(t, compile(t, tc.schema), tc.values)
			if strings.Join(got, "\n") != strings.Join(tc.want, "\n") {
				t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}

func TestCompile_HostileSchemas(t *testing.T) {
	chain := func(n int, link string) string {
		var b strings.Builder
		b.WriteString(`{"$ref": "#/definitions/d0", "definitions": {`)
		for i := range n {
			fmt.Fprintf(&b, `"d%d": `+link+`,`, i, i+1)
		}
		fmt.Fprintf(&b, `"d%d": true}}`, n)
		return b.String()
	}
	for name, tc := range map[string]struct {
		schema, want string
	}{
		"too many bytes":                     {`{"description": "` + strings.Repeat("x", schema.MaxBytes) + `"}`, "the schema is rejected: it has 4194323 bytes, more than 4194304"},
		"nested too deep":                    {strings.Repeat(`{"items":`, schema.MaxDepth+1) + "true" + strings.Repeat("}", schema.MaxDepth+1), "the schema is rejected: it is nested deeper than 200"},
		"too many nodes":                     {`{"enum": [` + strings.Repeat("1,", schema.MaxNodes) + "1]}", "the schema is rejected: it has more than 60000 nodes"},
		"half a million properties":          {`{"properties": {` + strings.Repeat(`"a":1,`, 500_000) + `"b":1}}`, "the schema is rejected: it has more than 60000 nodes"},
		"a chain of 40,000 references":       {chain(40_000, `{"$ref": "#/definitions/d%d"}`), "the schema is rejected: it has more than 60000 nodes"},
		"a chain of 5,000 references":        {chain(5_000, `{"$ref": "#/definitions/d%d"}`), "the schema is rejected: more than 128 schemas in a row apply to the same value, at #/definitions/d"},
		"a chain through other keywords":     {chain(2_000, `{"allOf": [{"not": {"$ref": "#/definitions/d%d"}}]}`), "the schema is rejected: more than 128 schemas in a row apply to the same value, at #/"},
		"a reference to itself":              {`{"$ref": "#"}`, "the schema is not valid: jsonschema: infinite loop file:///values.schema.json#/$ref"},
		"a reference to what is not there":   {`{"$ref": "#/definitions/nope"}`, "the schema is not valid: jsonschema: file:///values.schema.json#/definitions/nope not found"},
		"a number with a huge exponent":      {`{"minimum": 1e999999999}`, "the schema is rejected: it has a number that is too long"},
		"a pattern that is none":             {`{"pattern": "("}`, "the schema is not valid: at #/pattern: '(' is not valid 'regex'"},
		"a pattern that grows when compiled": {`{"pattern": "((a{1000}){1000}){1000}"}`, "the schema is not valid: at #/pattern: '((a{1000}){1000}){1000}' is not valid 'regex'"},
		"a type that is none":                {`{"type": "text"}`, "the schema is not valid: at #/type: "},
		"an unknown draft":                   {`{"$schema": "https://example.com/draft"}`, `the schema is not valid: "https://example.com/draft" is not loaded: a schema may only refer to itself`},
		"no JSON":                            {`{`, "the schema is rejected: it is not JSON: "},
		"two documents":                      {`{} {}`, "the schema is rejected: it is not JSON: "},
		"a list":                             {`[]`, "the schema is not valid: "},
		"many anchors to search for":         {`{"allOf": [` + strings.Repeat(`{"$ref": "#a"},`, 1001) + `{"$anchor": "a"}]}`, "the schema is rejected: it has 1002 embedded identifiers, anchors and references outside definitions, more than 1000"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := schema.Compile([]byte(tc.schema), nil)
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("Compile: %.300v, want %s", err, tc.want)
			}
		})
	}
}

func TestSchema_EvaluateHostileSchemas(t *testing.T) {
	var doubling strings.Builder
	doubling.WriteString(`{"$ref": "#/definitions/d0", "definitions": {`)
	for i := range 50 {
		fmt.Fprintf(&doubling, `"d%d": {"allOf": [{"$ref": "#/definitions/d%d"}, {"$ref": "#/definitions/d%d"}]},`, i, i+1, i+1)
	}
	doubling.WriteString(`"d50": {"type": "object"}}}`)
	deep := any("end")
	for range 5_000 {
		deep = map[string]any{"a": deep}
	}
	for name, tc := range map[string]struct {
		schema string
		values any
		want   error
	}{
		"a cost that doubles with every level ends at the budget": {doubling.String(), map[string]any{}, schema.ErrBudget},
		"values nested very deep end at the nesting":              {`{"properties": {"a": {"$ref": "#"}}}`, deep, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := compile(t, tc.schema).Evaluate(t.Context(), tc.values)
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("Evaluate: %v, want %v", err, tc.want)
			}
		})
	}
	t.Run("a context that has ended ends the evaluation", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := compile(t, doubling.String()).Evaluate(ctx, map[string]any{}); !errors.Is(err, context.Canceled) {
			t.Errorf("Evaluate: %v, want canceled", err)
		}
	})
	t.Run("a long chain through properties compiles", func(t *testing.T) {
		var b strings.Builder
		b.WriteString(`{"$ref": "#/definitions/d0", "definitions": {`)
		for i := range 4_000 {
			fmt.Fprintf(&b, `"d%d": {"properties": {"a": {"$ref": "#/definitions/d%d"}}},`, i, i+1)
		}
		b.WriteString(`"d4000": {"type": "string"}}}`)
		if got := found(t, compile(t, `{"$schema": "http://json-schema.org/draft-07/schema#",`+b.String()[1:]), map[string]any{"a": map[string]any{"a": 1.0}}); len(got) != 0 {
			t.Errorf("found %v", got)
		}
	})
}
