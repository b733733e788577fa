package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRun measures a small module with Go's own tool, because the blocks of a profile are Go's to define.
func TestRun(t *testing.T) {
	const source = `package tiny

func Sign(n int) string {
	if n < 0 {
		return "negative"
	} else if n == 0 {
		return "zero"
	}
	switch n {
	case 1:
		return "one"
	case 2:
		return "two"
	}
	if n > 100 {
	}
	return "positive"
}
`
	tests := []struct {
		name, calls, want string
	}{
		{"nothing runs", "", "0.0%      0.0%"},
		// Of the nine arms (if, else, else if, its implicit else, two cases, implicit default, the last if and its
		// implicit else) a negative number takes one.
		{"one arm of an if", "Sign(-1)", "22.2%     11.1%"},
		{"the implicit else, one case and no implicit default", "Sign(1)", "44.4%     33.3%"},
		{"the implicit default and the implicit else of an empty if", "Sign(3)", "55.6%     44.4%"},
		{"everything", "Sign(-1); Sign(0); Sign(1); Sign(2); Sign(3); Sign(101)", "100.0%    100.0%"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range map[string]string{
				"go.mod":            "module example.org/tiny\n\ngo 1.26.0\n",
				"tiny/tiny.go":      source,
				"tiny/tiny_test.go": "package tiny\n\nimport \"testing\"\n\nfunc TestSign(*testing.T) { " + test.calls + " }\n",
			} {
				file := filepath.Join(dir, filepath.FromSlash(name))
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.CommandContext(t.Context(), "go", "test", "-covermode", "count", "-coverprofile", "profile", "./...")
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("go test: %v\n%s", err, out)
			}
			t.Chdir(dir)
			var out strings.Builder
			if err := run(t.Context(), &out, "profile", 1); err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{test.want + "  tiny\n", test.want + "  tiny/tiny.go\n"} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the report lacks %q:\n%s", want, out.String())
				}
			}
		})
	}
}

func TestRun_ProfileWithoutCounts(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for name, text := range map[string]string{"go.mod": "module example.org/tiny\n\ngo 1.26.0\n", "profile": "mode: set\nexample.org/tiny/a.go:1.1,2.2 1 1\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := run(t.Context(), &strings.Builder{}, "profile", 1)
	if want := `the profile has mode "set": write it with -covermode count`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
