package helmchart_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/internal/helmchart"
	"github.com/flux-admission/flux-admission/validators"
)

// complexRegexp is a pattern of 3 kB that package regexp compiles to 3 million instructions.
func complexRegexp(i int) string {
	return fmt.Sprintf("^(?:%s){1000}%d$", strings.Repeat("ab", 1500), i)
}

// TestChart_ComplexPatterns: a schema whose patterns are too complex costs no memory, and makes the result of what they
// apply to unknown. What does not depend on them is reported.
func TestChart_ComplexPatterns(t *testing.T) {
	for name, tc := range map[string]struct {
		schema  string
		unknown bool
	}{
		"a pattern":                    {`"properties":{"a":{"pattern":%q},"wrong":{"type":"string"}}`, true},
		"a pattern that is negated":    {`"properties":{"a":{"not":{"pattern":%q}},"wrong":{"type":"string"}}`, true},
		"a pattern of names":           {`"patternProperties":{%q:{"type":"integer"}},"properties":{"wrong":{"type":"string"}}`, true},
		"names that are not evaluated": {`"patternProperties":{%q:{}},"properties":{"a":{},"wrong":{"type":"string"}},"additionalProperties":false`, true},
		"names of names":               {`"propertyNames":{"pattern":%q},"properties":{"wrong":{"type":"string"}}`, true},
		"a pattern of no value":        {`"properties":{"b":{"pattern":%q},"wrong":{"type":"string"}}`, false},
		"unevaluated names": {`"$schema":"https://json-schema.org/draft/2020-12/schema","patternProperties":{%q:true},` +
			`"properties":{"wrong":{"type":"string"}},"unevaluatedProperties":false`, true},
		"a format of the values": {`"$schema":"http://json-schema.org/draft-07/schema#","properties":{"hostile":{"format":"regex"},"wrong":{"type":"string"}}, "$comment": %q`, true},
		"a pattern in data":      {`"default":{"pattern":%q},"properties":{"a":{"$ref":"#/default"}}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			schema := tc.schema
			for i := range 8 { // as many as fit 24 kB
				schema += fmt.Sprintf(`,"x%d":{"pattern":%q}`, i, complexRegexp(i))
			}
			schema = "{" + fmt.Sprintf(schema, complexRegexp(9)) + "}"
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			c := newChart(t, map[string]string{"values.yaml": "", "values.schema.json": schema}, helmchart.Options{})
			result, err := c.Validate(t.Context(), validators.Values{Inline: map[string]any{
				"a": "text", "wrong": int64(1), "hostile": complexRegexp(1),
			}})
			runtime.ReadMemStats(&after)
			if allocated := (after.TotalAlloc - before.TotalAlloc) >> 20; allocated > 16 {
				t.Errorf("compiling and evaluating allocated %d MiB, want at most 16", allocated)
			}
			if err != nil {
				t.Fatal(err)
			}
			missing := strings.Join(result.Missing, "; ")
			if unknown := strings.Contains(missing, "too complex"); unknown != tc.unknown || !result.HasSchema {
				t.Errorf("missing %q, want a pattern that is too complex: %t", missing, tc.unknown)
			}
			for _, v := range result.Violations {
				if v.Path.String() != "wrong" || v.Keyword != "type" {
					t.Errorf("violation %+v, want only that of the wrong type", v)
				}
			}
			if len(result.Violations) != 1 && name != "a pattern in data" {
				t.Errorf("%d violations, want that of the wrong type", len(result.Violations))
			}
		})
	}
}

// TestChart_PatternOfLongValue: the schema of a chart of 271 bytes took 13 seconds for a value of 10 kB, whatever the
// context was. The context is done here from the start, so that the test does not depend on time.
func TestChart_PatternOfLongValue(t *testing.T) {
	c := newChart(t, map[string]string{
		"values.yaml":        "",
		"values.schema.json": `{"properties":{"a":{"allOf":[` + strings.Repeat(`{"pattern":"^(?:a?){900}(?:a){900}$"},`, 20) + `{}]}}}`,
	}, helmchart.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	values := validators.Values{Inline: map[string]any{"a": strings.Repeat("a", 10_000)}}
	if result, err := c.Validate(ctx, values); !errors.Is(err, context.Canceled) {
		t.Errorf("Validate() = %+v, %v, want the context's error", result, err)
	}
	// Twenty matches of 27 million states times bytes are more than one evaluation may take.
	if result, err := c.Validate(t.Context(), values); err == nil {
		t.Errorf("Validate() = %+v, want an error", result)
	}
}
