package all_test

import (
	"os"
	"path/filepath"
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

// Cases of a rule that is not in the list would never run through the other front ends.
func TestNoCasesWithoutARule(t *testing.T) {
	// The schema rules join the list with the front end that knows kinds.
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
