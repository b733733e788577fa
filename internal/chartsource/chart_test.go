package chartsource_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
)

func prepared(t testing.TB, data []byte) *chartsource.Chart {
	t.Helper()
	ch, err := archive.Read(bytes.NewReader(data), archive.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return chartsource.NewChart(ch, nil)
}

func from(kind, name, targetPath, content string) validators.ValuesSource {
	data := map[string]any{"values.yaml": content}
	if kind == "Secret" {
		data["values.yaml"] = base64.StdEncoding.EncodeToString([]byte(content))
	}
	return validators.ValuesSource{
		Kind: kind, Name: name, TargetPath: targetPath, Presence: validators.Present,
		Object: &unstructured.Unstructured{Object: map[string]any{"kind": kind, "data": data}},
	}
}

// Each violation says where its value was set.
func TestWhereAValueWasSet(t *testing.T) {
	c := prepared(t, chartArchive(t, "app", "1.0.0", map[string]string{
		"values.yaml":                     "own: wrong\nmap: {}\n",
		"values.schema.json":              `{"properties": {"own": {"type": "integer"}, "a": {"type": "integer"}, "b": {"type": "integer"}, "map": {"required": ["c"]}, "d": {"properties": {"e": {"type": "integer"}}}}}`,
		"charts/db/Chart.yaml":            "apiVersion: v2\nname: db\nversion: 1.0.0\n",
		"charts/db/values.schema.json":    `{"properties": {"global": {"properties": {"zone": {"type": "integer"}}}}}`,
		"charts/spare/Chart.yaml":         "apiVersion: v2\nname: spare\nversion: 1.0.0\n",
		"charts/spare/values.schema.json": `{"required": ["x"]}`,
	}))
	verdict, err := c.Validate(t.Context(), validators.Values{
		Namespace: "apps",
		From: []validators.ValuesSource{
			from("ConfigMap", "one", "", "a: wrong\nb: wrong\n"), from("Secret", "two", "", "a: wrong\n"), from("Secret", "three", "d.e", "hunter2"),
		},
		Inline: object(t, "{b: wrong, global: {zone: wrong}}").Object,
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range verdict.Violations {
		got = append(got, fmt.Sprintf("%s %s %s at '%s': %s; inline %t, from %d", v.Chart, v.Path, v.Keyword, v.Pointer, v.Message, v.Inline, v.From))
	}
	want := []string{
		"app a type at '/a': got string, want integer; inline false, from 2",
		"app b type at '/b': got string, want integer; inline true, from 0",
		"app d.e type at '/d/e': got string, want integer; inline false, from 3",
		"db global.zone type at '/global/zone': got string, want integer; inline true, from 0",
		"app map.c required at '/map': missing property 'c'; inline false, from 0",
		"app own type at '/own': got string, want integer; inline false, from 0",
		"spare spare.x required at '': missing property 'x'; inline false, from 0",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestASchemaThatCannotBeUsed(t *testing.T) {
	c := prepared(t, chartArchive(t, "app", "1.0.0", map[string]string{"values.schema.json": `{"type": "text"}`}))
	verdict, err := c.Validate(t.Context(), validators.Values{})
	if err != nil || len(verdict.Violations) != 0 || !verdict.HasSchema || len(verdict.Missing) != 1 || !strings.HasPrefix(verdict.Missing[0], "the schema of chart app, which cannot be used: the schema is not valid: at #/type: ") {
		t.Errorf("verdict %+v, %v", verdict, err)
	}
}

func TestChartsOfDirectories(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("many/app/Chart.yaml", "apiVersion: v2\nname: app\nversion: 1.0.0\n")
	write("many/app/ci/x.yaml", "port: wrong\n")
	write("many/app/values.schema.json", strictSchema)
	write("many/app-1.1.0.tgz", string(chartArchive(t, "app", "1.1.0", nil)))
	write("many/notes.txt", "no chart")
	write("one/Chart.yaml", "apiVersion: v2\nname: one\nversion: 0.1.0-rc.1\n")
	write("notes/readme.txt", "there is no chart in this file")
	write("broken/app/Chart.yaml", "apiVersion: v2\n")
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	r := resolver(t, chartsource.Options{Dirs: []string{at("many"), at("one"), at("empty")}})
	m := lookup.NewMemory()
	for name, tc := range map[string]struct {
		ref  validators.ChartRef
		want validators.Presence
		// version is the chart's, when it is present.
		version string
	}{
		"the highest version of a directory":               {ref("app", ""), validators.Present, "1.1.0"},
		"the version asked for":                            {ref("app", "1.0.x"), validators.Present, "1.0.0"},
		"a pre-release when there is nothing else":         {ref("one", ""), validators.Present, "0.1.0-rc.1"},
		"another version is left to the repository":        {ref("app", "2.x"), validators.Absent, ""},
		"another chart is left to the repository":          {ref("other", ""), validators.Absent, ""},
		"a path in a Git repository counts by its name":    {validators.ChartRef{Source: validators.ObjectRef{Kind: "GitRepository"}, Chart: "./charts/app/"}, validators.Present, "1.1.0"},
		"values files are read from the directory as well": {withFiles(ref("app", "1.0.0"), false, "ci/x.yaml"), validators.Present, "1.0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			c, got, err := r.Resolve(t.Context(), m, tc.ref)
			if got != tc.want || err != nil {
				t.Fatalf("Resolve = %v, %v; want %v", got, err, tc.want)
			}
			if c == nil {
				return
			}
			if c.Version() != tc.version {
				t.Errorf("version %s, want %s", c.Version(), tc.version)
			}
			if n := len(messages(t, c, nil)); n != len(tc.ref.ValuesFiles) {
				t.Errorf("%d violations", n)
			}
		})
	}
	for name, tc := range map[string]struct{ dir, want string }{
		"a directory that does not exist": {at("nope"), "charts at " + at("nope") + ": it cannot be read; give a directory or an archive that exists"},
		"a directory without a chart":     {at("notes"), "charts at " + at("notes") + ": there is no chart in it; give a directory that holds chart directories or .tgz archives"},
		"a directory with a broken chart": {at("broken"), "charts at " + at("broken") + ": " + at("broken/app") + ": reading the chart: validation: chart.metadata.name is required"},
		"a file that is no chart archive": {at("notes/readme.txt"), "charts at " + at("notes/readme.txt") + ": " + at("notes/readme.txt") + ": reading the chart archive: it is not a gzip file: gzip: invalid header"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := chartsource.New(chartsource.Options{Dirs: []string{tc.dir}}); err == nil || err.Error() != tc.want {
				t.Errorf("New: %v, want %s", err, tc.want)
			}
		})
	}
}
