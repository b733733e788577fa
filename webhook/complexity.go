package webhook

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/flux-admission/flux-admission/validators"
)

// Estimated memory of a JSON text that is decoded into maps and copied once by rules, in bytes. The factors are measured: a
// small map takes some 340 bytes, whatever the length of its text.
const (
	mapSize   = 2 * 340
	arraySize = 2 * 40
	itemSize  = 2 * 24
	byteSize  = 2
)

// Depths of keys in an AdmissionReview: request, its object or oldObject, the object's fields, their fields.
const (
	depthRequest = 1 + iota
	depthObject
	depthField
	depthSubfield
)

// minRemovable is the estimated memory below which a value is not worth removing, in bytes. It bounds the number of spans.
const minRemovable = 64 << 10

// A span is a value in the text of an AdmissionReview.
type span struct {
	// path is the value's path in the object.
	path validators.Path
	// start and end limit the value in the text, in bytes; size is its estimated memory.
	start, end int
	size       int64
}

// measure estimates the memory of an AdmissionReview that is decoded, in bytes, after it has blanked the managed fields of
// its objects, which no rule reads. It also returns the maps and arrays that can be blanked when that is too much: fields of
// spec, and fields of the object other than metadata and spec. Text within strings does not count as structure.
func measure(body []byte) (int64, []span) {
	var (
		size  int64
		spans []span
		keys  [depthSubfield + 1][]byte
		open  [depthSubfield + 1]span // the value of each key
		depth int
	)
	isObject := func() bool {
		return string(keys[depthRequest]) == "request" &&
			(string(keys[depthObject]) == "object" || string(keys[depthObject]) == "oldObject")
	}
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '"':
			end := stringEnd(body, i)
			if depth >= depthRequest && depth <= depthSubfield && isKey(body, end) {
				keys[depth] = body[i+1 : end-1]
			}
			size += int64(end-i) * byteSize
			i = end - 1
		case '{', '[':
			if depth < len(open) {
				open[depth] = span{start: i, size: size}
			}
			depth++
			size += byteSize
			if body[i] == '{' {
				size += mapSize
			} else {
				size += arraySize
				if depth <= depthSubfield {
					keys[depth] = nil // its items have no keys
				}
			}
		case '}', ']':
			size += byteSize
			if depth--; depth < 0 {
				return size, nil // not JSON, which the decoder reports
			}
			if depth != depthField && depth != depthSubfield || !isObject() {
				continue
			}
			s := open[depth]
			s.end, s.size = i+1, size-s.size
			if depth == depthSubfield && string(keys[depthField]) == "metadata" {
				if string(keys[depthSubfield]) == "managedFields" && blank(body, s) {
					size -= s.size
				}
				continue
			}
			if s.size < minRemovable {
				continue
			}
			switch {
			case depth == depthSubfield && string(keys[depthField]) == "spec":
				s.path = validators.NewPath("spec", string(keys[depthSubfield]))
			case depth == depthField && string(keys[depthField]) != "spec" && string(keys[depthField]) != "metadata":
				s.path = validators.NewPath(string(keys[depthField]))
			default:
				continue
			}
			spans = append(spans, s)
		case ',':
			size += itemSize + byteSize
		default:
			size += byteSize
		}
	}
	return size, spans
}

// reduce blanks the largest of the spans until the estimated size is at most the limit. It returns the size and the paths of
// what it blanked.
func reduce(body []byte, size int64, spans []span, limit int64) (int64, []validators.Path) {
	slices.SortStableFunc(spans, func(a, b span) int { return cmp.Compare(b.size, a.size) })
	var blanked []validators.Path
	for _, s := range spans {
		if size <= limit {
			break
		}
		if blank(body, s) {
			size -= s.size
			if !slices.ContainsFunc(blanked, func(p validators.Path) bool { return slices.Equal(p, s.path) }) {
				blanked = append(blanked, s.path)
			}
		}
	}
	return size, blanked
}

// blank replaces a value by null, in place. It reports whether the value is long enough for that.
func blank(body []byte, s span) bool {
	const null = "null"
	value := body[s.start:s.end]
	if len(value) < len(null) {
		return false
	}
	for i := copy(value, null); i < len(value); i++ {
		value[i] = ' '
	}
	return true
}

// stringEnd returns the index after the string that starts at i; the length of the text if the string does not end.
func stringEnd(body []byte, i int) int {
	for i++; i < len(body); {
		next := bytes.IndexByte(body[i:], '"')
		if next < 0 {
			return len(body)
		}
		i += next
		escapes := 0
		for body[i-1-escapes] == '\\' {
			escapes++
		}
		i++
		if escapes%2 == 0 {
			return i
		}
	}
	return len(body)
}

// isKey reports whether a colon follows at i.
func isKey(body []byte, i int) bool {
	for ; i < len(body); i++ {
		switch body[i] {
		case ' ', '\t', '\r', '\n':
		default:
			return body[i] == ':'
		}
	}
	return false
}

// errTooComplex explains that parts of an object were not decoded.
type errTooComplex struct{ paths []validators.Path }

func (e errTooComplex) Error() string {
	if len(e.paths) == 0 {
		return "the object is too complex"
	}
	names := make([]string, 0, len(e.paths))
	for _, p := range e.paths {
		names = append(names, p.String())
	}
	return fmt.Sprintf("the object is too complex: %s was not evaluated", strings.Join(names, ", "))
}
