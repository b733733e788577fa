package helmrelease_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/fstest"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/helmchart"
	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// hostile is a chart with the schema of an attacker, and one with another schema from the source named before.
type hostile struct{ chart, before *helmchart.Chart }

func (h hostile) Resolve(_ context.Context, _ validators.Lookup, ref validators.ChartRef) (validators.Chart, validators.Presence, error) {
	if strings.Contains(fmt.Sprint(ref), "before") {
		return h.before, validators.Present, nil
	}
	return h.chart, validators.Present, nil
}

func newHostile(t *testing.T, schema string) hostile {
	t.Helper()
	read := func(schema string) *helmchart.Chart {
		ch, err := archive.ReadFS(fstest.MapFS{
			"Chart.yaml": {Data: []byte("apiVersion: v2\nname: app\nversion: 1.0.0\n" +
				"dependencies: [{name: sub, version: 1.0.0, condition: sub.enabled}]\n")},
			"values.schema.json":            {Data: []byte(schema)},
			"values.yaml":                   {Data: []byte("known: 1\nsub: {}\n")},
			"charts/sub/Chart.yaml":         {Data: []byte("apiVersion: v2\nname: sub\nversion: 1.0.0\n")},
			"charts/sub/values.yaml":        {Data: []byte("x: 1\n")},
			"charts/sub/values.schema.json": {Data: []byte(`{"properties": {"x": {"type": "integer"}}}`)},
		}, ".", archive.DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		return helmchart.New(ch, helmchart.Options{})
	}
	return hostile{read(schema), read(`{"properties": {"p": {"pattern": "9"}, "other": {"type": "string"}}}`)}
}

func parse(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	o := &unstructured.Unstructured{}
	if err := json.Unmarshal(data, &o.Object); err != nil {
		t.Fatal(err)
	}
	return o
}

// bits joins a piece of schema for each bit of the first characters of a text at a path.
func bits(piece func(i int, pattern string) string) string {
	var out []string
	for position := range 4 {
		for bit := range 7 {
			var class strings.Builder
			for c := byte(33); c < 127; c++ {
				if c>>bit&1 == 1 && c != '\\' && c != ']' && c != '^' && c != '-' && c != '"' {
					class.WriteByte(c)
				}
			}
			out = append(out, piece(len(out), fmt.Sprintf("^.{%d}[%s]", position, class.String())))
		}
	}
	return strings.Join(out, ",")
}

// schemas are schemas that ask for the content of a Secret at p, bit by bit: directly, in positions, in keywords, in
// numbers of violations, in other fields, in what is missing and in the keys of the Secret.
func schemas() map[string]string {
	return map[string]string{
		"patterns": `{"properties": {"p": {"allOf": [` + bits(func(_ int, p string) string {
			return `{"pattern": "` + p + `"}`
		}) + `]}}}`,
		"negated patterns": `{"properties": {"p": {"allOf": [` + bits(func(_ int, p string) string {
			return `{"not": {"pattern": "` + p + `"}}`
		}) + `]}}}`,
		"another field for each bit": `{"allOf": [` + bits(func(i int, p string) string {
			return fmt.Sprintf(`{"if": {"properties": {"p": {"pattern": "%s"}}}, "then": {"properties": {"known": {"const": %d}}}}`, p, i)
		}) + `]}`,
		"a missing field for each bit": `{"allOf": [` + bits(func(i int, p string) string {
			return fmt.Sprintf(`{"if": {"properties": {"p": {"pattern": "%s"}}}, "then": {"required": ["f%d"]}}`, p, i)
		}) + `]}`,
		"keys of the Secret":   `{"additionalProperties": false, "properties": {"known": {}, "sub": {}, "global": {}, "inline": {}}}`,
		"names by pattern":     `{"propertyNames": {"enum": ["known", "inline"]}}`,
		"enum and length":      `{"properties": {"p": {"enum": ["aaaa"], "maxLength": 2, "const": "b"}}}`,
		"one of many":          `{"properties": {"p": {"oneOf": [` + bits(func(_ int, p string) string { return `{"pattern": "` + p + `"}` }) + `]}}}`,
		"a type":               `{"properties": {"p": {"type": "integer"}}}`,
		"the subchart's value": `{"properties": {"sub": {"properties": {"x": {"type": "integer"}}}}}`,
		"draft 7, every keyword": `{"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"s": {"pattern": "^Z", "minLength": 4}},
			"properties": {"p": {"$ref": "#/definitions/s"}, "known": {"if": {"type": "integer"}, "then": {"multipleOf": 7}}},
			"patternProperties": {"^[a-m]": {"maxLength": 3}, "^[n-z]": {"format": "ipv4"}},
			"dependencies": {"p": ["q"], "other": {"required": ["r"]}}, "minProperties": 3, "maxProperties": 4,
			"propertyNames": {"maxLength": 8, "pattern": "^[a-z]+$"}, "anyOf": [{"required": ["second"]}, {"properties": {"p": {"format": "email"}}}]}`,
		"draft 2020-12, every keyword": `{"$schema": "https://json-schema.org/draft/2020-12/schema",
			"$defs": {"s": {"$anchor": "a", "type": "string", "pattern": "q", "maxLength": 4}},
			"allOf": [{"properties": {"p": {"$ref": "#a"}}}, {"properties": {"known": true, "sub": {"unevaluatedProperties": false}}}],
			"dependentRequired": {"p": ["q"]}, "dependentSchemas": {"other": {"properties": {"other": {"exclusiveMaximum": 1}}}},
			"unevaluatedProperties": {"type": "integer", "multipleOf": 0.5}}`,
		"lists": `{"$schema": "https://json-schema.org/draft/2019-09/schema", "properties": {"p": {"type": "array", "uniqueItems": true,
			"contains": {"pattern": "^Z"}, "minContains": 2, "maxContains": 3, "items": [{"const": "Z"}, {"enum": ["q", "9"]}],
			"additionalItems": {"format": "uuid"}, "unevaluatedItems": false, "minItems": 4, "maxItems": 4}}}`,
		"numbers": `{"properties": {"p": {"multipleOf": 0.01, "minimum": 5, "maximum": 9, "exclusiveMinimum": 6, "exclusiveMaximum": 8}}}`,
		"a step of the budget for each bit": `{"definitions": {"a": {"anyOf": [{"$ref": "#/definitions/b"}, {"$ref": "#/definitions/b"}]},
			"b": {"anyOf": [{"$ref": "#/definitions/c"}, {"$ref": "#/definitions/c"}]}, "c": {"anyOf": [{"minLength": 99}, {"minLength": 98}]}},
			"properties": {"p": {"allOf": [` + bits(func(_ int, p string) string {
			return fmt.Sprintf(`{"if": {"pattern": "%s"}, "then": {"$ref": "#/definitions/a"}}`, p)
		}) + `]}}}`,
		"a condition of the subchart": `{"properties": {"sub": {"properties": {"enabled": {"const": true}}}}}`,
	}
}

// texts are contents of a Secret; without a targetPath they are documents.
func texts(document bool) []string {
	values := []string{"Zq9x", "aaaa", "~~~~", "7", "true", "a-much-longer-password", "", "{{x}}", "${x}", "x: [", "\x01"}
	if !document {
		return values
	}
	out := []string{"other: 1", "topSecretKeyName: 1\nsecond: 2", "sub: {x: text}", "sub: text", "inline: text", "[]", "x: [", "${x}: 1"}
	out = append(out, "sub: {enabled: true}", "sub: {enabled: false}", "sub: {enabled: false, x: text}", "p: [Z, q, 9, x]", "p: [Z, Z]", "p: 7.5", "p: 6.001")
	for _, v := range values[:7] {
		out = append(out, fmt.Sprintf("p: %q", v))
	}
	return out
}

// An answer about a release is one of at most three, whatever the schema and whatever the Secret: nothing, one fixed
// sentence, or that it cannot be evaluated, beside findings that do not depend on the Secret. On an update that an
// attacker gives another schema, it is one of at most four.
func TestSecrets_AnswersAreWorthNothing(t *testing.T) {
	suite, err := validators.NewSuite(allvalidators.Rules()...)
	if err != nil {
		t.Fatal(err)
	}
	most := map[string]float64{}
	for source, document := range map[string]bool{
		"{kind: Secret, name: db, targetPath: p}": false,
		"{kind: Secret, name: db}":                true,
		"{kind: Secret, name: db, optional: true}, {kind: Secret, name: db, targetPath: q}":                   true,
		"{kind: ConfigMap, name: none, optional: true}, {kind: Secret, name: db}":                             true,
		"{kind: ConfigMap, name: unreadable}, {kind: Secret, name: db}":                                       true,
		"{kind: Secret, name: db, targetPath: p, literal: true}, {kind: Secret, name: db, targetPath: other}": false,
	} {
		for _, inline := range []string{"{}", "{inline: 1}", "{known: text}"} {
			release := parse(t, `apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: app, namespace: victim}
spec:
  chartRef: {kind: OCIRepository, name: app}
  valuesFrom: [`+source+`]
  values: `+inline+"\n")
			for name, text := range schemas() {
				t.Run(source+" "+inline+" "+name, func(t *testing.T) {
					chart := newHostile(t, text)
					created, updated := map[string]int{}, map[string]int{}
					for _, text := range texts(document) {
						look := lookups(t, text, chart)
						request := validators.Request{Operation: validators.Create, Object: release, Stage: validators.StageAdmission}
						created[answer(suite.Evaluate(t.Context(), request, look))]++
						request.Operation, request.Old = validators.Update, release.DeepCopy()
						if err := unstructured.SetNestedField(request.Old.Object, "before", "spec", "chartRef", "name"); err != nil {
							t.Fatal(err)
						}
						updated[answer(suite.Evaluate(t.Context(), request, look))]++
					}
					for answers, limit := range map[*map[string]int]float64{&created: 3, &updated: 4} {
						for a := range *answers {
							for _, part := range []string{"topSecretKeyName", "pattern", "enum", "const", "Zq9x", "length", "required", "not allowed"} {
								if strings.Contains(a, part) && len(*answers) > 1 {
									t.Errorf("an answer that depends on the Secret has %q: %s", part, a)
								}
							}
							if strings.Contains(a, "cannot validate the values for") {
								t.Errorf("the schema is not evaluated at all: %s", a)
							}
						}
						if n := float64(len(*answers)); n > limit {
							t.Errorf("an answer has %.1f bits: %v", math.Log2(n), *answers)
						}
						most[fmt.Sprint(limit)] = max(most[fmt.Sprint(limit)], float64(len(*answers)))
					}
				})
			}
		}
	}
	t.Logf("the largest number of answers: %v", most)
}

// lookups returns a cluster with a Secret of this content.
func lookups(t *testing.T, text string, chart hostile) validators.Lookup {
	t.Helper()
	secret := parse(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: victim}\n")
	secret.Object["data"] = map[string]any{"values.yaml": base64.StdEncoding.EncodeToString([]byte(text))}
	look := lookup.NewMemory(secret, parse(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: victim}\n"))
	look.Charts = chart
	return unreadable{look}
}

// unreadable is a Lookup that cannot read an object of this name.
type unreadable struct{ validators.Lookup }

func (u unreadable) Get(ctx context.Context, gk schema.GroupKind, key types.NamespacedName) (*unstructured.Unstructured, validators.Presence, error) {
	if key.Name == "unreadable" {
		return nil, validators.Unknown, errors.New("it is not readable")
	}
	return u.Lookup.Get(ctx, gk, key)
}

// answer returns all that a result can show.
func answer(r validators.Result) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s %s %v %s %s %s %v %v %t\n",
			f.Rule.ID, f.Path, f.Value, f.Message, f.Fix, f.Key, f.Edits, f.Related, f.Preexisting)
	}
	for _, s := range r.Skipped {
		fmt.Fprintf(&b, "%s %t %s\n", s.Rule.ID, s.Unknown, s.Reason)
	}
	for _, e := range r.Errors {
		fmt.Fprintf(&b, "%s %v\n", e.Rule.ID, e.Err)
	}
	return b.String()
}
