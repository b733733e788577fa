package fix

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/validators"
)

func path(text string) validators.Path {
	p := validators.Path{}
	for step := range strings.SplitSeq(text, ".") {
		if step == "0" {
			p = p.Index(0)
		} else if step != "" {
			p = p.Child(step)
		}
	}
	return p
}

func TestApply(t *testing.T) {
	const ks = `# the app
spec:
  path: ./aps/web # where it is
  dependsOn:
    - name: db   # the database

    # and its operator
    - name: "cnpg"
  prune: true

---
# second
spec: {path: 'a''b', list: [{name: x}]} # flow
`
	replace := func(p string, v any) validators.Edit {
		return validators.Edit{Op: validators.EditReplace, Path: path(p), Value: v}
	}
	add := func(p string, v any) validators.Edit {
		return validators.Edit{Op: validators.EditAdd, Path: path(p), Value: v}
	}
	remove := func(p string) validators.Edit { return validators.Edit{Op: validators.EditRemove, Path: path(p)} }
	move := func(from, to string) validators.Edit {
		return validators.Edit{Op: validators.EditMove, From: path(from), Path: path(to)}
	}
	for name, tc := range map[string]struct {
		text     string
		document int
		within   string
		edits    []validators.Edit
		old, new string // the expected change of text; old occurs once
		wantErr  string
	}{
		"a plain scalar keeps its comment":                 {text: ks, edits: []validators.Edit{replace("spec.path", "./apps/web")}, old: "./aps/web #", new: "./apps/web #"},
		"a quoted scalar keeps its quotes":                 {text: ks, edits: []validators.Edit{replace("spec.dependsOn.0.name", "cnpg-operator")}, old: "name: db ", new: "name: cnpg-operator "},
		"a string that looks like a number is quoted":      {text: ks, edits: []validators.Edit{replace("spec.path", "1.10")}, old: "./aps/web", new: `"1.10"`},
		"a key is added after its siblings in a list item": {text: ks, edits: []validators.Edit{add("spec.dependsOn.0.namespace", "data")}, old: "# the database\n", new: "# the database\n      namespace: data\n"},
		"a key is added before the empty line at the end":  {text: ks, edits: []validators.Edit{add("spec.wait", true)}, old: "  prune: true\n", new: "  prune: true\n  wait: true\n"},
		"another document is edited in flow style":         {text: ks, document: 1, edits: []validators.Edit{replace("spec.path", "it's")}, old: "'a''b'", new: "'it''s'"},
		"a key is added to a flow map":                     {text: ks, document: 1, edits: []validators.Edit{add("spec.list.0.namespace", "data")}, old: "{name: x}", new: "{name: x, namespace: data}"},
		"a key is removed from a flow map":                 {text: ks, document: 1, edits: []validators.Edit{remove("spec.list")}, old: ", list: [{name: x}]", new: ""},
		"the first key is removed from a flow map":         {text: ks, document: 1, edits: []validators.Edit{remove("spec.path")}, old: "path: 'a''b', ", new: ""},
		"a block is removed with its comments":             {text: ks, edits: []validators.Edit{remove("spec.dependsOn")}, old: "  dependsOn:\n    - name: db   # the database\n\n    # and its operator\n    - name: \"cnpg\"\n", new: ""},
		"the only key of a map leaves an empty map":        {text: "spec:\n  monitoring: # ours\n    enabled: true\n  size: 1\n", edits: []validators.Edit{remove("spec.monitoring.enabled")}, old: "monitoring: # ours\n    enabled: true\n", new: "monitoring: {} # ours\n"},
		"the key behind a dash is removed":                 {text: "a:\n  - x: 1\n    y: 2\n", edits: []validators.Edit{remove("a.0.x")}, old: "x: 1\n    ", new: ""},
		"a key is renamed":                                 {text: ks, edits: []validators.Edit{move("spec.prune", "spec.suspend")}, old: "prune", new: "suspend"},
		"a block is moved to another map": {
			text: "spec:\n  a: 1\n\n  # about c\n  c: 2\ng  x:\n- name: y # z\n- name: q\n", edits: []validators.Edit{move("g  x", "spec.x")},
			old: "g  x:\n- name: y # z\n- name: q\n", new: "  x:\n  - name: y # z\n  - name: q\n",
		},
		"a block that is indented enough is moved unchanged": {
			text: "spec:\n  a: 1\ng  x:\n    - name: y\n\n    - name: q", edits: []validators.Edit{move("g  x", "spec.x")},
			old: "g  x:", new: "  x:",
		},
		"sequences at the indentation of their key": {text: "a:\n  l:\n  - x\n  - y\nb: 1\n", edits: []validators.Edit{add("a.m", 1)}, old: "  - y\n", new: "  - y\n  m: 1\n"},
		"line endings of Windows":                   {text: "a:\r\n  b: 1\r\n# c\r\n", edits: []validators.Edit{add("a.c", "x")}, old: "  b: 1\r\n", new: "  b: 1\r\n  c: x\r\n"},
		"no line ending at the end":                 {text: "a:\n  b: 1", edits: []validators.Edit{add("a.c", "x")}, old: "b: 1", new: "b: 1\n  c: x"},
		"a block scalar is the last":                {text: "a:\n  b: |\n    text\n\n    more\nc: 1\n", edits: []validators.Edit{add("a.d", 1)}, old: "    more\n", new: "    more\n  d: 1\n"},
		"an item of a List":                         {text: "items:\n  - spec:\n      path: a\n", within: "items.0", edits: []validators.Edit{replace("spec.path", "b")}, old: "path: a", new: "path: b"},
		"characters of several bytes before it":     {text: "a: {ä: ö, b: c}\n", edits: []validators.Edit{replace("a.b", "d")}, old: "b: c", new: "b: d"},
		"several edits of one finding":              {text: "a: 1\nb: 2\n", edits: []validators.Edit{replace("a", 3), remove("b")}, old: "a: 1\nb: 2\n", new: "a: 3\n"},
		"a key is added on a line of its own in a flow map of several lines": {
			text: "a: {\n  b: 1,\n  c: 2\n}\nd: 1\n", edits: []validators.Edit{add("a.e", "x, y")}, old: "  c: 2\n", new: "  c: 2,\n  e: \"x, y\"\n",
		},
		"a comma at the end of a flow map stays one": {
			text: "a: {\n  b: 1,\n}\n", edits: []validators.Edit{add("a.e", 1)}, old: "  b: 1,\n", new: "  b: 1,\n  e: 1,\n",
		},
		"JSON stays JSON": {
			text: "{\n  \"a\": {\"b\": \"<c>\"}\n}\n", edits: []validators.Edit{add("a.d", "e"), replace("a.b", "<&>")}, old: `"<c>"}`, new: `"<&>", "d": "e"}`,
		},
		"an empty flow map gets its first key": {text: "a: {} # none\n", edits: []validators.Edit{add("a.b", 1)}, old: "{}", new: "{b: 1}"},
		"an apostrophe in a plain scalar of a flow map is not a quote": {
			text: "a: {b: it's, c: 1} # '\n", edits: []validators.Edit{remove("a.c")}, old: ", c: 1", new: "",
		},
		"a key is added after a flow map of several lines": {
			text: "a:\n  b: {\n    c: 1\n  }\nd: 1\n", edits: []validators.Edit{add("a.e", 1)}, old: "  }\n", new: "  }\n  e: 1\n",
		},
		"a key is added with the line ending of its siblings": {
			text: "a:\n  b: 1\nc: 1\r\n", edits: []validators.Edit{add("a.d", 1)}, old: "  b: 1\n", new: "  b: 1\n  d: 1\n",
		},
		"a byte order mark is not counted": {text: "\ufeffa: 'b'\n", edits: []validators.Edit{replace("a", "c")}, old: "'b'", new: "'c'"},
		"empty documents are not counted": {
			text: "# only a comment\n---\nnull\n---\na: 1\n---\na: 2\n", document: 1, edits: []validators.Edit{replace("a", 3)}, old: "a: 2", new: "a: 3",
		},
		"keys may be numbers": {
			text: "a:\n  8080: x\n  b: y\n", edits: []validators.Edit{replace("a.b", "z"), replace("a.8080", "w")}, old: "8080: x\n  b: y", new: "8080: w\n  b: z",
		},
		"a large number is not rounded":                                    {text: "a: 12345678901234567890\nb: 1\n", edits: []validators.Edit{replace("b", 2)}, old: "b: 1", new: "b: 2"},
		"a value that is set already is not changed":                       {text: "a: \"b\" # c\n", edits: []validators.Edit{replace("a", "b")}, old: "# c", new: "# c"},
		"a key that exists is replaced":                                    {text: "a: 'b' # c\n", edits: []validators.Edit{add("a", "d")}, old: "'b'", new: "'d'"},
		"a quoted key is renamed in its quotes":                            {text: "'a b': 1\n", edits: []validators.Edit{move("a b", "ab")}, old: "'a b'", new: "'ab'"},
		"the last line is removed from a text without a final line ending": {text: "a: 1\r\nb: 2", edits: []validators.Edit{remove("b")}, old: "\r\nb: 2", new: ""},
		"a Windows file without a final line ending":                       {text: "a:\r\n  b: 1", edits: []validators.Edit{add("a.c", 2)}, old: "  b: 1", new: "  b: 1\r\n  c: 2"},
		"the last key of a list item is removed":                           {text: "a:\n- x: 1\n  y: 2 # two\n- z\n", edits: []validators.Edit{remove("a.0.y")}, old: "  y: 2 # two\n", new: ""},
		"the only key behind a dash is not removed":                        {text: "a:\n- x: 1\n", edits: []validators.Edit{remove("a.0.x")}, wantErr: "a[0].x: YAML at this position cannot be edited"},
		"the last key with a question mark is not removed":                 {text: "? a\n: 1\n? b\n: 2\n", edits: []validators.Edit{remove("b")}, wantErr: "b: "},
		"a merged value is not edited":                                     {text: "a: &x\n  b: 1\nc:\n  <<: *x\n  d: 2\n", edits: []validators.Edit{replace("c.b", 2)}, wantErr: "c.b: YAML at this position cannot be edited"},
		"a map with an alias gets no key":                                  {text: "a: &x\n  b: 1\nc: *x\n", edits: []validators.Edit{add("a.d", 2)}, wantErr: "a.d: the edit would change other values, too"},
		"a map with a duplicate key is not edited":                         {text: "a: 1\na: 2\nb: 1\n", edits: []validators.Edit{replace("b", 2)}, wantErr: "it may have duplicate keys"},
		"a key is not renamed to an existing one":                          {text: "a: 1\nb: 2\n", edits: []validators.Edit{move("a", "b")}, wantErr: "b: "},
		"nothing is returned if the second of two edits fails":             {text: "a: 1\n", edits: []validators.Edit{replace("a", 2), remove("b")}, wantErr: "b: field does not exist in the file"},
		"a file in UTF-16 is not edited":                                   {text: "\xff\xfea\x00:\x00 \x001\x00", edits: []validators.Edit{replace("a", 2)}, wantErr: "the file is encoded in UTF-16; must be UTF-8"},
		"an anchor":                                                        {text: "a: &x y\nb: *x\n", edits: []validators.Edit{replace("a", "z")}, wantErr: "a: value is shared by a YAML anchor; edit it manually"},
		"an alias":                                                         {text: "a: &x y\nb: *x\n", edits: []validators.Edit{replace("b", "z")}, wantErr: "b: value is shared by a YAML anchor; edit it manually"},
		"a text over several lines":                                        {text: "a: |\n  x\n", edits: []validators.Edit{replace("a", "z")}, wantErr: "a: value has several lines; edit it manually"},
		"a missing field":                                                  {text: "a: 1\n", edits: []validators.Edit{replace("b", "z")}, wantErr: "b: YAML at this position cannot be edited"},
		"a missing document":                                               {text: "a: 1\n", document: 3, edits: []validators.Edit{replace("a", 2)}, wantErr: "document 3 does not exist; the file has 1"},
		"invalid YAML":                                                     {text: "a: [\n", edits: []validators.Edit{replace("a", 2)}, wantErr: "parsing the file"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Apply([]byte(tc.text), tc.document, path(tc.within), tc.edits)
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Errorf("error %v, want %q", err, tc.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(tc.text, tc.old) != 1 {
				t.Fatalf("the text of the case contains %q %d times", tc.old, strings.Count(tc.text, tc.old))
			}
			if want := strings.Replace(tc.text, tc.old, tc.new, 1); string(got) != want {
				t.Errorf("Apply (-want +got):\n%s", cmp.Diff(want, string(got)))
			}
		})
	}
}

// For any text, Apply does not panic, changes the lines of the edit only, and changes nothing when the edit is applied again. Apply itself compares
// the values of the result.
func FuzzApply(f *testing.F) {
	for _, text := range []string{
		"a:\n  b: 1\n", "a: {b: c}\n", "- a: 1\n  b: 2\n", "a: &x [1]\nb: *x\n", "a: 'x'\n---\nb: \"y\"\n", "a:\r\n- b\r\n", "a: {\n  b: 1,\n}\n", "? a\n: b\n",
		"\ufeffa: |\n  b\n# c\n",
	} {
		for op := range 4 {
			f.Add(text, "a.b", op, "z")
		}
	}
	f.Fuzz(func(t *testing.T, text, at string, op int, value string) {
		if len(text) > 1<<12 {
			return
		}
		p := path(at)
		if len(p) == 0 {
			return
		}
		ops := []validators.EditOp{validators.EditAdd, validators.EditReplace, validators.EditRemove, validators.EditMove}
		e := validators.Edit{Op: ops[uint(op)%uint(len(ops))], Path: p, From: p, Value: value}
		if e.Op == validators.EditMove {
			e.Path = p[:len(p)-1].Child(value)
		}
		out, err := Apply([]byte(text), 0, nil, []validators.Edit{e})
		if err != nil {
			return
		}
		if _, err := parse(out); err != nil {
			t.Fatalf("the result is invalid: %v", err)
		}
		before, after := differing(text, string(out))
		switch {
		case e.Op == validators.EditRemove && after > 1, // an empty map, or the rest of the line
			e.Op == validators.EditAdd && (before > 1 || after > 2), // a comma after the previous entry
			(e.Op == validators.EditReplace || e.Op == validators.EditMove) && (before > 1 || after > 1):
			t.Errorf("%s of %s: %d lines become %d in\n%q\n%q", e.Op, e.Path, before, after, text, out)
		}
		if e.Op == validators.EditAdd || e.Op == validators.EditReplace {
			again, err := Apply(out, 0, nil, []validators.Edit{e})
			if err != nil || string(again) != string(out) {
				t.Errorf("the same edit again changes %q to %q (%v)", out, again, err)
			}
		}
	})
}

// differing returns the number of lines of two texts without their common prefix and suffix.
func differing(a, b string) (before, after int) {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for len(x) > 0 && len(y) > 0 && x[0] == y[0] {
		x, y = x[1:], y[1:]
	}
	for len(x) > 0 && len(y) > 0 && x[len(x)-1] == y[len(y)-1] {
		x, y = x[:len(x)-1], y[:len(y)-1]
	}
	return len(x), len(y)
}
