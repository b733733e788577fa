// Package yamlposition finds the line and column of a field in the YAML text that it came from.
package yamlposition

import (
	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/validators"
)

// Position is a place in a text; line and column count from 1.
type Position struct {
	Line, Column int
}

// Find returns the place of the field at path in a document: of its key where it is a map's, of the item where it is a list's. When
// the field is not there, it is the place of the nearest parent that is.
func Find(doc *yaml.Node, path validators.Path) Position {
	node := doc
	if node.Kind == yaml.DocumentNode && len(node.Content) > 0 {
		node = node.Content[0]
	}
	at := Position{node.Line, node.Column}
	for _, step := range path {
		for node.Kind == yaml.AliasNode {
			node = node.Alias
		}
		next, pos, ok := descend(node, step)
		if !ok {
			break
		}
		node, at = next, pos
	}
	return at
}

func descend(node *yaml.Node, step validators.Step) (*yaml.Node, Position, bool) {
	if step.IsIndex() {
		if node.Kind != yaml.SequenceNode || step.Index >= len(node.Content) {
			return nil, Position{}, false
		}
		n := node.Content[step.Index]
		return n, Position{n.Line, n.Column}, true
	}
	if node.Kind != yaml.MappingNode {
		return nil, Position{}, false
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if key := node.Content[i]; key.Value == step.Key {
			return node.Content[i+1], Position{key.Line, key.Column}, true
		}
	}
	return nil, Position{}, false
}
