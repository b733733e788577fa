package archive

import (
	"errors"
	"fmt"
)

// The limits of one YAML document: values have a few dozen levels at most.
const (
	maxYAMLBytes   = 16 << 20
	maxYAMLNested  = 512
	maxYAMLEntries = 500_000
)

// CheckYAML rejects a document that would cost a YAML parser very much time or depth of recursion. It looks at the
// bytes only: their number, the possible entries of maps and lists, the nesting of brackets, and the possible nesting
// of blocks.
func CheckYAML(doc []byte) error {
	if len(doc) > maxYAMLBytes {
		return fmt.Errorf("it has %d bytes, more than %d", len(doc), maxYAMLBytes)
	}
	flow, deepest, run, entries := 0, 0, 0, 0
	for i, c := range doc {
		switch c {
		case ',':
			entries++
		case ':', '-', '?':
			// An indicator is followed by white space.
			if i+1 == len(doc) || doc[i+1] == ' ' || doc[i+1] == '\t' || doc[i+1] == '\n' || doc[i+1] == '\r' {
				entries++
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
	if entries > maxYAMLEntries {
		return fmt.Errorf("it has more than %d entries of maps and lists", maxYAMLEntries)
	}
	// A run of dashes may be a line in a comment; only far longer ones are an attack.
	if deepest > 20*maxYAMLNested {
		return errors.New("it is nested too deep")
	}
	return nil
}

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
