package kindschema

import (
	"maps"
	"slices"
	"strings"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"

	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/validators"
)

// node is a map in a schema, of a custom resource or of a built-in type.
type node interface {
	// fields returns the names of the map's fields, sorted; none for a map with arbitrary keys.
	fields() []string
	// field returns one of them; nil if it is not a map.
	field(name string) node
}

type structuralNode struct{ s *structuralschema.Structural }

func (n structuralNode) fields() []string {
	if n.s == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(n.s.Properties))
}

func (n structuralNode) field(name string) node {
	child, ok := n.s.Properties[name]
	if !ok || len(child.Properties) == 0 {
		return nil
	}
	return structuralNode{&child}
}

// suggestion returns the suggested field for an unknown name in the map at parent: a similar name in that map; the same name one level below,
// if only one map there has it; or, at the root of an object, the last word of a key of several words ("g  dependsOn"), at the root or in the
// spec. It returns nil if there is no or more than one candidate.
func suggestion(at node, parent validators.Path, name string, root node) validators.Path {
	known := at.fields()
	words := strings.Fields(name)
	if len(words) < 2 {
		if n := suggest.Nearest(name, known); n != "" {
			return parent.Child(n)
		}
	}
	if len(words) == 0 {
		return nil
	}
	word := words[len(words)-1]
	if len(words) > 1 && slices.Contains(known, word) {
		return parent.Child(word)
	}
	if len(parent) == 0 {
		if spec := root.field("spec"); spec != nil && slices.Contains(spec.fields(), word) {
			return validators.NewPath("spec", word)
		}
		return nil
	}
	var found validators.Path
	for _, k := range known {
		if below := at.field(k); below != nil && slices.Contains(below.fields(), name) {
			if found != nil {
				return nil
			}
			found = parent.Child(k, name)
		}
	}
	return found
}
