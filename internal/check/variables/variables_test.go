package variables_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/internal/check/variables"
)

func TestParse(t *testing.T) {
	tests := map[string]struct {
		name, text string
		want       map[string]string
	}{
		"lines of NAME=VALUE": {
			"vars.env", "# ours\nA=1\n\n  export B = 2\n", map[string]string{"A": "1", "B ": " 2"},
		},
		"quotes are removed": {
			"vars", "A=\"big one\"\nB='x'\nC=\"open\n", map[string]string{"A": "big one", "B": "x", "C": "\"open"},
		},
		"a value may have an equals sign and be empty": {"vars", "A=b=c\nB=\n", map[string]string{"A": "b=c", "B": ""}},
		"a map of scalars in YAML": {
			"vars.yaml", "a: text\nb: 1\nc: true\nd:\n", map[string]string{"a": "text", "b": "1", "c": "true", "d": ""},
		},
		"a map of scalars in JSON": {"vars.json", `{"a": "text"}`, map[string]string{"a": "text"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := variables.Parse(test.name, []byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("variables (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParse_Error(t *testing.T) {
	tests := map[string]struct{ name, text, want string }{
		"a line without an equals sign": {"vars", "A=1\nhunter2", "vars:2: want NAME=VALUE"},
		"a list":                        {"vars.yaml", "A: [hunter2]", "the value of A is not a scalar"},
		"a map":                         {"vars.yml", "A: {b: hunter2}", "the value of A is not a scalar"},
		"invalid YAML":                  {"vars.yaml", "A: [", "vars.yaml"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := variables.Parse(test.name, []byte(test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("variables %v, error %v, want %q without the value", got, err, test.want)
			}
		})
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for name, text := range map[string]string{"a.env": "A=file\nB=first\nC=first\n", "b.yaml": "B: second\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files = append(files, filepath.Join(dir, "a.env"), filepath.Join(dir, "b.yaml"))
	got, err := variables.Read(files, []string{"A=pair"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"A": "pair", "B": "second", "C": "first"}, got); diff != "" {
		t.Errorf("variables (-want +got):\n%s", diff)
	}
	if _, err := variables.Read([]string{filepath.Join(dir, "missing")}, nil); err == nil || !strings.Contains(err.Error(), "--vars-file: ") {
		t.Errorf("error %v, want one that names --vars-file", err)
	}
	if _, err := variables.Read(nil, []string{"=x"}); err == nil || !strings.Contains(err.Error(), `--var "=x": want NAME=VALUE`) {
		t.Errorf("error %v, want one that names --var", err)
	}
}
