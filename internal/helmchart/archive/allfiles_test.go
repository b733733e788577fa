package archive_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	chart "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
)

// names lists the templates and files of a chart.
func names(c *chart.Chart) string {
	var out []string
	for _, f := range slices.Concat(c.Templates, c.Files) {
		out = append(out, f.Name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func allFiles() archive.Limits {
	l := archive.DefaultLimits()
	l.AllFiles = true
	return l
}

// A template named values.yaml is not mistaken for the chart's values.
func TestRead_AllFiles(t *testing.T) {
	data := pack(t,
		member{name: "app/Chart.yaml", body: chartYAML},
		member{name: "app/values.yaml", body: "a: 1\n"},
		member{name: "app/templates/values.yaml", body: "{{ nonsense"},
		member{name: "app/templates/script.sh", body: "exit"},
		member{name: "app/files/charts/x.tgz", body: "no archive"},
		member{name: "app/crds/a.yaml", body: "kind: X"},
	)
	c, err := archive.Read(bytes.NewReader(data), allFiles())
	if err != nil {
		t.Fatal(err)
	}
	if got := names(c); got != "crds/a.yaml files/charts/x.tgz templates/script.sh templates/values.yaml" {
		t.Error(got)
	}
	c, err = archive.Read(bytes.NewReader(data), archive.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if got := names(c); got != "templates/values.yaml" {
		t.Error(got)
	}
}

// Files that .helmignore excludes are not packaged, so they are not read from a source either. Links that values do not
// need are skipped.
func TestArtifact_AllFiles(t *testing.T) {
	data := pack(t,
		member{name: "charts/app/Chart.yaml", body: chartYAML},
		member{name: "charts/app/.helmignore", body: "drafts/\n*.md\n"},
		member{name: "charts/app/README.md", body: "read me"},
		member{name: "charts/app/templates/drafts/a.yaml", body: "a"},
		member{name: "charts/app/templates/a.yaml", body: "a"},
		member{name: "charts/app/LICENSE", body: "../../LICENSE", typeflag: tar.TypeSymlink},
		member{name: "LICENSE", body: "free"},
	)
	a, err := archive.OpenArtifact(bytes.NewReader(data), "charts/app", allFiles())
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := a.Chart()
	if err != nil {
		t.Fatal(err)
	}
	if got := names(c); got != ".helmignore templates/a.yaml" {
		t.Error(got)
	}
}

func TestReadPath_AllFiles(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	dir := t.TempDir()
	for name, text := range map[string]string{outside: "hunter2", filepath.Join(dir, "Chart.yaml"): chartYAML, filepath.Join(dir, "motd"): "hello"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"inside": "motd", "escape": outside, "loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	c, err := archive.ReadPath(dir, allFiles())
	if err != nil {
		t.Fatal(err)
	}
	if got := names(c); got != "inside motd" {
		t.Error(got)
	}
}
