package validators

import (
	"slices"
	"strconv"
	"strings"
)

// Path is the path of a field in an object, from its root. It is a list of steps instead of a string, because drivers
// print it, convert it to a JSON Pointer and find it in a YAML document. The zero value is the object itself. Paths are
// immutable: Child and Index return a new one.
type Path []Step

// Step is one map key or one list index of a Path.
type Step struct {
	// Key is the map key; empty when the step is a list index.
	Key string
	// Index is the list index, from 0; -1 when the step is a map key.
	Index int
}

// NewPath returns the path that descends through the named map keys, one step a key. Keys are taken literally: a dot
// inside a key is part of it.
func NewPath(keys ...string) Path {
	return Path(nil).Child(keys...)
}

// Child returns the path extended by the named map keys.
func (p Path) Child(keys ...string) Path {
	out := make(Path, len(p), len(p)+len(keys))
	copy(out, p)
	for _, k := range keys {
		out = append(out, Step{Key: k, Index: -1})
	}
	return out
}

// Index returns the path extended by a list index, from 0.
func (p Path) Index(i int) Path {
	out := make(Path, len(p), len(p)+1)
	copy(out, p)
	return append(out, Step{Index: i})
}

// IsIndex reports whether the step is a list index.
func (s Step) IsIndex() bool { return s.Index >= 0 }

// String returns the path in the notation of the Kubernetes API's own field errors: spec.containers[0].env,
// metadata.annotations[example.com/key].
func (p Path) String() string {
	var b strings.Builder
	for _, s := range p {
		switch {
		case s.IsIndex():
			b.WriteByte('[')
			b.WriteString(strconv.Itoa(s.Index))
			b.WriteByte(']')
		case s.Key == "" || strings.ContainsAny(s.Key, "./[]"):
			b.WriteByte('[')
			b.WriteString(s.Key)
			b.WriteByte(']')
		default:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(s.Key)
		}
	}
	return b.String()
}

// escapePointer escapes one reference token (RFC 6901, section 3).
var escapePointer = strings.NewReplacer("~", "~0", "/", "~1")

// Pointer returns the path as a JSON Pointer (RFC 6901): /spec/values/data. The empty path is "".
func (p Path) Pointer() string {
	var b strings.Builder
	for _, s := range p {
		b.WriteByte('/')
		if s.IsIndex() {
			b.WriteString(strconv.Itoa(s.Index))
		} else {
			b.WriteString(escapePointer.Replace(s.Key))
		}
	}
	return b.String()
}

// HasPrefix reports whether the path is equal to the other one or below it.
func (p Path) HasPrefix(other Path) bool {
	return len(p) >= len(other) && slices.Equal(p[:len(other)], other)
}

// Lookup returns the value at the path in a decoded object (maps, slices and scalars as JSON decodes them); nil if
// there is none.
func (p Path) Lookup(root any) any {
	for _, s := range p {
		switch {
		case s.IsIndex():
			list, _ := root.([]any)
			if s.Index >= len(list) {
				return nil
			}
			root = list[s.Index]
		default:
			m, _ := root.(map[string]any)
			root = m[s.Key]
		}
	}
	return root
}

// Trail is the path of a value that a search is at. A rule that searches a large object enters and leaves values at no cost,
// and makes a Path only of what it reports.
type Trail struct{ steps Path }

// NewTrail returns the trail that descends through the named map keys, one step a key.
func NewTrail(keys ...string) *Trail { return &Trail{steps: NewPath(keys...)} }

// EnterKey descends to the value of a map's key. Leave ends it.
func (t *Trail) EnterKey(key string) { t.steps = append(t.steps, Step{Key: key, Index: -1}) }

// EnterIndex descends to an item of a list. Leave ends it.
func (t *Trail) EnterIndex(i int) { t.steps = append(t.steps, Step{Index: i}) }

// Leave ascends to the value that contains this one.
func (t *Trail) Leave() { t.steps = t.steps[:len(t.steps)-1] }

// Path returns the trail as a path, which later steps do not change.
func (t *Trail) Path() Path { return slices.Clone(t.steps) }
