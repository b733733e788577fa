package webhook

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

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
	depthValue // of spec.values
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

// A part is a map or an array in the text of an object, which the stored object may have, too.
type part struct {
	// keys are the keys that lead to it, as they are written: of the object's field, of a field of that, and of a value in
	// spec.values. Those that it does not have are nil.
	keys       [3][]byte
	start, end int
}

// parts are those of both objects of an AdmissionReview, each after those that it contains.
type parts struct{ object, old []part }

// measure estimates the memory of an AdmissionReview that is decoded, in bytes, after it has blanked the managed fields of
// its objects, which no rule reads. It also returns the maps and arrays that can be blanked when that is too much: fields of
// spec, and fields of the object other than metadata and spec; and those that both objects may have. Text within strings does
// not count as structure.
func measure(body []byte) (int64, []span, parts) {
	var (
		size  int64
		spans []span
		both  parts
		keys  [depthValue + 1][]byte
		open  [depthValue + 1]span // the value of each key
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
			if depth >= depthRequest && depth <= depthValue && isKey(body, end) {
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
				if depth <= depthValue {
					keys[depth] = nil // its items have no keys
				}
			}
		case '}', ']':
			size += byteSize
			if depth--; depth < 0 {
				return size, nil, parts{} // not JSON, which the decoder reports
			}
			if depth < depthField || depth > depthValue || !isObject() {
				continue
			}
			s := open[depth]
			s.end, s.size = i+1, size-s.size
			if depth == depthSubfield && string(keys[depthField]) == "metadata" && string(keys[depthSubfield]) == "managedFields" && blank(body, s) {
				size -= s.size
				continue
			}
			both.add(&keys, depth, s)
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
	return size, spans, both
}

// The limits of parts: shorter ones are not worth comparing, and the number bounds the memory of the list.
const (
	minPart  = 64
	maxParts = 256
)

// add adds the value of the key at a depth.
func (p *parts) add(keys *[depthValue + 1][]byte, depth int, s span) {
	if s.end-s.start < minPart || depth == depthValue && (string(keys[depthField]) != "spec" || string(keys[depthSubfield]) != "values") {
		return
	}
	list := &p.object
	if string(keys[depthObject]) == "oldObject" {
		list = &p.old
	}
	if len(*list) == maxParts {
		return
	}
	if *list == nil {
		*list = make([]part, 0, 32)
	}
	out := part{start: s.start, end: s.end}
	copy(out.keys[:], keys[depthField:depth+1])
	for _, k := range out.keys[:depth-depthField+1] {
		if k == nil || bytes.IndexByte(k, '\\') >= 0 || !utf8.Valid(k) {
			return // an item of an array, or the decoded key is another one
		}
	}
	*list = append(*list, out)
}

// withoutEqual removes from the text of an AdmissionReview what the stored object has in common with the object: maps and arrays
// with the same text at the same path. It returns the text, which has null in their place, and the paths of what it removed. The
// decoder then reads it once: most updates change little, and decoding takes most of the time of a review.
func withoutEqual(body []byte, both parts) ([]byte, []validators.Path) {
	var equal []part
	for i := len(both.old) - 1; i >= 0; i-- { // a part comes before those that it contains
		old := &both.old[i]
		if len(equal) > 0 && old.start >= equal[len(equal)-1].start {
			continue // contained in the last one
		}
		for j := range both.object {
			o := &both.object[j]
			if o.end-o.start == old.end-old.start && o.sameKeys(old) {
				if bytes.Equal(body[o.start:o.end], body[old.start:old.end]) {
					equal = append(equal, *old)
				}
				break
			}
		}
	}
	if len(equal) == 0 {
		return body, nil
	}
	paths := make([]validators.Path, 0, len(equal))
	for _, p := range equal {
		paths = append(paths, p.path())
	}
	const null = "null"
	end := equal[len(equal)-1].start
	for i, p := range slices.Backward(equal) {
		next := len(body)
		if i > 0 {
			next = equal[i-1].start
		}
		end += copy(body[end:], null)
		end += copy(body[end:], body[p.end:next])
	}
	return body[:end], paths
}

func (p *part) sameKeys(other *part) bool {
	for i := range p.keys {
		if (p.keys[i] == nil) != (other.keys[i] == nil) || !bytes.Equal(p.keys[i], other.keys[i]) {
			return false
		}
	}
	return true
}

func (p *part) path() validators.Path {
	var out validators.Path
	for _, k := range p.keys {
		if k != nil {
			out = append(out, validators.Step{Key: string(k), Index: -1})
		}
	}
	return out
}

// share sets in the stored object what withoutEqual removed, to the values of the object.
func share(req *request, paths []validators.Path) error {
	for _, path := range paths {
		v := path.Lookup(req.Object)
		parent, _ := path[:len(path)-1].Lookup(req.OldObject).(map[string]any)
		if v == nil || parent == nil {
			return errNoReview // with a key that is defined twice
		}
		parent[path[len(path)-1].Key] = v
	}
	return nil
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
