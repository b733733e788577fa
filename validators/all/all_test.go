package all_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/all"
)

// Every rule of the list is well-formed and has its cases in a folder named after its ID, below its own package.
func TestRulesAreDeclaredWholly(t *testing.T) {
	if _, err := validators.NewSuite(all.Rules()...); err != nil {
		t.Fatal(err)
	}
	for _, r := range all.Rules() {
		id := strings.ToLower(r.ID)
		cases, err := filepath.Glob(filepath.Join("..", "*", "testdata", id, "*.txtar"))
		if err != nil {
			t.Fatal(err)
		}
		if len(cases) == 0 {
			t.Errorf("rule %s has no case in validators/*/testdata/%s", r.ID, id)
		}
		if files, _ := filepath.Glob(filepath.Join("..", "*", id+"_*.go")); len(files) != 1 {
			t.Errorf("rule %s: want exactly one file validators/*/%s_*.go, have %v", r.ID, id, files)
		}
	}
}

// TestSupersedes checks that a rule supersedes rules of the list only, and that no other Go file than a rule's own
// contains its name.
func TestSupersedes(t *testing.T) {
	names := map[string]string{} // file of the rule by name
	for _, r := range all.Rules() {
		files, err := filepath.Glob(filepath.Join("..", "*", strings.ToLower(r.ID)+"_*.go"))
		if err != nil || len(files) != 1 {
			t.Fatalf("rule %s: files %v, %v", r.ID, files, err)
		}
		names[r.Name] = filepath.Base(files[0])
	}
	superseded := map[string][]string{} // names that a file may contain
	for _, r := range all.Rules() {
		for _, name := range r.Supersedes {
			if names[name] == "" {
				t.Errorf("rule %s supersedes %s, which does not exist", r.ID, name)
			}
			superseded[names[r.Name]] = append(superseded[names[r.Name]], name)
		}
	}
	err := filepath.WalkDir(filepath.Join("..", ".."), func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		if strings.HasPrefix(file, filepath.Join("..", "..", "test")) {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		text = bytes.ReplaceAll(text, []byte("ProblemKind = \""), nil) // kinds of problems have similar names
		for name, own := range names {
			base := filepath.Base(file)
			if base != own && bytes.Contains(text, []byte(strconv.Quote(name))) && !slices.Contains(superseded[base], name) {
				t.Errorf("%s contains the name of rule %s", file, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Cases of a rule that is not in the list would not be run.
func TestNoCasesWithoutARule(t *testing.T) {
	known := map[string]bool{}
	for _, r := range all.Rules() {
		known[strings.ToLower(r.ID)] = true
	}
	dirs, err := filepath.Glob(filepath.Join("..", "*", "testdata", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if info, err := os.Stat(d); err == nil && info.IsDir() && !known[filepath.Base(d)] && filepath.Base(d) != "fuzz" {
			t.Errorf("%s belongs to no rule of the list", d)
		}
	}
}
