package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestLint(t *testing.T) {
	list, err := parse(wordList)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, file, line, want string
	}{
		{"an old word in a comment is found", "a.go", "// the gate refuses it", "gate"},
		{"an old word is found without regard to case", "a.md", "# The Gate", "Gate"},
		{"an old word inside a name is found", "a.go", "var gateURL, isGate string", "gate"},
		{"an old word inside a metric is found", "a.yaml", "expr: flux_admission_late_verdicts_total", "late verdicts"},
		{"an old phrase is found", "a.go", "// f tells whether it is", "tells whether"},
		{"an old word in the name of a file is found", "docs/gate.md", "", "gate"},
		{"a longer word is another word", "a.md", "a gateway, a standard, a reporter", ""},
		{"an allowed phrase is not found", "a.md", "run `make bench` behind a feature gate", ""},
		{"an allowed phrase does not hide another use in the line", "a.md", "make bench starts the bench", "bench"},
		{"an old word is allowed in the files that its entry excludes", "webhook/a_bench_test.go", "// the bench", ""},
		{"a plain sentence is clean", "a.md", "The webhook server denies the request.", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := ""
			if uses := list.lint(test.file, []byte(test.line)); len(uses) > 0 {
				got = uses[0].text
			}
			if got != test.want {
				t.Errorf("found %q, want %q", got, test.want)
			}
		})
	}
}

// TestRun proves that the lint fails when an old word is put back into a clean repository, and where it does not look.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	write := func(name, text string) {
		t.Helper()
		full := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lint := func(counts int) (int, string) {
		t.Helper()
		var out bytes.Buffer
		found, err := run(t.Context(), &out, dir, counts)
		if err != nil {
			t.Fatal(err)
		}
		return found, out.String()
	}
	git("init", "-q")
	write("README.md", "# An admission webhook\n")
	write("testdata/other.yaml", "name: gate\n")
	write("picture.svg", "gate\n")
	git("add", ".")
	if found, out := lint(0); found != 0 {
		t.Errorf("a clean repository has %d findings:\n%s", found, out)
	}
	write("README.md", "# An admission webhook\n\nThe gate answers.\n")
	write("untracked.md", "gate\n")
	found, out := lint(0)
	if want := `README.md:3: "gate" is not a word of this project; use: admission webhook`; found != 1 || !strings.Contains(out, want) {
		t.Errorf("an old word put back gives %d findings, want 1 with %s:\n%s", found, want, out)
	}
	if found, out := lint(1); found != 1 || !strings.Contains(out, "1  gate") {
		t.Errorf("counts of an old word put back are %d:\n%s", found, out)
	}
}
