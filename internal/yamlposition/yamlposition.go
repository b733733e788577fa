// Package yamlposition walks YAML nodes, and finds the line and column of a field in the text that they come from.
package yamlposition

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/validators"
)

// Find returns the position of the field at path in a document: of its key in a mapping, of the item in a sequence.
// When the field is not there, it is the position of the nearest parent that is. The position names no file.
func Find(doc *yaml.Node, path validators.Path) validators.Position {
	at, _, _ := Match(doc, nil, path)
	return at
}

// Match is Find for a path into an object that was built from the document: an item of one of its lists is looked for
// by what tells items apart, since a patch may have added or moved some. With a nil object the path is one into the
// document. It returns the position, the node there, and whether that is the field itself and not a parent of it.
func Match(doc *yaml.Node, object any, path validators.Path) (validators.Position, *yaml.Node, bool) {
	node := Resolve(doc)
	if node == nil {
		return validators.Position{}, nil, false
	}
	at := Of(node)
	for _, s := range path {
		var next, pos *yaml.Node
		if s.IsIndex() {
			list, _ := object.([]any)
			next = item(node, list, s.Index)
			pos, object = next, nil
			if s.Index < len(list) {
				object = list[s.Index]
			}
		} else {
			pos, next = Entry(node, s.Key)
			m, _ := object.(map[string]any)
			object = m[s.Key]
		}
		if next == nil {
			return at, node, false
		}
		at, node = Of(pos), Resolve(next)
	}
	return at, node, true
}

// Of returns the position of a node.
func Of(n *yaml.Node) validators.Position { return validators.Position{Line: n.Line, Column: n.Column} }

// Root returns the value of a document node, and any other node as it is; nil for an empty document.
func Root(n *yaml.Node) *yaml.Node {
	if n.Kind != yaml.DocumentNode {
		return n
	}
	if len(n.Content) == 0 {
		return nil
	}
	return n.Content[0]
}

// Resolve returns the value of a node: the root of a document, the node that an alias refers to. Nil has none.
func Resolve(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n != nil && n.Kind == yaml.DocumentNode {
		return Resolve(Root(n))
	}
	return n
}

// KeyIndex returns the index of a key in the content of a mapping, the last one of duplicate keys; -1 when there is
// none. Merges with << are not followed.
func KeyIndex(mapping *yaml.Node, key string) int {
	for i := len(mapping.Content) - 2; i >= 0; i -= 2 {
		if mapping.Content[i].Value == key {
			return i
		}
	}
	return -1
}

// Entry returns the key and the value of an entry of a mapping, also of one merged in with <<. Of duplicate keys the
// last one counts.
func Entry(n *yaml.Node, key string) (k, v *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		return nil, nil
	}
	if i := KeyIndex(n, key); i >= 0 {
		return n.Content[i], n.Content[i+1]
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag != "!!merge" {
			continue
		}
		merged := Resolve(n.Content[i+1])
		if merged.Kind == yaml.MappingNode {
			if k, v := Entry(merged, key); k != nil {
				return k, v
			}
			continue
		}
		for _, m := range merged.Content {
			if k, v := Entry(Resolve(m), key); k != nil {
				return k, v
			}
		}
	}
	return nil, nil
}

// Child returns the value under the keys of nested mappings; nil when there is none. Merges with << are not followed.
func Child(n *yaml.Node, keys ...string) *yaml.Node {
	for _, key := range keys {
		n = Resolve(n)
		if n == nil || n.Kind != yaml.MappingNode {
			return nil
		}
		i := KeyIndex(n, key)
		if i < 0 {
			return nil
		}
		n = n.Content[i+1]
	}
	return Resolve(n)
}

// Scalar returns the text of the scalar under the keys of nested mappings; empty when there is none.
func Scalar(n *yaml.Node, keys ...string) string {
	if v := Child(n, keys...); v != nil && v.Kind == yaml.ScalarNode {
		return v.Value
	}
	return ""
}

// mergeKeys are the fields that identify an item of a list, the most specific first.
var mergeKeys = []string{"name", "key", "id", "mountPath", "containerPort", "port", "host", "kind"}

// item returns the item of a sequence that became the item at the index of an object's list; nil when it has none.
func item(n *yaml.Node, list []any, index int) *yaml.Node {
	if n.Kind != yaml.SequenceNode {
		return nil
	}
	var value any
	if index < len(list) {
		value = list[index]
	}
	if index < len(n.Content) && SameItem(n.Content[index], value) {
		return n.Content[index]
	}
	if value != nil {
		for _, c := range n.Content {
			if SameItem(c, value) {
				return c
			}
		}
	}
	if len(list) == len(n.Content) && index < len(list) {
		return n.Content[index] // nothing was added or deleted; the field that identifies the item has changed
	}
	return nil
}

// SameItem reports whether the item of an object's list may have been built from the node, by the fields that
// identify items. A nil item may be built from any node.
func SameItem(n *yaml.Node, value any) bool {
	n = Resolve(n)
	m, isMap := value.(map[string]any)
	if !isMap {
		return value == nil || n.Kind != yaml.ScalarNode || n.Value == fmt.Sprint(value) || strings.Contains(n.Value, "$")
	}
	for _, key := range mergeKeys {
		if v, ok := m[key]; ok {
			text := Scalar(n, key)
			return text == fmt.Sprint(v) || strings.Contains(text, "$")
		}
	}
	return true
}
