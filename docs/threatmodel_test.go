package docs_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

var testName = regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)`")

// TestThreatModel_NamesTests checks that the tests that the threat model names exist.
func TestThreatModel_NamesTests(t *testing.T) {
	text, err := os.ReadFile("threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	grep := exec.CommandContext(t.Context(), "grep", "-rhoE", "--include=*_test.go", `^func (Test|Fuzz)[A-Za-z0-9_]+`, "..")
	out, err := grep.Output()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		known[strings.TrimPrefix(strings.TrimSpace(line), "func ")] = true
	}
	names := testName.FindAllStringSubmatch(string(text), -1)
	if len(names) < 20 {
		t.Errorf("the threat model names %d tests", len(names))
	}
	for _, m := range names {
		if !known[m[1]] {
			t.Errorf("there is no test %s", m[1])
		}
	}
}
