package yamlpos_test

import (
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/internal/yamlpos"
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
		want yamlpos.Position
	}{
		"the empty path is the document":                 {nil, yamlpos.Position{Line: 2, Column: 1}},
		"a key is where its name stands":                 {validators.NewPath("a", "b"), yamlpos.Position{Line: 3, Column: 3}},
		"a list item is where it begins":                 {validators.NewPath("a", "list").Index(1), yamlpos.Position{Line: 6, Column: 7}},
		"a field inside a list item":                     {validators.NewPath("a", "list").Index(1).Child("y"), yamlpos.Position{Line: 6, Column: 7}},
		"a missing field is where its parent stands":     {validators.NewPath("a", "nope", "deeper"), yamlpos.Position{Line: 2, Column: 1}},
		"a missing index is where its list stands":       {validators.NewPath("a", "list").Index(9), yamlpos.Position{Line: 4, Column: 3}},
		"an index into a map is where the map stands":    {validators.NewPath("a").Index(0), yamlpos.Position{Line: 2, Column: 1}},
		"a field behind an alias is where it is defined": {validators.NewPath("c", "b"), yamlpos.Position{Line: 3, Column: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := yamlpos.Find(&doc, tc.path); got != tc.want {
				t.Errorf("Find(%s) = %v, want %v", tc.path, got, tc.want)
			}
		})
	}
	if got := yamlpos.Find(&yaml.Node{}, validators.NewPath("a")); got != (yamlpos.Position{}) {
		t.Errorf("Find in an empty document = %v, want the zero position", got)
	}
}
