package yamlposition_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

const text = `# a comment
a: &anchor
  b: 1
  list:
    - x
    - y: 2
c: *anchor
d:
  <<: *anchor
  e: 1
  e: 2
items:
  - {name: one, value: 1}
  - {name: two, value: 2}
`

func parse(t *testing.T) *yaml.Node {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	return &doc
}

func TestFind(t *testing.T) {
	doc := parse(t)
	for name, tc := range map[string]struct {
		path validators.Path
		want validators.Position
	}{
		"the empty path is the document":                   {nil, validators.Position{Line: 2, Column: 1}},
		"a field is at its key":                            {validators.NewPath("a", "b"), validators.Position{Line: 3, Column: 3}},
		"a list item is at its first character":            {validators.NewPath("a", "list").Index(1), validators.Position{Line: 6, Column: 7}},
		"a field inside a list item":                       {validators.NewPath("a", "list").Index(1).Child("y"), validators.Position{Line: 6, Column: 7}},
		"a missing field is at its parent":                 {validators.NewPath("a", "nope", "deeper"), validators.Position{Line: 2, Column: 1}},
		"a missing index is at its list":                   {validators.NewPath("a", "list").Index(9), validators.Position{Line: 4, Column: 3}},
		"an index into a mapping is at the mapping":        {validators.NewPath("a").Index(0), validators.Position{Line: 2, Column: 1}},
		"a field behind an alias is where it is defined":   {validators.NewPath("c", "b"), validators.Position{Line: 3, Column: 3}},
		"a merged field is where it is defined":            {validators.NewPath("d", "b"), validators.Position{Line: 3, Column: 3}},
		"of duplicate keys the last one counts":            {validators.NewPath("d", "e"), validators.Position{Line: 11, Column: 3}},
		"an index is one into the document with no object": {validators.NewPath("items").Index(1), validators.Position{Line: 14, Column: 5}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, yamlposition.Find(doc, tc.path)); diff != "" {
				t.Errorf("Find(%s) (-want +got):\n%s", tc.path, diff)
			}
		})
	}
	t.Run("an empty document has no position", func(t *testing.T) {
		if got := yamlposition.Find(&yaml.Node{}, validators.NewPath("a")); got != (validators.Position{}) {
			t.Errorf("Find in an empty document = %v, want the zero position", got)
		}
	})
}

func TestMatch(t *testing.T) {
	doc := parse(t)
	object := map[string]any{"items": []any{
		map[string]any{"name": "added"}, map[string]any{"name": "two", "value": int64(2)}, map[string]any{"name": "one", "value": int64(1)},
	}}
	for name, tc := range map[string]struct {
		path  validators.Path
		want  validators.Position
		found bool
	}{
		"an item is found by its name, not by its index": {validators.NewPath("items").Index(2).Child("value"), validators.Position{Line: 13, Column: 17}, true},
		"an added item is at its list":                   {validators.NewPath("items").Index(0).Child("name"), validators.Position{Line: 12, Column: 1}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, found := yamlposition.Match(doc, object, tc.path)
			if diff := cmp.Diff(tc.want, got); diff != "" || found != tc.found {
				t.Errorf("Match(%s) found %t, want %t; position (-want +got):\n%s", tc.path, found, tc.found, diff)
			}
		})
	}
}
