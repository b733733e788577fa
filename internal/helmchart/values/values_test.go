package values_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/chartutil"
	"github.com/go-logr/logr"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	helmchartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/helmchart/schema"
	"github.com/flux-admission/flux-admission/internal/helmchart/values"
	"github.com/flux-admission/flux-admission/validators"
)

func decode(t testing.TB, text string) map[string]any {
	t.Helper()
	v := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func object(kind, name string, data map[string]string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": kind}}
	o.SetName(name)
	o.SetNamespace("apps")
	m := map[string]any{}
	for k, v := range data {
		if kind == "Secret" {
			v = base64.StdEncoding.EncodeToString([]byte(v))
		}
		m[k] = v
	}
	o.Object["data"] = m
	return o
}

// from returns a source of values that could be read.
func from(kind, name, key, targetPath, content string) validators.ValuesSource {
	k := key
	if k == "" {
		k = "values.yaml"
	}
	return validators.ValuesSource{Kind: kind, Name: name, Key: key, TargetPath: targetPath, Presence: validators.Present, Object: object(kind, name, map[string]string{k: content})}
}

func release(t testing.TB, inline map[string]any, sources ...validators.ValuesSource) *values.Release {
	t.Helper()
	r, err := values.FromRelease(t.Context(), validators.Values{Namespace: "apps", Inline: inline, From: sources})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestChart_ComposePrecedence(t *testing.T) {
	for name, tc := range map[string]struct {
		defaults, inline string
		from             []validators.ValuesSource
		want             string
	}{
		"the chart's values are lowest":           {"a: chart", "", nil, "a: chart"},
		"valuesFrom overrides the chart":          {"a: chart", "", []validators.ValuesSource{from("ConfigMap", "x", "", "", "a: from")}, "a: from"},
		"a later source overrides an earlier one": {"", "", []validators.ValuesSource{from("ConfigMap", "x", "", "", "a: 1"), from("Secret", "y", "", "", "a: 2")}, "a: 2"},
		"inline values override all":              {"a: chart", "a: inline", []validators.ValuesSource{from("Secret", "x", "", "", "a: from")}, "a: inline"},
		"maps merge deeply":                       {"a: {chart: 1, b: {c: 1}}", "a: {b: {inline: 3}}", []validators.ValuesSource{from("ConfigMap", "x", "", "", "a: {b: {from: 2}}")}, "a: {chart: 1, b: {c: 1, from: 2, inline: 3}}"},
		"lists replace one another":               {"a: [1, 2]", "a: [4]", []validators.ValuesSource{from("ConfigMap", "x", "", "", "a: [3, 3, 3]")}, "a: [4]"},
		"null removes a default":                  {"a: 1\nb: {c: 1, d: 1}", "a: null\nb: {c: null}", nil, "b: {d: 1}"},
		"null for what is no default stays":       {"b: 1", "a: null", nil, "a: null\nb: 1"},
		"null in the chart is no value":           {"a: null\nb: {c: null, d: 1}", "", nil, "b: {d: 1}"},
		"a scalar for a map stays a scalar":       {"a: {b: 1}", "a: 2", nil, "a: 2"},
		"a map for a scalar stays a map":          {"a: 1", "a: {b: 2}", nil, "a: {b: 2}"},
		"another key of the object is read":       {"", "", []validators.ValuesSource{from("ConfigMap", "x", "prod.yaml", "", "a: prod")}, "a: prod"},
		"a value is set at a path":                {"a: {b: 1}", "", []validators.ValuesSource{from("Secret", "x", "password", "a.c", "secret")}, "a: {b: 1, c: secret}"},
		"a path wins over inline where it nests":  {"", "a: {b: inline}", []validators.ValuesSource{from("Secret", "x", "p", "a.b", "from")}, "a: {b: from}"},
		"a path loses to inline at the top":       {"", "a: inline", []validators.ValuesSource{from("Secret", "x", "p", "a", "from")}, "a: inline"},
		"a value at a path has a type":            {"", "", []validators.ValuesSource{from("ConfigMap", "x", "p", "a.b", "5"), from("ConfigMap", "y", "p", "a.c", "true"), from("ConfigMap", "z", "p", "a.d", `"5"`)}, `a: {b: 5, c: true, d: "5"}`},
		"a path may lead into a list":             {"", "", []validators.ValuesSource{from("ConfigMap", "x", "p", "a[1].b", "x")}, "a: [null, {b: x}]"},
		"a dot of a name in a path is escaped":    {"", "", []validators.ValuesSource{from("ConfigMap", "x", "p", `a.b\.c`, "x")}, "a: {b.c: x}"},
		"an optional object need not exist":       {"a: 1", "", []validators.ValuesSource{{Kind: "Secret", Name: "x", Optional: true, Presence: validators.Absent}}, "a: 1"},
		"an optional key need not exist":          {"a: 1", "", []validators.ValuesSource{{Kind: "Secret", Name: "x", Key: "other", Optional: true, Presence: validators.Present, Object: object("Secret", "x", map[string]string{"values.yaml": "a: 2"})}}, "a: 1"},
		"an empty document changes nothing":       {"a: 1", "", []validators.ValuesSource{from("ConfigMap", "x", "", "", "")}, "a: 1"},
	} {
		t.Run(name, func(t *testing.T) {
			c := values.NewChart(&chart.Chart{Metadata: &chart.Metadata{Name: "app"}, Values: decode(t, tc.defaults)})
			var inline map[string]any
			if tc.inline != "" {
				inline = decode(t, tc.inline)
			}
			before := runtime.DeepCopyJSON(inline)
			r := release(t, inline, tc.from...)
			layers, missing, err := c.Compose(r)
			if err != nil || len(missing)+len(r.Missing) > 0 {
				t.Fatalf("Compose: %v; missing %v %v", err, missing, r.Missing)
			}
			if got, want := canonical(t, layers[0].Values), canonical(t, decode(t, tc.want)); got != want {
				t.Errorf("composed %s, want %s", got, want)
			}
			if !reflect.DeepEqual(before, inline) {
				t.Error("the inline values were changed")
			}
		})
	}
}

// canonical is a value as JSON, in which numbers of any type are equal.
func canonical(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestChart_ComposeUnknownValues(t *testing.T) {
	unread := func(name, path string) validators.ValuesSource {
		return validators.ValuesSource{Kind: "Secret", Name: name, TargetPath: path}
	}
	u, gone := schema.Unknown{}, schema.Unknown{MayVanish: true}
	for name, tc := range map[string]struct {
		defaults, inline string
		from             []validators.ValuesSource
		want             any
		missing          string
	}{
		"without a document only inline values are certain": {
			"a: 1", "b: {c: 1, d: null, e: [x]}", []validators.ValuesSource{from("ConfigMap", "x", "", "", "z: 1"), unread("s", "")},
			schema.Open{"b": schema.Open{"c": 1.0, "d": gone, "e": []any{"x"}}}, "Secret apps/s could not be read",
		},
		"documents after a missing one are certain": {
			"", "", []validators.ValuesSource{unread("s", ""), from("ConfigMap", "x", "", "", "z: 1")},
			schema.Open{"z": 1.0}, "Secret apps/s could not be read",
		},
		"without a value at a path the rest is certain": {
			"a: {b: 1, c: 2}\nz: 1", "w: 1", []validators.ValuesSource{unread("s", "a.b")},
			map[string]any{"a": map[string]any{"b": gone, "c": 2.0}, "w": 1.0, "z": 1.0}, "Secret apps/s could not be read",
		},
		"beside a missing document no path is certain": {
			"", "a: {b: inline, c: inline}", []validators.ValuesSource{unread("s", ""), from("ConfigMap", "x", "p", "a.b", "path")},
			schema.Open{"a": schema.Open{"b": gone, "c": "inline"}}, "Secret apps/s could not be read",
		},
		"a variable may be any value": {
			"a: 1", "a: ${A}\nb: x-${B:=1}\nc: [\"${C}\"]\n${K}: 1\nd: $notavariable", nil,
			schema.Open{"a": gone, "b": u, "c": []any{u}, "d": "$notavariable"}, "",
		},
		"an encrypted value can be anything": {
			"", "a: ENC[AES256_GCM,data:x]", nil, map[string]any{"a": u}, "",
		},
		"an object that does not exist": {
			"", "a: 1", []validators.ValuesSource{{Kind: "ConfigMap", Name: "x", Presence: validators.Absent}},
			schema.Open{"a": 1.0}, "ConfigMap apps/x does not exist",
		},
		"a key that does not exist": {
			"", "a: 1", []validators.ValuesSource{{Kind: "ConfigMap", Name: "x", Key: "k", Presence: validators.Present, Object: object("ConfigMap", "x", nil)}},
			schema.Open{"a": 1.0}, "ConfigMap apps/x has no key k",
		},
		"a document that is no YAML is not quoted": {
			"", "a: 1", []validators.ValuesSource{from("Secret", "x", "", "", "password: [hunter2")},
			schema.Open{"a": 1.0}, "Secret apps/x key values.yaml is not YAML, which Flux rejects",
		},
		"a Secret that is not base64": {
			"", "a: 1", []validators.ValuesSource{{Kind: "Secret", Name: "x", Presence: validators.Present, Object: &unstructured.Unstructured{Object: map[string]any{"kind": "Secret", "data": map[string]any{"values.yaml": "!"}}}}},
			schema.Open{"a": 1.0}, "Secret apps/x key values.yaml is not base64",
		},
		"a Secret that SOPS encrypted": {
			"", "a: 1", []validators.ValuesSource{{Kind: "Secret", Name: "x", Presence: validators.Present, Object: &unstructured.Unstructured{Object: map[string]any{"kind": "Secret", "sops": map[string]any{"mac": "ENC[AES256_GCM,data:x]"}, "data": map[string]any{"values.yaml": "YTogMQ=="}}}}},
			schema.Open{"a": 1.0}, "Secret apps/x key values.yaml is encrypted",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := values.NewChart(&chart.Chart{Metadata: &chart.Metadata{Name: "app"}, Values: decode(t, tc.defaults)})
			r := release(t, decode(t, tc.inline), tc.from...)
			layers, _, err := c.Compose(r)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(layers[0].Values, tc.want) {
				t.Errorf("composed %#v\nwant %#v", layers[0].Values, tc.want)
			}
			if got := strings.Join(r.Missing, "; "); got != tc.missing {
				t.Errorf("missing %q, want %q", got, tc.missing)
			}
		})
	}
}

func TestFromRelease_ErrorsQuoteNoValue(t *testing.T) {
	deep := strings.Repeat("{a: ", 300) + "1" + strings.Repeat("}", 300)
	for name, tc := range map[string]struct {
		inline string
		from   []validators.ValuesSource
		want   string
	}{
		"a value that cannot be set at its path": {"", []validators.ValuesSource{from("ConfigMap", "x", "", "", "a: hunter2"), from("Secret", "y", "p", "a.b", "hunter2")}, "spec.valuesFrom cannot be composed: a value cannot be set at its targetPath"},
		"inline values that are nested too deep": {"a: " + deep, nil, "spec.values is nested deeper than 256"},
		"values of a source that nest too deep":  {"", []validators.ValuesSource{from("ConfigMap", "x", "", "", "a: "+deep)}, "the composed values are nested deeper than 256"},
		"five megabytes of nested YAML":          {"", []validators.ValuesSource{from("ConfigMap", "x", "", "", strings.Repeat("[", 5<<20))}, "ConfigMap apps/x key values.yaml: it is nested too deep"},
		"a document that is too large":           {"", []validators.ValuesSource{from("ConfigMap", "x", "", "", strings.Repeat("#", 17<<20))}, "ConfigMap apps/x key values.yaml: it has 17825792 bytes, more than the 8388608 left of the limit"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := values.FromRelease(t.Context(), validators.Values{Namespace: "apps", Inline: decode(t, tc.inline), From: tc.from})
			if err == nil || err.Error() != tc.want {
				t.Errorf("FromRelease: %v, want %s", err, tc.want)
			}
		})
	}
}

// generator makes values that overlap.
type generator struct{ *rand.Rand }

func (g generator) scalar() any {
	return []any{nil, true, 1.0, 2.5, "x", "y", ""}[g.IntN(7)]
}

func (g generator) value(depth int) any {
	if depth > 0 && g.IntN(3) > 0 {
		if g.IntN(4) == 0 {
			return []any{g.value(depth - 1), g.scalar()}
		}
		return g.table(depth)
	}
	return g.scalar()
}

func (g generator) table(depth int) map[string]any {
	m := map[string]any{}
	for range g.IntN(4) {
		m[[]string{"a", "b", "c", "sub", "global", "alias"}[g.IntN(6)]] = g.value(depth - 1)
	}
	return m
}

func TestFromRelease_EqualsFluxOnGeneratedSources(t *testing.T) {
	composed, rejected := 0, 0
	for seed := range rounds(3_000) {
		g := generator{rand.New(rand.NewPCG(seed, 1))}
		var sources []validators.ValuesSource
		var refs []meta.ValuesReference
		var objects []client.Object
		for i := range g.IntN(5) {
			name := fmt.Sprintf("s%d", i)
			text := canonical(t, g.table(3))
			path := ""
			if g.IntN(3) == 0 {
				path = []string{"a", "a.b", "b.c.a", "c[1].a", "a.b[0]", `a\.b`}[g.IntN(6)]
				text = []string{"1", "true", "x", `"1"`, "null", "{1,2}", "a,b=c", ""}[g.IntN(8)]
			}
			s := from([]string{"ConfigMap", "Secret"}[g.IntN(2)], name, "", path, text)
			s.Literal = path != "" && g.IntN(3) == 0
			s.Optional = g.IntN(2) == 0
			if s.Optional && g.IntN(3) == 0 {
				s.Presence, s.Object = validators.Absent, nil
			} else {
				objects = append(objects, typed(t, s.Object))
			}
			sources = append(sources, s)
			refs = append(refs, meta.ValuesReference{Kind: s.Kind, Name: name, TargetPath: path, Literal: s.Literal, Optional: s.Optional})
		}
		inline := g.table(3)
		r, err := values.FromRelease(t.Context(), validators.Values{Namespace: "apps", Inline: runtime.DeepCopyJSON(inline), From: sources})
		want, wantErr := chartutil.ChartValuesFromReferences(t.Context(), logr.Discard(), fake.NewClientBuilder().WithObjects(objects...).Build(), "apps", runtime.DeepCopyJSON(inline), refs...)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("seed %d: %v; Flux: %v", seed, err, wantErr)
		}
		if err != nil {
			rejected++
			continue
		}
		composed++
		if canonical(t, r.Values) != canonical(t, want) {
			t.Fatalf("seed %d: composed %s\nFlux %s", seed, canonical(t, r.Values), canonical(t, want))
		}
	}
	if composed < int(rounds(1000)) || rejected < int(rounds(100)) {
		t.Errorf("%d composed and %d rejected are too few", composed, rejected)
	}
}

func typed(t testing.TB, o *unstructured.Unstructured) client.Object {
	t.Helper()
	var out client.Object = &corev1.ConfigMap{}
	if o.GetKind() == "Secret" {
		out = &corev1.Secret{}
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// charts makes a chart, and the same again: Helm changes the one it composes.
func (g generator) chart(t testing.TB, subcharts bool) (here, helm *chart.Chart) {
	t.Helper()
	root := &chart.Chart{Metadata: &chart.Metadata{Name: "root", Version: "1.0.0"}, Values: g.table(3)}
	if subcharts {
		for _, name := range []string{"sub", "other"} {
			if g.IntN(3) == 0 {
				continue
			}
			s := &chart.Chart{Metadata: &chart.Metadata{Name: name, Version: "1.0.0"}, Values: g.table(3)}
			s.Values["exports"] = map[string]any{"data": g.table(1)}
			leaf := &chart.Chart{Metadata: &chart.Metadata{Name: "leaf", Version: "1.0.0"}, Values: g.table(2)}
			if g.IntN(2) == 0 {
				s.AddDependency(leaf)
			}
			root.AddDependency(s)
			if g.IntN(4) == 0 {
				continue // not listed in Chart.yaml
			}
			d := &chart.Dependency{Name: name, Version: "1.x"}
			if g.IntN(3) == 0 {
				d.Alias = "alias"
			}
			if g.IntN(2) == 0 {
				d.Condition = "a.enabled,b"
			}
			if g.IntN(3) == 0 {
				d.Tags = []string{"t"}
			}
			switch g.IntN(4) {
			case 0:
				d.ImportValues = []any{"data"}
			case 1:
				d.ImportValues = []any{map[string]any{"child": "exports.data", "parent": "b"}}
			}
			root.Metadata.Dependencies = append(root.Metadata.Dependencies, d)
		}
	}
	return root, copyChart(root)
}

func copyChart(c *chart.Chart) *chart.Chart {
	out := *c
	md := *c.Metadata
	md.Dependencies = nil
	for _, d := range c.Metadata.Dependencies {
		copied := *d
		md.Dependencies = append(md.Dependencies, &copied)
	}
	out.Metadata, out.Values = &md, runtime.DeepCopyJSON(c.Values)
	out.SetDependencies()
	for _, d := range c.Dependencies() {
		out.AddDependency(copyChart(d))
	}
	return &out
}

// Composing must not change the chart either.
func TestChart_ComposeEqualsHelmOnGeneratedCharts(t *testing.T) {
	composed, rejected := 0, 0
	for seed := range rounds(6_000) {
		g := generator{rand.New(rand.NewPCG(seed, 2))}
		here, helm := g.chart(t, seed%2 == 0)
		before := copyChart(here)
		c := values.NewChart(here)
		for range 3 {
			inline := g.table(3)
			if g.IntN(3) == 0 {
				inline["tags"] = map[string]any{"t": g.IntN(2) == 0}
			}
			if g.IntN(3) == 0 {
				inline["a"] = map[string]any{"enabled": g.IntN(2) == 0}
			}
			fresh := copyChart(helm)
			want := map[string]any(nil)
			wantErr := helmchartutil.ProcessDependencies(fresh, runtime.DeepCopyJSON(inline))
			if wantErr == nil {
				want, wantErr = util.CoalesceValues(fresh, runtime.DeepCopyJSON(inline))
			}
			layers, _, err := c.Compose(release(t, inline))
			misfit := err == nil && slices.ContainsFunc(layers, func(l values.Layer) bool { _, ok := l.Values.(map[string]any); return !ok })
			if (err != nil || misfit) != (wantErr != nil) {
				t.Fatalf("seed %d: %v, misfit %t; Helm: %v", seed, err, misfit, wantErr)
			}
			if wantErr != nil {
				rejected++
				continue
			}
			composed++
			if got := canonical(t, layers[0].Values); got != canonical(t, want) {
				t.Fatalf("seed %d: values %s\ncomposed %s\nHelm     %s", seed, canonical(t, inline), got, canonical(t, want))
			}
			var charts, wantCharts []string
			for _, l := range layers {
				charts = append(charts, l.Path.String()+" "+l.Chart.Name())
			}
			listCharts(fresh, want, nil, &wantCharts)
			if !slices.Equal(charts, wantCharts) {
				t.Fatalf("seed %d: charts %v, Helm %v", seed, charts, wantCharts)
			}
		}
		if canonical(t, here) != canonical(t, before) {
			t.Fatalf("seed %d: the chart was changed", seed)
		}
	}
	if composed < int(rounds(2000)) || rejected < int(rounds(100)) {
		t.Errorf("%d composed and %d rejected are too few", composed, rejected)
	}
}

// listCharts lists the charts that Helm's validation visits.
func listCharts(c *chart.Chart, v any, path validators.Path, out *[]string) {
	m, ok := v.(map[string]any)
	if !ok {
		return
	}
	*out = append(*out, path.String()+" "+c.Name())
	for _, d := range c.Dependencies() {
		if m[d.Name()] != nil {
			listCharts(d, m[d.Name()], path.Child(d.Name()), out)
		}
	}
}

func FuzzValues(f *testing.F) {
	f.Add([]byte("a: 1"), "a.b", "x", []byte(`{"a": {"b": 2}}`))
	f.Add([]byte("a: &x [*x]"), "a[0]", "{1,2}", []byte(`{"a": null}`))
	f.Add([]byte("a: {b: [1, ${X}]}\n---\nb: 1"), `a\.b`, "null", []byte(`{"${K}": {"c": "ENC[AES256_GCM,data:x]"}}`))
	f.Fuzz(func(t *testing.T, doc []byte, path, value string, inline []byte) {
		in := map[string]any{}
		if json.Unmarshal(inline, &in) != nil {
			return
		}
		before := canonical(t, in)
		defaults := map[string]any{"a": map[string]any{"b": 1.0, "c": nil}, "d": []any{1.0}}
		c := values.NewChart(&chart.Chart{Metadata: &chart.Metadata{Name: "app"}, Values: maps.Clone(defaults)})
		for _, sources := range [][]validators.ValuesSource{
			{from("ConfigMap", "x", "", "", string(doc)), from("Secret", "y", "p", path, value)},
			{from("ConfigMap", "x", "", "", string(doc)), {Kind: "Secret", Name: "z"}, from("Secret", "y", "p", path, value)},
		} {
			r, err := values.FromRelease(context.WithoutCancel(t.Context()), validators.Values{Namespace: "apps", Inline: in, From: sources})
			if err != nil {
				continue
			}
			if _, _, err := c.Compose(r); err != nil {
				t.Logf("not composed: %v", err)
			}
			r.Origin(validators.NewPath("a", "b"))
		}
		if canonical(t, in) != before {
			t.Error("the inline values were changed")
		}
	})
}

// rounds returns a number of random cases: a tenth of n in short mode, which the race detector uses.
func rounds(n int) uint64 {
	if testing.Short() {
		n /= 10
	}
	return uint64(n)
}

// TestFromRelease_Limits: an object of a few kilobytes cannot make Helm's library allocate gigabytes.
func TestFromRelease_Limits(t *testing.T) {
	entry := func(path, content string, literal bool) validators.ValuesSource {
		return validators.ValuesSource{
			Kind: "ConfigMap", Name: "c", Key: "k", TargetPath: path, Literal: literal, Presence: validators.Present,
			Object: &unstructured.Unstructured{Object: map[string]any{"kind": "ConfigMap", "data": map[string]any{"k": content}}},
		}
	}
	unread := entry("a"+strings.Repeat("[65535]", 30), "", false)
	unread.Presence, unread.Object = validators.Unknown, nil
	var nested []validators.ValuesSource // 3 GiB
	for i := range 50 {
		nested = append(nested, entry(fmt.Sprintf("a%d%s", i, strings.Repeat("[65535]", 30)), "1", false))
	}
	const indexes = "more than 10000 together"
	aliases := "s: &s " + strings.Repeat("x", 100_000) + "\nl: [" + strings.Repeat("*s,", 2_000) + "]\n"
	for name, tc := range map[string]struct {
		from []validators.ValuesSource
		want string // part of the error; "" for none
	}{
		"an index":                         {[]validators.ValuesSource{entry("a[3].b", "1", false)}, ""},
		"nested indexes":                   {nested, indexes},
		"many indexes":                     {slices.Repeat([]validators.ValuesSource{entry("a[500]", "1", false)}, 50), indexes},
		"an index with zeros":              {[]validators.ValuesSource{entry("a[000000000000000000065535]", "1", false)}, indexes},
		"an entry that could not be read":  {[]validators.ValuesSource{unread}, indexes},
		"indexes in a value":               {[]validators.ValuesSource{entry("a", "1,b[65535][65535]=2", false)}, indexes},
		"indexes in a list of a value":     {[]validators.ValuesSource{entry("a", "{1,2},b[65535]=2", false)}, indexes},
		"brackets in a value":              {[]validators.ValuesSource{entry("a", "x[65535]", false)}, ""},
		"brackets in a literal value":      {[]validators.ValuesSource{entry("a", "x,b[65535]=2", true)}, ""},
		"brackets in an escaped path":      {[]validators.ValuesSource{entry(`a\[65535\]`, "1", false)}, ""},
		"many entries":                     {slices.Repeat([]validators.ValuesSource{entry("a", "1", false)}, 257), "spec.valuesFrom has 257 entries, more than 256"},
		"many large documents":             {slices.Repeat([]validators.ValuesSource{entry("", "a: "+strings.Repeat("x", 1<<20), false)}, 9), "it has 1048579 bytes, more than the"},
		"many large texts":                 {slices.Repeat([]validators.ValuesSource{entry("a", strings.Repeat("x", 1<<20), false)}, 9), "more than 8388608 bytes"},
		"many lists":                       {[]validators.ValuesSource{entry("", "a: ["+strings.Repeat("[],", 300_000)+"]", false)}, "more entries of maps and lists than the 100000 left"},
		"many lists in several documents":  {slices.Repeat([]validators.ValuesSource{entry("", "a: ["+strings.Repeat("[],", 40_000)+"]", false)}, 3), "more entries of maps and lists than the"},
		"aliases of a long text":           {[]validators.ValuesSource{entry("", aliases, false)}, "its aliases are replaced by more bytes than the 8388608 left"},
		"aliases of aliases":               {[]validators.ValuesSource{entry("", doublings(30), false)}, "its aliases are replaced by more entries of maps and lists than the 100000 left"},
		"aliases as charts have them":      {[]validators.ValuesSource{entry("", "a: &a {b: [1, 2]}\nc: *a\nd:\n  <<: *a\n", false)}, ""},
		"an alias that is not YAML at all": {[]validators.ValuesSource{entry("a", "* [", false)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after goruntime.MemStats
			goruntime.ReadMemStats(&before)
			_, err := values.FromRelease(t.Context(), validators.Values{Namespace: "n", From: tc.from, Inline: map[string]any{}})
			goruntime.ReadMemStats(&after)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("FromRelease() = %v, want %q", err, tc.want)
			}
			if allocated := (after.TotalAlloc - before.TotalAlloc) >> 20; allocated > 128 {
				t.Errorf("FromRelease() allocated %d MiB, want at most 128", allocated)
			}
		})
	}
}

// doublings returns a document whose aliases double its size n times.
func doublings(n int) string {
	text := "a0: &a0 [x, x]\n"
	for i := range n {
		text += fmt.Sprintf("a%d: &a%d [*a%d, *a%d]\n", i+1, i+1, i, i)
	}
	return text
}
