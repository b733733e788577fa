package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The limits of one YAML document: values have a few dozen levels at most, and the largest public charts have fewer than
// 30,000 entries.
const (
	maxYAMLBytes   = 16 << 20
	maxYAMLNested  = 512
	maxYAMLEntries = 500_000
)

// YAMLBudget is what remains of the limits of several YAML documents. Decoding takes about 512 bytes of memory for an
// entry of a map or list, and eight for a byte.
type YAMLBudget struct {
	// Bytes is the length of the documents, with the text of anchors for each alias.
	Bytes int64
	// Entries is the number of entries of maps and lists, with those of anchors for each alias.
	Entries int64
}

// CheckYAML rejects a document that would cost a YAML parser very much time, memory or depth of recursion.
func CheckYAML(doc []byte) error {
	b := YAMLBudget{Bytes: maxYAMLBytes, Entries: maxYAMLEntries}
	return b.Take(doc)
}

// Take takes a document from the budget before it is decoded, and rejects one that is nested too deep. Without aliases
// it looks at the bytes only: their number, the possible entries of maps and lists, the nesting of brackets, and the
// possible nesting of blocks.
func (b *YAMLBudget) Take(doc []byte) error {
	limits := *b
	if b.Bytes -= int64(len(doc)); b.Bytes < 0 {
		return fmt.Errorf("it has %d bytes, more than the %d left of the limit", len(doc), limits.Bytes)
	}
	entries, deepest, aliases := scanYAML(doc)
	if b.Entries -= entries; b.Entries < 0 {
		return fmt.Errorf("it has more entries of maps and lists than the %d left of the limit", limits.Entries)
	}
	// A run of dashes may be a line in a comment; only far longer ones are an attack.
	if deepest > 20*maxYAMLNested {
		return errors.New("it is nested too deep")
	}
	if aliases == 0 {
		return nil
	}
	*b = limits
	expanded, ok := expandedYAML(doc)
	if !ok { // another parser may accept it
		expanded = YAMLBudget{Bytes: aliases * int64(len(doc)), Entries: aliases * entries}
	}
	if b.Entries -= max(expanded.Entries, entries); b.Entries < 0 {
		return fmt.Errorf("its aliases are replaced by more entries of maps and lists than the %d left of the limit", limits.Entries)
	}
	if b.Bytes -= max(expanded.Bytes, int64(len(doc))); b.Bytes < 0 {
		return fmt.Errorf("its aliases are replaced by more bytes than the %d left of the limit", limits.Bytes)
	}
	return nil
}

// scanYAML returns the numbers of possible entries and aliases of a document, and its possible nesting.
func scanYAML(doc []byte) (entries int64, deepest int, aliases int64) {
	flow, run := 0, 0
	for i, c := range doc {
		switch c {
		case ',':
			entries++
		case ':', '-', '?':
			// An indicator is followed by white space.
			if i+1 == len(doc) || doc[i+1] == ' ' || doc[i+1] == '\t' || doc[i+1] == '\n' || doc[i+1] == '\r' {
				entries++
			}
		case '*':
			if i == 0 || strings.IndexByte(" \t\r\n[{,:", doc[i-1]) >= 0 {
				aliases++
			}
		}
		switch c {
		case '[', '{':
			flow++
		case ']', '}':
			flow = max(0, flow-1)
		}
		// "- - - -" nests a list in a list without a line or an indent of its own.
		switch c {
		case '-', '?':
			run++
		case ' ', '\t':
		default:
			run = 0
		}
		deepest = max(deepest, flow, run)
	}
	return entries, deepest, aliases
}

// expandedYAML returns the size of documents with their anchors in place of each alias; false for what is not YAML. It
// reads them into nodes, which do not copy anchors.
func expandedYAML(doc []byte) (total YAMLBudget, ok bool) {
	dec := yaml.NewDecoder(bytes.NewReader(doc))
	for {
		var root yaml.Node
		if err := dec.Decode(&root); err != nil {
			return total, errors.Is(err, io.EOF)
		}
		sizes := map[*yaml.Node]*YAMLBudget{}
		size := expandedNode(&root, sizes)
		total.Bytes, total.Entries = saturated(total.Bytes+size.Bytes), saturated(total.Entries+size.Entries)
	}
}

func expandedNode(n *yaml.Node, sizes map[*yaml.Node]*YAMLBudget) YAMLBudget {
	if known, ok := sizes[n]; ok {
		return *known // also of an anchor in itself, which the decoder rejects
	}
	out := &YAMLBudget{Bytes: int64(len(n.Value))}
	if n.Kind == yaml.AliasNode {
		return expandedNode(n.Alias, sizes)
	}
	if n.Anchor != "" {
		sizes[n] = out
	}
	for _, c := range n.Content {
		size := expandedNode(c, sizes)
		out.Bytes, out.Entries = saturated(out.Bytes+size.Bytes), saturated(out.Entries+size.Entries+1)
	}
	return *out
}

// saturated keeps a sum of sizes, which doubles with every level of aliases, below an overflow.
func saturated(n int64) int64 { return min(n, 1<<40) }

// Depth returns how deep maps and lists are nested in a decoded document, up to a maximum.
func Depth(v any, most int) int {
	if most <= 0 {
		return 0
	}
	deepest := 0
	switch v := v.(type) {
	case map[string]any:
		for _, c := range v {
			deepest = max(deepest, Depth(c, most-1))
		}
	case []any:
		for _, c := range v {
			deepest = max(deepest, Depth(c, most-1))
		}
	default:
		return 0
	}
	return deepest + 1
}
