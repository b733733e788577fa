package unusedvalues_test

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/internal/helmchart/schema"
	"github.com/flux-admission/flux-admission/internal/helmchart/unusedvalues"
	"github.com/flux-admission/flux-admission/test/sharedinputs"
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

func newChart(t testing.TB, name, values string, templates ...string) *chart.Chart {
	t.Helper()
	c := &chart.Chart{Metadata: &chart.Metadata{Name: name}, Values: decode(t, values), Raw: []*common.File{{Name: "values.yaml", Data: []byte(values)}}}
	for _, text := range templates {
		c.Templates = append(c.Templates, &common.File{Name: "templates/x.yaml", Data: []byte(text)})
	}
	return c
}

func nothing(string, validators.Path) bool { return false }

func keys(found []unusedvalues.Key) string {
	var out []string
	for _, k := range found {
		s := k.Chart + " " + k.Path.String()
		if k.Suggestion != "" {
			s += " " + k.Suggestion + "?"
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

func TestChart_Unknown(t *testing.T) {
	for name, tc := range map[string]struct {
		defaults, templates, values, want string
	}{
		"a misspelled key":                    {"replicas: 1\nimage: {tag: x}", "", "replcias: 2\nimage: {tga: z}", "app image.tga tag?, app replcias replicas?"},
		"a key that is nowhere":               {"replicas: 1", "", "prometheus: {enabled: true}", "app prometheus"},
		"a key in a comment":                  {"replicas: 1\n# nodePort: 30000\n## @param service.annotations Annotations\nservice: {port: 1}", "", "nodePort: 1\nservice: {annotations: {a: b}}", ""},
		"a key that a template reads":         {"replicas: 1", `{{ .Values.extra.thing }} {{ index .Values "dashed-key" }}`, "extra: {thing: 1}\ndashed-key: 1", ""},
		"a word of a template that is no key": {"replicas: 1", "thing: {{ .Values.replicas }}", "thing: 1", "app thing"},
		"a map that a template passes on":     {"a: {b: {c: 1}}", "{{ toYaml .Values.a.b }}", "a: {b: {d: 1}, e: 1}", "app a.e"},
		"keys below an empty default":         {"a: {}\nb: null\nc: []", "", "a: {x: 1}\nb: {x: 1}\nc: {x: 1}", ""},
		"labels, annotations and the like":    {"labels: {a: b}\npodAnnotations: {a: b}\nresources: {limits: {cpu: 1}}\nextraStuff: {a: b}\nserverConfig: {a: b}\nlivenessProbe: {a: 1}", "", "labels: {x: y}\npodAnnotations: {x: y}\nresources: {limits: {gpu: 1}}\nextraStuff: {x: y}\nserverConfig: {x: y}\nlivenessProbe: {x: 1}", ""},
		"another entry of a map of entries":   {"controllers: {main: {replicas: 1, type: x}}", "", "controllers: {worker: {replicas: 2}}", ""},
		"a misspelled name of an entry":       {"controllers: {primary: {replicas: 1}}", "", "controllers: {primray: {replicas: 2}}", "app controllers.primray primary?"},
		"global values and tags":              {"a: 1", "", "global: {x: 1}\ntags: {y: true}", ""},
		"null removes what is not there":      {"a: 1", "", "other: null", ""},
		"a variable as a key":                 {"a: 1", "", "${NAME}: 1", ""},
		"a chart without values":              {"{}", "", "a: 1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := unusedvalues.New(newChart(t, "app", tc.defaults, tc.templates))
			if got := keys(c.Unknown(t.Context(), decode(t, tc.values), nothing)); got != tc.want {
				t.Errorf("found %q, want %q", got, tc.want)
			}
		})
	}
}

func TestChart_UnknownInSubcharts(t *testing.T) {
	root := newChart(t, "app", "a: 1\nstore: {fromParent: 1}")
	root.AddDependency(newChart(t, "db", "size: 1"), newChart(t, "library", "{}"))
	root.Metadata.Dependencies = []*chart.Dependency{{Name: "db", Alias: "store", Condition: "storage.enabled"}, {Name: "cache"}}
	c := unusedvalues.New(root)
	values := decode(t, "store: {size: 2, sise: 2, fromParent: 2, global: {x: 1}}\ncache: {anything: 1}\nlibrary: {anything: 1}\nstorage: {enabled: true}\ndb: {size: 1}")
	if got, want := keys(c.Unknown(t.Context(), values, nothing)), "db store.sise size?"; got != want {
		t.Errorf("found %q, want %q", got, want)
	}
	known := func(chart string, path validators.Path) bool { return chart == "db" && path.String() == "sise" }
	if got := c.Unknown(t.Context(), values, known); len(got) != 0 {
		t.Errorf("found %v, although the schema knows it", got)
	}
}

// Of all findings on misspelled keys and on values that only the schema has, nine of ten must be right. The charts come
// without templates, which mention most keys.
func TestChart_UnknownPrecisionOnSharedCharts(t *testing.T) {
	dirs, err := filepath.Glob(filepath.Join(sharedinputs.Dir(t), "charts", "*", "Chart.yaml"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("there are no charts: %v", err)
	}
	right, wrong := 0, 0
	for _, d := range dirs {
		dir := filepath.Dir(d)
		ch, err := archive.ReadPath(dir, archive.DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		if len(ch.Values) == 0 {
			continue
		}
		c := unusedvalues.New(ch)
		g := rand.New(rand.NewPCG(1, 1))
		for range 300 {
			values, path := misspell(g, ch.Values, nil)
			if found := c.Unknown(t.Context(), values, nothing); len(found) == 1 && found[0].Path.String() == path.String() {
				right++
			} else if len(found) > 0 {
				wrong++
			}
		}
		if doc, err := os.ReadFile(filepath.Join(dir, "values.schema.json")); err == nil {
			var raw map[string]any
			if err := yaml.Unmarshal(doc, &raw); err != nil {
				t.Fatal(err)
			}
			if _, err := schema.Compile(doc, nil); err == nil {
				allowed := map[string]any{}
				fill(raw, ch.Values, allowed)
				wrong += len(c.Unknown(t.Context(), allowed, nothing))
			}
		}
	}
	if precision := float64(right) / float64(right+wrong); precision < 0.9 {
		t.Errorf("precision %.3f, want at least 0.9: %d right, %d wrong", precision, right, wrong)
	}
}

// The values that a chart's authors test it with have no unused keys, and of 300 misspelled keys at least 100 are found.
func TestChart_UnknownWithTemplates(t *testing.T) {
	dir := filepath.Join(sharedinputs.ModuleDir(t, "github.com/external-secrets/external-secrets"), "deploy", "charts", "external-secrets")
	ch, err := archive.ReadPath(dir, archive.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	c := unusedvalues.New(ch)
	files, err := filepath.Glob(filepath.Join(dir, "ci", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s/ci: %v", dir, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if found := c.Unknown(t.Context(), decode(t, string(text)), nothing); len(found) > 0 {
			t.Errorf("%s: %s", filepath.Base(f), keys(found))
		}
	}
	g := rand.New(rand.NewPCG(1, 2))
	right := 0
	for range 300 {
		values, path := misspell(g, ch.Values, nil)
		if found := c.Unknown(t.Context(), values, nothing); len(found) == 1 && found[0].Path.String() == path.String() {
			right++
		}
	}
	if right < 100 {
		t.Errorf("only %d of 300 misspelled keys found", right)
	}
}

// misspell returns values that set one of the chart's keys under another name: a letter less, two letters swapped, or
// an s more.
func misspell(g *rand.Rand, defaults map[string]any, at validators.Path) (map[string]any, validators.Path) {
	names := slices.Sorted(maps.Keys(defaults))
	k := names[g.IntN(len(names))]
	if m, ok := defaults[k].(map[string]any); ok && len(m) > 0 && g.IntN(4) > 0 {
		v, path := misspell(g, m, at.Child(k))
		return map[string]any{k: v}, path
	}
	i := 0
	if len(k) > 2 {
		i = 1 + g.IntN(len(k)-2)
	}
	wrong := k + "s"
	switch g.IntN(3) {
	case 0:
		wrong = k[:i] + k[i+1:]
	case 1:
		if i+1 < len(k) && k[i] != k[i+1] {
			wrong = k[:i] + string(k[i+1]) + string(k[i]) + k[i+2:]
		}
	}
	return map[string]any{wrong: defaults[k]}, at.Child(wrong)
}

// fill sets every property that a schema names beside the chart's defaults.
func fill(s map[string]any, defaults, into map[string]any) {
	props, _ := s["properties"].(map[string]any)
	for k, p := range props {
		d, ok := defaults[k]
		if !ok {
			into[k] = "x"
			continue
		}
		own, isMap := d.(map[string]any)
		sub, isSchema := p.(map[string]any)
		if isMap && isSchema {
			m := map[string]any{}
			fill(sub, own, m)
			into[k] = m
		}
	}
}
