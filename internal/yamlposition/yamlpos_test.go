package yamlposition_test

import (
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

func TestFind(t *testing.T) {
	const text = `# a comment
a: &anchor
  b: 1
  list:
    - x
    - y: 2
c: *anchor
`
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		path validators.Path
		want yamlposition.Position
	}{
		"the empty path is the document":                 {nil, yamlposition.Position{Line: 2, Column: 1}},
		"a key is where its name stands":                 {validators.NewPath("a", "b"), yamlposition.Position{Line: 3, Column: 3}},
		"a list item is where it begins":                 {validators.NewPath("a", "list").Index(1), yamlposition.Position{Line: 6, Column: 7}},
		"a field inside a list item":                     {validators.NewPath("a", "list").Index(1).Child("y"), yamlposition.Position{Line: 6, Column: 7}},
		"a missing field is where its parent stands":     {validators.NewPath("a", "nope", "deeper"), yamlposition.Position{Line: 2, Column: 1}},
		"a missing index is where its list stands":       {validators.NewPath("a", "list").Index(9), yamlposition.Position{Line: 4, Column: 3}},
		"an index into a map is where the map stands":    {validators.NewPath("a").Index(0), yamlposition.Position{Line: 2, Column: 1}},
		"a field behind an alias is where it is defined": {validators.NewPath("c", "b"), yamlposition.Position{Line: 3, Column: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := yamlposition.Find(&doc, tc.path); got != tc.want {
				t.Errorf("Find(%s) = %v, want %v", tc.path, got, tc.want)
			}
		})
	}
	if got := yamlposition.Find(&yaml.Node{}, validators.NewPath("a")); got != (yamlposition.Position{}) {
		t.Errorf("Find in an empty document = %v, want the zero position", got)
	}
}
