package sourcetree

import (
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

// FuzzParse: for any bytes, parsing ends, every position is inside the text, and a refused file has no documents.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: default}\n", "a: 1\na: 2\n", "a: &a [*a]\n", "a: [", "- - - -\n", "\x00", "\xff\xfe", "? {a: b}\n: c\n", "<<: *x\n", "a: &x {b: c}\nd: {<<: *x}\n",
		"---\n---\n...\n%YAML 1.1\n---\na\n", "a: 2024-01-01\nb: .nan\nc: 0o17\nd: !!binary aGk=\n1: x\n",
	} {
		f.Add([]byte(seed))
	}
	limits := Limits{Nodes: 10_000}.WithDefaults()
	f.Fuzz(func(t *testing.T, data []byte) {
		d := parse(data, "fuzz.yaml", limits)
		lines := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") + 2
		for _, p := range d.Problems {
			if p.Message == "" || p.Position.File != "fuzz.yaml" || p.Position.Line > lines {
				t.Errorf("problem %+v in a text of %d lines", p, lines)
			}
		}
		if d.Refused() != "" && len(d.Documents) > 0 {
			t.Error("a refused file has documents")
		}
		for _, doc := range d.Documents {
			Identify(doc)
			if m, err := Decode(yamlposition.Root(doc)); err == nil {
				eachPath(m, nil, func(p validators.Path) { yamlposition.Match(doc, m, p) })
			}
		}
	})
}

func TestParse_Messages(t *testing.T) {
	for text, want := range map[string]string{
		"a:\n\tb: c\n":            "f.yaml:2:2: YAML does not parse: the line is indented with a tab, and YAML allows only spaces",
		"a:\n  \tb: c\n  d: e\n":  "f.yaml:2:4: YAML does not parse: the line is indented with a tab, and YAML allows only spaces",
		"a: @b\n":                 "f.yaml:1:1: YAML does not parse: found character that cannot start any token",
		"a: &x [1]\n---\nb: *x\n": "f.yaml:3:4: YAML does not parse: unknown anchor 'x' referenced: an anchor ends with its document",
		"a: &x [*x]\n":            "f.yaml: the file was not read: the alias *x at line 1 contains itself",
	} {
		d := parse([]byte(text), "f.yaml", Limits{}.WithDefaults())
		if len(d.Problems) != 1 || d.Problems[0].String() != want {
			t.Errorf("%q: problems %v, want %q", text, d.Problems, want)
		}
	}
}

func eachPath(v any, at validators.Path, visit func(validators.Path)) {
	visit(at)
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			eachPath(e, at.Child(k), visit)
		}
	case []any:
		for i, e := range v {
			eachPath(e, at.Index(i), visit)
		}
	}
}
