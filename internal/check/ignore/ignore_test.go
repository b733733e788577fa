package ignore_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/internal/check/ignore"
	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/validators"
)

var known = []*validators.Meta{{ID: "KS001", Name: "kustomization-namespace"}, {ID: "SC001", Name: "unknown-field"}}

func parse(t *testing.T, text string) []*ignore.Comment {
	t.Helper()
	a := sourcetree.NewArtifact("a.yaml", []byte(text), sourcetree.Limits{})
	return ignore.Parse(a.File("a.yaml"), known)
}

// TestParse_Covers has files in which the covered lines of rule SC001 have the comment "here".
func TestParse_Covers(t *testing.T) {
	for name, text := range map[string]string{
		"field on the same line": `
spec:
  a: 1
  b: 2 # flux-admission: ignore SC001 until June here
  c: 3
`,
		"map on the same line": `
spec:
  values: # flux-admission: ignore unknown-field, KS001: a fork of the chart here
    x: # here
      - y # here

    z: 1 # here
  c: 3
`,
		"field below": `
spec:
  a: 1
  # flux-admission:ignore KS001,SC001 - two rules here
  # another comment here
  list: # here
  - 1 # here
  - 2 # here
  c: 3
`,
		"item below": `
list:
- name: a
# flux-admission: ignore SC001 r here
- name: b # here
  value: 1 # here
- name: c
`,
		"first field of an item": `
list:
- name: a # flux-admission: ignore SC001 r here
  value: 1
`,
		"block scalar": `
data:
  # flux-admission: ignore SC001 r here
  text: | # here
    # here
    a: b # here
  other: c
`,
		"object, above its first line": `
kind: A
---
# flux-admission: ignore SC001 r here

metadata: {} # here
kind: B # here
---
kind: C
`,
		"object, above the marker": `
kind: A
# flux-admission: ignore SC001 r
---
apiVersion: v1 # here
kind: B # here
...
`,
		"object, beside its kind": `
apiVersion: v1 # here
kind: A # flux-admission: ignore SC001 r here
spec: {} # here
---
kind: B
`,
		"object, beside the marker": `
kind: A
--- # flux-admission: ignore SC001 r here
kind: B # here
`,
		"first field of a file without a kind": `
resources: # flux-admission: ignore SC001 r here
- a.yaml # here
patches: []
`,
		"file": `
# A comment. here
# flux-admission: ignore-file SC001 generated here
kind: A # here
--- # here
kind: B # here
`,
		"text of a value": `
patch: |
  # flux-admission: ignore SC001 r here
  a: 1 # here
  b: 2
other: 1
`,
		"about the program": `
# flux-admission: the admission webhook
kind: A
`,
		"Windows": "a: 1\r\nb: 2 # flux-admission: ignore SC001 r here\r\nc: 3\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			text = strings.TrimPrefix(text, "\n")
			comments := parse(t, strings.ReplaceAll(text, " here", ""))
			for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
				covered := false
				for _, c := range comments {
					if c.Invalid != "" {
						t.Errorf("%s: %s", c.Position, c.Invalid)
					}
					covered = covered || c.Covers("SC001", i+1)
				}
				blank := strings.Trim(line, " \r") == "" || line == "---" || line == "..."
				if want := strings.Contains(line, " here"); covered != want && !blank {
					t.Errorf("line %d: covered %t, want %t: %s", i+1, covered, want, line)
				}
			}
		})
	}
}

func TestParse_Invalid(t *testing.T) {
	for text, want := range map[string]string{
		"a: 1 # flux-admission: ignore SC001":          "1:6 the reason is missing",
		"a: 1 # flux-admission: ignore SC001 --":       "1:6 the reason is missing",
		"a: 1 # flux-admission: ignore":                "1:6 no rule is named",
		"a: 1 # flux-admission: ignore unknow-field r": `1:6 there is no rule "unknow-field"; did you mean unknown-field?`,
		"a: 1 # flux-admission: ingore SC001 r":        `1:6 "ingore" is no directive; use ignore or ignore-file`,
		"a: 1\n# flux-admission: ignore SC001 r":       "2:1 nothing follows the comment that it could be about",
		"a: 1\n# flux-admission: ignore-file SC001 r":  "2:1 ignore-file must be above everything else in its file",
	} {
		comments := parse(t, text)
		if len(comments) != 1 {
			t.Errorf("%q: %d comments", text, len(comments))
			continue
		}
		c := comments[0]
		if got := fmt.Sprintf("%d:%d %s", c.Position.Line, c.Position.Column, c.Invalid); got != want || c.Covers("SC001", 1) {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestParse_Text(t *testing.T) {
	for text, inText := range map[string]bool{
		"a: 1 # flux-admission: ignore SC001 r":             false,
		"a: \"x # flux-admission: ignore SC001 r\"":         true,
		"a:\n- |\n  # flux-admission: ignore SC001 r\n  b":  true,
		"a: | # flux-admission: ignore SC001 r\n  text":     false,
		"a: [ # flux-admission: ignore SC001 r\n":           false, // does not parse
		"a: x\n  y\n# flux-admission: ignore SC001 r\nb: 1": false,
		"a: >\n  b\n  c # flux-admission: ignore SC001 r\n": true,
		"a: 'x\n  # flux-admission: ignore SC001 r\n  y'\n": true,
		"# flux-admission: ignore SC001 r\na: |\n  b\nc: 1": false,
	} {
		comments := parse(t, text)
		if len(comments) != 1 || comments[0].InText != inText || comments[0].Reason == "" {
			t.Errorf("%q: %+v", text, comments)
		}
	}
}
