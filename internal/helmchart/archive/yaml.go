package archive

import (
	"errors"
	"fmt"
)

// The limits of one YAML document: values have a few dozen levels at most.
const (
	maxYAMLBytes  = 16 << 20
	maxYAMLNested = 512
)

// CheckYAML refuses a document that a YAML parser would take very long for, or recurse very deep into, by looking at its bytes only:
// its size, how deep brackets are nested, and how deep the levels of block style can be.
func CheckYAML(doc []byte) error {
	if len(doc) > maxYAMLBytes {
		return fmt.Errorf("it has %d bytes, more than %d", len(doc), maxYAMLBytes)
	}
	flow, deepest, run := 0, 0, 0
	for _, c := range doc {
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
	// A run of dashes can be a line drawn in a comment; only far longer ones are an attack.
	if deepest > 20*maxYAMLNested {
		return errors.New("it is nested too deep")
	}
	return nil
}

// Depth returns how deep maps and lists are nested in a decoded document, looking no deeper than most.
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
