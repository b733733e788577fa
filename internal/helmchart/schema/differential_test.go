package schema_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common/util"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/helmchart/schema"
	"github.com/flux-admission/flux-admission/test/sharedinputs"
)

// generator generates schemas and values with the same names and types.
type generator struct{ *rand.Rand }

func (g generator) pick(list ...string) string { return list[g.IntN(len(list))] }

func (g generator) name() string { return g.pick("a", "b", "c", "dd") }

func (g generator) scalar() any {
	switch g.IntN(8) {
	case 0:
		return nil
	case 1:
		return g.IntN(2) == 0
	case 2:
		return float64(g.IntN(4))
	case 3:
		return float64(g.IntN(8)) / 4
	case 4:
		return int64(g.IntN(4))
	default:
		return g.pick("a", "b", "c", "dd", "ddd", "1", "")
	}
}

func (g generator) value(depth int) any {
	switch n := g.IntN(10); {
	case depth > 0 && n < 4:
		m := map[string]any{}
		for range g.IntN(4) {
			m[g.name()] = g.value(depth - 1)
		}
		return m
	case depth > 0 && n < 6:
		list := []any{}
		for range g.IntN(4) {
			list = append(list, g.value(depth-1))
		}
		return list
	default:
		return g.scalar()
	}
}

// plain is a value as JSON decodes it, for schemas.
func (g generator) plain(depth int) any {
	b, err := json.Marshal(g.value(depth))
	if err != nil {
		panic(err)
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		panic(err)
	}
	return v
}

func (g generator) names() []any {
	out := []any{}
	for _, n := range []string{"a", "b", "c"} {
		if g.IntN(3) == 0 {
			out = append(out, n)
		}
	}
	if len(out) == 0 {
		out = append(out, "a")
	}
	return out
}

// schema generates a schema; combined means that it may have keywords that combine schemas.
func (g generator) schema(depth int, draft int, combined bool) any {
	if g.IntN(12) == 0 {
		return g.IntN(3) > 0
	}
	sub := func() any { return g.schema(depth-1, draft, combined) }
	subs := func() []any {
		out := []any{}
		for range 1 + g.IntN(3) {
			out = append(out, sub())
		}
		return out
	}
	s := map[string]any{}
	for range 1 + g.IntN(3) {
		n := g.IntN(30)
		if depth <= 0 {
			n = g.IntN(12)
		}
		switch n {
		case 0, 1:
			s["type"] = g.pick("object", "array", "string", "integer", "number", "boolean", "null")
		case 2:
			s["type"] = []any{"null", g.pick("object", "array", "string", "integer")}
		case 3:
			s["enum"] = []any{g.plain(1), "x"} // equal items are an error before draft 2019-09
		case 4:
			s["const"] = g.plain(1)
		case 5:
			s["required"] = g.names()
		case 6:
			s[g.pick("minLength", "maxLength", "minProperties", "maxProperties", "minItems", "maxItems")] = g.IntN(4)
		case 7:
			s[g.pick("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")] = float64(g.IntN(8)) / 4
		case 8:
			s["multipleOf"] = float64(1+g.IntN(3)) / 4
		case 9:
			s["pattern"] = g.pick("^a", "d+", "^$", "[0-9]")
		case 10:
			s["uniqueItems"] = true
		case 11:
			s["format"] = g.pick("ipv4", "email", "uri", "date", "semver", "hostname", "ip-address", "nonsense")
		case 12, 13, 14, 15:
			props := map[string]any{}
			for range 1 + g.IntN(3) {
				props[g.name()] = sub()
			}
			s["properties"] = props
		case 16, 17:
			s["additionalProperties"] = false
		case 18:
			s["additionalProperties"] = sub()
		case 19:
			s["patternProperties"] = map[string]any{g.pick("^a", "d", "^[bc]$"): sub()}
		case 20:
			s["propertyNames"] = map[string]any{"pattern": g.pick("^[abc]", "d")}
		case 21:
			if draft == 2020 {
				s["items"] = sub()
				if g.IntN(2) == 0 {
					s["prefixItems"] = subs()
				}
			} else if g.IntN(2) == 0 {
				s["items"] = sub()
			} else {
				s["items"], s["additionalItems"] = subs(), sub()
			}
		case 22:
			s["contains"] = sub()
			if draft == 2020 && g.IntN(2) == 0 {
				s["minContains"], s["maxContains"] = g.IntN(3), g.IntN(3)
			}
		case 23:
			if draft == 2020 {
				s["dependentRequired"] = map[string]any{g.name(): g.names()}
				s["dependentSchemas"] = map[string]any{g.name(): sub()}
			} else {
				s["dependencies"] = map[string]any{g.name(): g.names(), "c": sub()}
			}
		case 24:
			s["$ref"] = "#/definitions/" + g.pick("one", "two")
		case 25:
			s["allOf"] = subs()
		default:
			if !combined {
				continue
			}
			switch n {
			case 26:
				s[g.pick("anyOf", "oneOf")] = subs()
			case 27:
				s["not"] = sub()
			case 28:
				s["if"], s["then"], s["else"] = sub(), sub(), sub()
			case 29:
				if draft == 2020 {
					s[g.pick("unevaluatedProperties", "unevaluatedItems")] = sub()
				}
			}
		}
	}
	return s
}

// document generates a schema document with definitions that it refers to.
func (g generator) document(t testing.TB, combined bool) []byte {
	t.Helper()
	draft := []int{7, 2020}[g.IntN(2)]
	doc := map[string]any{"definitions": map[string]any{}}
	if s, ok := g.schema(3, draft, combined).(map[string]any); ok {
		maps.Copy(doc, s)
	}
	// The definitions refer to nothing: a reference that closes on itself is another test's.
	for _, name := range []string{"one", "two"} {
		doc["definitions"].(map[string]any)[name] = g.schema(0, draft, combined)
	}
	if draft == 7 {
		doc["$schema"] = "http://json-schema.org/draft-07/schema#"
	}
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// compare compares the result for values with that of Helm's validator, and reports whether they are invalid.
func compare(t *testing.T, s *schema.Schema, doc []byte, values map[string]any) (invalid bool) {
	t.Helper()
	want := util.ValidateAgainstSingleSchema(values, doc)
	res, err := s.Evaluate(t.Context(), values)
	if err != nil {
		t.Fatalf("Evaluate() = %v", err)
	}
	if (want == nil) != (len(res.Problems) == 0) {
		b, _ := json.Marshal(values)
		show := doc
		if len(show) > 4000 {
			show = show[:4000]
		}
		t.Fatalf("schema %s\nvalues %s\nHelm: %v\nEvaluate: %+v", show, b, want, res.Problems)
	}
	return want != nil
}

func TestSchema_EvaluateEqualsHelmOnGeneratedSchemas(t *testing.T) {
	valid, invalid := 0, 0
	for seed := range rounds(3_000) {
		g := generator{rand.New(rand.NewPCG(seed, 1))}
		doc := g.document(t, true)
		s, err := schema.Compile(doc, nil)
		if err != nil {
			t.Fatalf("%s: %v", doc, err)
		}
		for range 4 {
			v, ok := g.value(3).(map[string]any)
			if !ok {
				continue
			}
			if compare(t, s, doc, v) {
				invalid++
			} else {
				valid++
			}
		}
	}
	if valid < int(rounds(1000)) || invalid < int(rounds(1000)) {
		t.Errorf("%d valid and %d invalid values are too few", valid, invalid)
	}
}

// mutate returns a copy of values with a random change.
func (g generator) mutate(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := maps.Clone(v)
		keys := slices.Sorted(maps.Keys(v))
		if len(keys) == 0 {
			return map[string]any{"a": g.value(1)}
		}
		k := keys[g.IntN(len(keys))]
		switch g.IntN(10) {
		case 0:
			delete(out, k)
		case 1:
			out[k+"x"] = out[k]
			delete(out, k)
		case 2:
			out[g.name()] = g.value(2)
		case 3:
			out[k] = nil
		default:
			out[k] = g.mutate(v[k])
		}
		return out
	case []any:
		if len(v) == 0 || g.IntN(4) == 0 {
			return append(slices.Clone(v), g.value(1))
		}
		out := slices.Clone(v)
		i := g.IntN(len(out))
		out[i] = g.mutate(out[i])
		return out
	default:
		return g.value(1)
	}
}

func TestSchema_EvaluateEqualsHelmOnSharedCharts(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(sharedinputs.Dir(t), "charts", "*", "values.schema.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no chart has a schema: %v", err)
	}
	for _, p := range paths {
		t.Run(filepath.Base(filepath.Dir(p)), func(t *testing.T) { compareChart(t, p) })
	}
}

func TestSchema_EvaluateEqualsHelmOnTheDemoChart(t *testing.T) {
	compareChart(t, "../../../test/demo/charts/airflow/values.schema.json")
}

// The chart is in a Go module whose CRDs the test control plane uses.
func TestSchema_EvaluateEqualsHelmOnExternalSecrets(t *testing.T) {
	dir := sharedinputs.ModuleDir(t, "github.com/external-secrets/external-secrets")
	compareChart(t, filepath.Join(dir, "deploy", "charts", "external-secrets", "values.schema.json"))
}

// compareChart compares with Helm on the schema at a path, for the chart's values with random changes.
func compareChart(t *testing.T, path string) {
	t.Helper()
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(path), "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{}
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	s, err := schema.Compile(doc, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := s.Evaluate(t.Context(), values); err != nil {
		t.Fatal(err)
	} else if len(res.NotLoaded) > 0 {
		// Helm would fetch the documents that the schema refers to. Here they allow any value.
		doc = withoutReferences(t, doc)
	}
	// Helm compiles the schema for every validation.
	cases := rounds(max(300, min(1000, 2_000_000/len(doc))))
	for seed := range cases {
		g := generator{rand.New(rand.NewPCG(seed, 2))}
		mutated := any(values)
		for range 1 + g.IntN(4) {
			mutated = g.mutate(mutated)
		}
		compare(t, s, doc, mutated.(map[string]any))
	}
}

// withoutReferences removes the references to other documents from a schema of draft 7.
func withoutReferences(t *testing.T, doc []byte) []byte {
	t.Helper()
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok && !strings.HasPrefix(ref, "#") {
				clear(v) // draft 7 ignores keywords beside a reference
			}
			for _, c := range v {
				walk(c)
			}
		case []any:
			for _, c := range v {
				walk(c)
			}
		}
	}
	var v any
	if err := json.Unmarshal(doc, &v); err != nil {
		t.Fatal(err)
	}
	walk(v)
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// hide makes some values unknown, and some objects open.
func (g generator) hide(v any) any {
	if g.IntN(6) == 0 {
		return schema.Unknown{}
	}
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, c := range v {
			switch g.IntN(10) {
			case 0:
				out[k] = schema.Unknown{MayVanish: true}
			default:
				out[k] = g.hide(c)
			}
		}
		if g.IntN(3) == 0 {
			return schema.Open(out)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = g.hide(v[i])
		}
		return out
	}
	return v
}

// vanish is a key that is missing in a completion.
type vanish struct{}

// complete fills in what is not known, at random.
func (g generator) complete(v any) any {
	switch v := v.(type) {
	case schema.Unknown:
		if v.MayVanish && g.IntN(2) == 0 {
			return vanish{}
		}
		return g.value(2)
	case schema.Open:
		out, _ := g.complete(map[string]any(v)).(map[string]any)
		for range g.IntN(4) {
			if k := g.name(); !hasKey(v, k) {
				out[k] = g.value(2)
			}
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for k, c := range v {
			c = g.complete(c)
			if _, gone := c.(vanish); !gone {
				out[k] = c
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = g.complete(v[i])
			if _, gone := out[i].(vanish); gone {
				out[i] = nil
			}
		}
		return out
	}
	return v
}

func hasKey(m map[string]any, k string) bool {
	_, ok := m[k]
	return ok
}

// A problem that is reported for partial values is also reported for any completion of them.
func TestSchema_EvaluatePartialValues(t *testing.T) {
	for _, combined := range []bool{false, true} {
		t.Run(fmt.Sprintf("combined %t", combined), func(t *testing.T) {
			reported := 0
			for seed := range rounds(4_000) {
				g := generator{rand.New(rand.NewPCG(seed, 3))}
				doc := g.document(t, combined)
				s, err := schema.Compile(doc, nil)
				if err != nil {
					t.Fatalf("%s: %v", doc, err)
				}
				v, ok := g.value(3).(map[string]any)
				if !ok {
					continue
				}
				partial := g.hide(v)
				res, err := s.Evaluate(t.Context(), partial)
				if err != nil {
					t.Fatal(err)
				}
				if len(res.Problems) == 0 {
					continue
				}
				reported++
				for range 20 {
					full := g.complete(partial)
					all, err := s.Evaluate(t.Context(), full)
					if err != nil {
						t.Fatal(err)
					}
					if len(all.Problems) == 0 {
						b, _ := json.Marshal(full)
						t.Fatalf("schema %s\npartial %#v\nreported %+v\nrepaired by %s", doc, partial, res.Problems, b)
					}
					if combined {
						continue // another alternative may explain it better
					}
					for _, p := range res.Problems {
						if !slices.ContainsFunc(all.Problems, func(q schema.Problem) bool {
							return q.Path.String() == p.Path.String() && q.Keyword == p.Keyword
						}) {
							b, _ := json.Marshal(full)
							t.Fatalf("schema %s\npartial %#v\nreported %+v\nnot reported of %s", doc, partial, p, b)
						}
					}
				}
			}
			if reported < int(rounds(200)) {
				t.Errorf("only %d of the values had a problem", reported)
			}
		})
	}
}

// rounds returns a number of random cases: a tenth of n in short mode, which the race detector uses.
func rounds(n int) uint64 {
	if testing.Short() {
		n /= 10
	}
	return uint64(n)
}
