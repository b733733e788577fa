package helmrelease_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/fstest"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/helmchart"
	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// hostile is a chart with the schema of an attacker.
type hostile struct{ chart *helmchart.Chart }

func (h hostile) Resolve(context.Context, validators.Lookup, validators.ChartRef) (validators.Chart, validators.Presence, error) {
	return h.chart, validators.Present, nil
}

func newHostile(t *testing.T, schema string) hostile {
	t.Helper()
	ch, err := archive.ReadFS(fstest.MapFS{
		"Chart.yaml":             {Data: []byte("apiVersion: v2\nname: app\nversion: 1.0.0\n")},
		"values.schema.json":     {Data: []byte(schema)},
		"values.yaml":            {Data: []byte("known: 1\nsub: {}\n")},
		"charts/sub/Chart.yaml":  {Data: []byte("apiVersion: v2\nname: sub\nversion: 1.0.0\n")},
		"charts/sub/values.yaml": {Data: []byte("x: 1\n")},
	}, ".", archive.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return hostile{helmchart.New(ch, helmchart.Options{})}
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
	}
}

// texts are contents of a Secret; without a targetPath they are documents.
func texts(document bool) []string {
	values := []string{"Zq9x", "aaaa", "~~~~", "7", "true", "a-much-longer-password", "", "{{x}}", "${x}", "x: [", "\x01"}
	if !document {
		return values
	}
	out := []string{"other: 1", "topSecretKeyName: 1\nsecond: 2", "sub: {x: text}", "sub: text", "inline: text", "[]", "x: [", "${x}: 1"}
	for _, v := range values[:7] {
		out = append(out, fmt.Sprintf("p: %q", v))
	}
	return out
}

// An answer about a release is one of at most four, whatever the schema and whatever the Secret: nothing, one fixed
// sentence, that it cannot be evaluated, or a finding that does not depend on the Secret.
func TestSecrets_AnswersAreWorthNothing(t *testing.T) {
	suite, err := validators.NewSuite(allvalidators.Rules()...)
	if err != nil {
		t.Fatal(err)
	}
	for source, document := range map[string]bool{"{kind: Secret, name: db, targetPath: p}": false, "{kind: Secret, name: db}": true} {
		for _, inline := range []string{"{}", "{inline: 1}", "{known: text}"} {
			release := parse(t, `apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: app, namespace: victim}
spec:
  chartRef: {kind: OCIRepository, name: app}
  valuesFrom: [`+source+`]
  values: `+inline+"\n")
			for name, schema := range schemas() {
				t.Run(source+" "+inline+" "+name, func(t *testing.T) {
					chart := newHostile(t, schema)
					answers := map[string]int{}
					for _, text := range texts(document) {
						secret := parse(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: victim}\n")
						secret.Object["data"] = map[string]any{"values.yaml": base64.StdEncoding.EncodeToString([]byte(text))}
						look := lookup.NewMemory(secret, parse(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: victim}\n"))
						look.Charts = chart
						answers[answer(suite.Evaluate(t.Context(), validators.Request{
							Operation: validators.Create, Object: release, Stage: validators.StageAdmission,
						}, look))]++
					}
					for a := range answers {
						for _, part := range []string{"topSecretKeyName", "pattern", "enum", "const", "Zq9x", "length", "required", "not allowed"} {
							if strings.Contains(a, part) && len(answers) > 1 {
								t.Errorf("an answer that depends on the Secret has %q: %s", part, a)
							}
						}
					}
					if got := math.Log2(float64(len(answers))); got > math.Log2(3) {
						t.Errorf("an answer has %.1f bits: %v", got, answers)
					}
				})
			}
		}
	}
}

// answer returns all that a result can show.
func answer(r validators.Result) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s %s %v %s %s %s %v %v\n", f.Rule.ID, f.Path, f.Value, f.Message, f.Fix, f.Key, f.Edits, f.Related)
	}
	for _, s := range r.Skipped {
		fmt.Fprintf(&b, "%s %t %s\n", s.Rule.ID, s.Unknown, s.Reason)
	}
	for _, e := range r.Errors {
		fmt.Fprintf(&b, "%s %v\n", e.Rule.ID, e.Err)
	}
	return b.String()
}
