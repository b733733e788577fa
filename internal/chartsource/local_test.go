package chartsource_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
)

func TestResolver_Dirs(t *testing.T) {
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
		"the version of the reference":                     {ref("app", "1.0.x"), validators.Present, "1.0.0"},
		"a pre-release when there is nothing else":         {ref("one", ""), validators.Present, "0.1.0-rc.1"},
		"another version is left to the source":            {ref("app", "2.x"), validators.Absent, ""},
		"another chart is left to the source":              {ref("other", ""), validators.Absent, ""},
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
		"a directory that does not exist": {at("nope"), at("nope") + " does not exist; specify a directory or an archive of charts"},
		"a directory without a chart":     {at("notes"), at("notes") + " contains no chart; specify a directory with chart directories or .tgz archives"},
		"a directory with a broken chart": {at("broken"), at("broken/app") + ": reading the chart: validation: chart.metadata.name is required"},
		"a file that is no chart archive": {at("notes/readme.txt"), at("notes/readme.txt") + ": reading the chart archive: it is not a gzip file: gzip: invalid header"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := chartsource.New(chartsource.Options{Dirs: []string{tc.dir}}); err == nil || err.Error() != tc.want {
				t.Errorf("New: %v, want %s", err, tc.want)
			}
		})
	}
}
