package helmchart_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	chart "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/flux-admission/flux-admission/internal/helmchart"
	"github.com/flux-admission/flux-admission/validators"
)

// generator generates charts and values that overlap.
type generator struct{ *rand.Rand }

func (g generator) name() string { return []string{"a", "b", "c", "sub", "global"}[g.IntN(5)] }

func (g generator) scalar() any { return []any{nil, true, 1.0, "x", "y"}[g.IntN(5)] }

func (g generator) value(depth int) any {
	if depth > 0 && g.IntN(3) > 0 {
		if g.IntN(5) == 0 {
			return []any{g.value(depth - 1)}
		}
		return g.table(depth)
	}
	return g.scalar()
}

func (g generator) table(depth int) map[string]any {
	m := map[string]any{}
	for range g.IntN(4) {
		k := g.name()
		if k == "sub" || k == "global" {
			m[k] = g.table(depth - 1) // anything else Helm refuses
		} else {
			m[k] = g.value(depth - 1)
		}
	}
	return m
}

func (g generator) schema(depth int) any {
	s := map[string]any{}
	switch g.IntN(4) {
	case 0:
		s["type"] = []string{"object", "string", "integer", "boolean", "array"}[g.IntN(5)]
	case 1:
		s["enum"] = []any{"x", 1, g.name()}
	}
	if depth > 0 && g.IntN(4) > 0 {
		props := map[string]any{}
		for range 1 + g.IntN(3) {
			props[g.name()] = g.schema(depth - 1)
		}
		s["properties"] = props
		if g.IntN(3) == 0 {
			s["additionalProperties"] = false
		}
		if g.IntN(3) == 0 {
			s["required"] = []string{"a", "b"}[:1+g.IntN(2)]
		}
		if g.IntN(5) == 0 {
			s["maxProperties"] = 1 + g.IntN(2)
		}
		if g.IntN(5) == 0 {
			s["dependencies"] = map[string]any{"a": []string{"c"}}
		}
	}
	return s
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// hide replaces scalars by variables, whose names it adds to filled.
func (g generator) hide(v any, filled map[string]any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, c := range v {
			out[k] = g.hide(c, filled)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = g.hide(v[i], filled)
		}
		return out
	}
	if g.IntN(8) > 0 {
		return v
	}
	name := fmt.Sprintf("${V%d}", len(filled))
	filled[name] = nil
	return name
}

func fill(v any, filled map[string]any) any {
	switch v := v.(type) {
	case string:
		if f, ok := filled[v]; ok {
			return f
		}
	case map[string]any:
		out := map[string]any{}
		for k, c := range v {
			out[k] = fill(c, filled)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = fill(v[i], filled)
		}
		return out
	}
	return v
}

// A violation that is reported with missing sources and unresolved variables is also reported with any content of
// these.
func TestChart_ValidatePartialValues(t *testing.T) {
	log.SetOutput(io.Discard) // Helm logs warnings about values
	slog.SetDefault(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	reported, checked := 0, 0
	for seed := range rounds(4_000) {
		g := generator{rand.New(rand.NewPCG(seed, 9))}
		root := &chart.Chart{Metadata: &chart.Metadata{Name: "root", Version: "1.0.0"}, Values: g.table(3), Schema: encode(g.schema(3))}
		if g.IntN(2) == 0 {
			sub := &chart.Chart{Metadata: &chart.Metadata{Name: "sub", Version: "1.0.0"}, Values: g.table(2), Schema: encode(g.schema(2))}
			root.AddDependency(sub)
			root.Metadata.Dependencies = []*chart.Dependency{{Name: "sub", Version: "1.x", Condition: []string{"", "sub.a", "a"}[g.IntN(3)]}}
		}
		c := helmchart.New(root, helmchart.Options{})
		var partial []validators.ValuesSource
		var paths []string
		for i := range g.IntN(4) {
			path := ""
			if g.IntN(3) == 0 {
				path = []string{"a", "a.b", "c.a", "sub.b"}[g.IntN(4)]
			}
			s := from("ConfigMap", fmt.Sprintf("s%d", i), path, string(encode(g.table(3))))
			if path != "" {
				s = from("ConfigMap", s.Name, path, []string{"x", "1", "true", "null"}[g.IntN(4)])
			}
			if g.IntN(3) == 0 {
				s = validators.ValuesSource{Kind: "Secret", Name: s.Name, TargetPath: path}
			}
			partial = append(partial, s)
			paths = append(paths, path)
		}
		filled := map[string]any{}
		inline, _ := g.hide(g.table(3), filled).(map[string]any)
		result, err := c.Validate(t.Context(), validators.Values{Namespace: "apps", Inline: inline, From: partial})
		if err != nil || len(result.Violations) == 0 {
			continue
		}
		reported++
		for range 15 {
			full := slices.Clone(partial)
			for i := range full {
				if full[i].Presence != validators.Unknown {
					continue
				}
				text := string(encode(g.table(3)))
				if paths[i] != "" {
					text = []string{"x", "1", "true", "null", "{x,y}", ""}[g.IntN(6)]
				}
				full[i] = from("ConfigMap", full[i].Name, paths[i], text)
			}
			for _, k := range slices.Sorted(maps.Keys(filled)) {
				filled[k] = g.value(2)
			}
			values, _ := fill(inline, filled).(map[string]any)
			complete, err := c.Validate(t.Context(), validators.Values{Namespace: "apps", Inline: values, From: full})
			if err != nil {
				continue // Flux or Helm cannot compose these; the release fails for another reason
			}
			if slices.ContainsFunc(complete.Violations, func(v validators.Violation) bool { return strings.Contains(v.Message, "values of a subchart") }) {
				continue // nothing is merged then
			}
			checked++
			for _, v := range result.Violations {
				if !slices.ContainsFunc(complete.Violations, func(w validators.Violation) bool {
					return w.Path.String() == v.Path.String() && w.Keyword == v.Keyword && w.Chart == v.Chart
				}) {
					t.Fatalf("seed %d: %+v\nof inline %s\nis repaired by inline %s\nand sources %s\nschema %s\ndefaults %s\ncomplete: %+v", seed, v, encode(inline), encode(values), describe(full), encode(root.Metadata), encode(root.Values), complete.Violations)
				}
			}
		}
	}
	if reported < int(rounds(300)) || checked < int(rounds(3000)) {
		t.Errorf("%d cases with a violation and %d completions are too few", reported, checked)
	}
}

func describe(sources []validators.ValuesSource) string {
	var out []string
	for _, s := range sources {
		data, _ := s.Object.Object["data"].(map[string]any)
		out = append(out, fmt.Sprintf("%s=%v", s.TargetPath, data["values.yaml"]))
	}
	return strings.Join(out, "; ")
}

// rounds returns a number of random cases: a tenth of n in short mode, which the race detector uses.
func rounds(n int) uint64 {
	if testing.Short() {
		n /= 10
	}
	return uint64(n)
}
