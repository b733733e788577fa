package helmchart_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/helmchart"
	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/validators"
)

// moduleChart returns a chart in a Go module, with its templates, and its directory. It skips the test if the module is
// not downloaded.
func moduleChart(t *testing.T, listIn, module, chart string) (*helmchart.Chart, string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "-C", listIn, "list", "-m", "-f", "{{.Dir}}", module).Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Skipf("the module %s is not downloaded: %v", module, err)
	}
	dir = filepath.Join(dir, "deploy", "charts", chart)
	limits := archive.DefaultLimits()
	limits.AllFiles = true
	ch, err := archive.ReadPath(dir, limits)
	if err != nil {
		t.Fatal(err)
	}
	return helmchart.New(ch, helmchart.Options{Templates: true}), dir
}

func valuesOf(t *testing.T, file string) validators.Values {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	v := validators.Values{Namespace: "apps"}
	if err := yaml.Unmarshal(data, &v.Inline); err != nil {
		t.Fatal(err)
	}
	return v
}

// The expected objects are those of Helm's own installation as a dry run; internal/tools/helmtemplate writes them.
func TestChart_TemplateEqualsHelm(t *testing.T) {
	for name, from := range map[string]struct{ listIn, module string }{
		"cert-manager":     {".", "github.com/cert-manager/cert-manager"},
		"external-secrets": {"../../test/controlplane/modules/crds", "github.com/external-secrets/external-secrets"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := moduleChart(t, from.listIn, from.module, name)
			want, err := os.ReadFile(filepath.Join("testdata", "helm", name+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			out := mustTemplate(t, c, validators.Release{Name: "web", Namespace: "apps", Values: valuesOf(t, filepath.Join("testdata", "helm", name+".values.yaml"))})
			if out.Failure != nil {
				t.Fatalf("%+v", *out.Failure)
			}
			var got []string
			for _, o := range out.Objects {
				data, err := json.Marshal(o.Object.Object)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, fmt.Sprintf("%s %s %s %x", o.Template, o.Object.GetKind(), o.Object.GetName(), sha256.Sum256(data)))
			}
			slices.Sort(got)
			if text := strings.Join(got, "\n") + "\n"; text != string(want) {
				t.Errorf("objects (-Helm +got):\n%s", cmp.Diff(string(want), text))
			}
		})
	}
}

func TestChart_NoUnusedValuesInATestedChart(t *testing.T) {
	c, dir := moduleChart(t, "../../test/controlplane/modules/crds", "github.com/external-secrets/external-secrets", "external-secrets")
	files, err := filepath.Glob(filepath.Join(dir, "ci", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		out := mustTemplate(t, c, validators.Release{Name: "web", Namespace: "apps", UnusedValues: true, Values: valuesOf(t, f)})
		if out.Failure != nil || len(out.UnusedValues) > 0 {
			t.Errorf("%s: %v, keys %v", filepath.Base(f), out.Failure, out.UnusedValues)
		}
	}
	v := valuesOf(t, files[0])
	v.Inline["replicacount"] = 2
	out := mustTemplate(t, c, validators.Release{Name: "web", Namespace: "apps", UnusedValues: true, Values: v})
	if len(out.UnusedValues) != 1 || out.UnusedValues[0].Suggestion != "replicaCount" {
		t.Errorf("%v %v", out.Failure, out.UnusedValues)
	}
}
