// Package internal has the test of the direction of imports in the packages below it.
package internal

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/flux-admission/flux-admission/"

// kustomizationSide and chartSide list packages under internal, the lowest layer first. A package may import those of
// lower layers only, and none of the other side but the shared ones.
var (
	shared = [][]string{
		{"boundedregexp", "suggest", "unresolved"},
	}
	kustomizationSide = slices.Concat(shared, [][]string{
		{"yamlposition", "lookup", "resourceset"},
		{"sourcetree"},
		{"kustomization/bootstrap", "kustomization/build", "kustomization/entrypoint", "kustomization/substitute"},
		{"kustomization"},
	})
	chartSide = slices.Concat(shared, [][]string{
		{"helmchart/archive", "helmchart/schema", "helmchart/unusedvalues"},
		{"helmchart/template", "helmchart/values"},
		{"helmchart"},
		{"chartsource/disk", "chartsource/fetch", "chartsource/repository"},
		{"chartsource/registry"},
		{"chartsource"},
	})
)

// below are the packages of the module that both sides may import: the contract, and what it names.
var below = []string{"validators", "validators/flux"}

func TestLayers(t *testing.T) {
	for name, layers := range map[string][][]string{"Kustomization side": kustomizationSide, "chart side": chartSide} {
		t.Run(name, func(t *testing.T) {
			for i, layer := range layers {
				lower := slices.Concat(layers[:i]...)
				for _, pkg := range layer {
					for _, imported := range upward(t, pkg, lower) {
						t.Errorf("internal/%s imports %s, which is not below it", pkg, imported)
					}
				}
			}
		})
	}
}

// upward returns the packages of the module that a package under internal imports, other than those in lower and below.
func upward(t *testing.T, pkg string, lower []string) []string {
	t.Helper()
	var out []string
	for _, imported := range imports(t, pkg) {
		inside, isInternal := strings.CutPrefix(imported, "internal/")
		if isInternal && slices.Contains(lower, inside) || slices.Contains(below, imported) {
			continue
		}
		out = append(out, imported)
	}
	return out
}

// imports returns the packages of the module that the files of a package import, without its tests, sorted.
func imports(t *testing.T, pkg string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(filepath.FromSlash(pkg), "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("internal/%s has no Go files: %v", pkg, err)
	}
	var out []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatalf("parsing %s: %v", file, err)
		}
		for _, spec := range parsed.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatalf("%s: import %s: %v", file, spec.Path.Value, err)
			}
			if of, ok := strings.CutPrefix(path, module); ok && !slices.Contains(out, of) {
				out = append(out, of)
			}
		}
	}
	slices.Sort(out)
	return out
}

// TestLayers_Complete: every package of the two sides is in a layer, so that a new one cannot be left out.
func TestLayers_Complete(t *testing.T) {
	var found []string
	for _, root := range []string{"sourcetree", "kustomization", "helmchart", "chartsource"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return err
			}
			if d.Name() == "testdata" {
				return fs.SkipDir
			}
			if files, err := filepath.Glob(filepath.Join(path, "*.go")); err != nil || len(files) > 0 {
				found = append(found, filepath.ToSlash(path))
				return err
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	listed := slices.DeleteFunc(slices.Concat(slices.Concat(kustomizationSide...), slices.Concat(chartSide...)), func(pkg string) bool {
		return pkg == "yamlposition" || pkg == "lookup" || pkg == "resourceset" || slices.Contains(shared[0], pkg)
	})
	slices.Sort(found)
	slices.Sort(listed)
	if diff := cmp.Diff(listed, found); diff != "" {
		t.Errorf("packages in layers (-listed +found):\n%s", diff)
	}
}

// TestLayers_UpwardImport: the test finds an import that points up.
func TestLayers_UpwardImport(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.Mkdir("sourcetree", 0o755); err != nil {
		t.Fatal(err)
	}
	const source = "package sourcetree\n\nimport (\n\t\"fmt\"\n\t_ \"" + module + "internal/kustomization\"\n\t_ \"" + module + "internal/suggest\"\n)\n"
	if err := os.WriteFile(filepath.Join("sourcetree", "a.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"internal/kustomization"}, upward(t, "sourcetree", []string{"suggest", "yamlposition"})); diff != "" {
		t.Errorf("upward imports (-want +got):\n%s", diff)
	}
}
