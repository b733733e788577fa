// Package fix applies the edits of findings to the YAML files of a Git tree. It changes nothing else: comments, order, indentation, quotes and line
// endings are preserved.
package fix

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/validators"
)

// Apply returns the text of a YAML file with the edits applied in order to one of its documents. Documents are counted from 0, without empty ones.
// Within is the path of the edited object in its document, empty for the document itself.
//
// Apply decodes the result and compares it with the expected values. It returns an error if it cannot make an edit or if the result differs. Errors
// quote no values.
func Apply(data []byte, document int, within validators.Path, edits []validators.Edit) ([]byte, error) {
	out := data
	for _, e := range edits {
		e.Path = join(within, e.Path)
		if e.Op == validators.EditMove {
			e.From = join(within, e.From)
		}
		next, err := apply(out, document, e)
		if err != nil {
			return nil, err
		}
		out = next
	}
	return out, nil
}

func join(a, b validators.Path) validators.Path { return append(append(validators.Path{}, a...), b...) }

func apply(data []byte, document int, e validators.Edit) ([]byte, error) {
	docs, err := parse(data)
	if err != nil {
		return nil, err
	}
	if document < 0 || document >= len(docs) {
		return nil, fmt.Errorf("document %d does not exist; the file has %d", document, len(docs))
	}
	if k := docs[document].Content[0].Kind; k != yaml.MappingNode && k != yaml.SequenceNode || len(e.Path) == 0 {
		return nil, errUnsupported
	}
	before, err := valuesOf(docs)
	if err != nil {
		return nil, err
	}
	want, err := patched(before, document, e)
	if err != nil {
		return nil, err
	}
	if reflect.DeepEqual(before, want) {
		return data, nil
	}
	t := &text{data: data, lines: lineStarts(data), document: document}
	root := docs[document].Content[0]
	var out []byte
	switch e.Op {
	case validators.EditReplace:
		out, err = t.replace(root, e)
	case validators.EditAdd:
		out, err = t.add(root, e)
	case validators.EditRemove:
		out, err = t.remove(root, e.Path)
	case validators.EditMove:
		out, err = t.move(root, e)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Path, err)
	}
	if !bytes.HasSuffix(data, []byte("\n")) { // the last line was removed, and the line before is now the end of the text
		out = bytes.TrimSuffix(bytes.TrimSuffix(out, []byte("\n")), []byte("\r"))
	}
	got, err := parse(out)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Path, errUnsupported)
	}
	if values, err := valuesOf(got); err != nil || !reflect.DeepEqual(values, want) {
		return nil, fmt.Errorf("%s: the edit would change other values, too", e.Path)
	}
	return out, nil
}

// parse returns the documents that are not empty, as package kustomization counts them.
func parse(data []byte) ([]*yaml.Node, error) {
	if bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff}) {
		return nil, errors.New("the file is encoded in UTF-16; must be UTF-8")
	}
	var out []*yaml.Node
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		n := &yaml.Node{}
		if err := decode(dec.Decode, n); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("parsing the file: %w", err)
		}
		if len(n.Content) == 1 && (n.Content[0].Kind != yaml.ScalarNode || n.Content[0].Tag != "!!null") {
			out = append(out, n)
		}
	}
}

// decode returns a panic of the parser, which panics on some invalid inputs, as an error.
func decode(with func(any) error, into any) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the YAML parser panicked")
		}
	}()
	return with(into)
}

// valuesOf returns the values of the documents, decoded as JSON.
func valuesOf(docs []*yaml.Node) ([]any, error) {
	var out []any
	for _, d := range docs {
		v, err := valueOf(d)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func valueOf(n *yaml.Node) (any, error) {
	var v any
	if err := decode(n.Decode, &v); err != nil {
		return nil, errors.New("the file cannot be decoded; it may have duplicate keys")
	}
	v, err := stringKeys(v)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(v)
	if err != nil {
		return nil, errors.New("the file has values that JSON does not support")
	}
	return fromJSON(data)
}

// stringKeys converts keys of other types to strings, as Kubernetes does.
func stringKeys(v any) (any, error) {
	var err error
	switch t := v.(type) {
	case []any:
		for i := range t {
			if t[i], err = stringKeys(t[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for k := range t {
			if t[k], err = stringKeys(t[k]); err != nil {
				return nil, err
			}
		}
	case map[any]any:
		out := make(map[string]any, len(t))
		for k, value := range t {
			key := fmt.Sprint(k)
			if _, duplicate := out[key]; duplicate {
				return nil, errors.New("the file has a duplicate key, as a string and as a number")
			}
			if out[key], err = stringKeys(value); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return v, nil
}

// fromJSON decodes JSON. It keeps all digits of numbers, so that large numbers are compared exactly.
func fromJSON(data []byte) (out any, err error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	return out, dec.Decode(&out)
}

// patched returns the values of the documents after the edit.
func patched(values []any, document int, e validators.Edit) ([]any, error) {
	data, err := json.Marshal(values[document])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Path, err)
	}
	if data, err = validators.PatchJSON(data, []validators.Edit{e}); err != nil {
		return nil, fmt.Errorf("%s: field does not exist in the file", e.Path) // the error may quote a value
	}
	out := slices.Clone(values)
	out[document], err = fromJSON(data)
	return out, err
}

// text is the text of a file with the offset of each line.
type text struct {
	data     []byte
	lines    []int
	document int
}

// byteOrderMark may be at the start of a file; the parser does not count it.
var byteOrderMark = []byte("\xef\xbb\xbf")

// lineStarts returns the offsets of lines as YAML counts them, with the line endings of Unicode.
func lineStarts(data []byte) []int {
	out := []int{0}
	if bytes.HasPrefix(data, byteOrderMark) {
		out[0] = len(byteOrderMark)
	}
	for i := range data {
		switch rest := data[i:]; {
		case rest[0] == '\n', rest[0] == '\r' && !bytes.HasPrefix(rest, []byte("\r\n")):
			out = append(out, i+1)
		case bytes.HasPrefix(rest, []byte("\u0085")):
			out = append(out, i+2)
		case bytes.HasPrefix(rest, []byte("\u2028")), bytes.HasPrefix(rest, []byte("\u2029")):
			out = append(out, i+3)
		}
	}
	return out
}

// line returns a line without its line ending; lines are counted from 1.
func (t *text) line(n int) string {
	return strings.TrimRight(string(t.data[t.start(n):t.start(n+1)]), "\r\n")
}

// start returns the offset of a line, or of the end of the text.
func (t *text) start(n int) int {
	if n-1 >= len(t.lines) {
		return len(t.data)
	}
	return t.lines[n-1]
}

// offset returns the offset of a node. The parser counts columns in characters.
func (t *text) offset(n *yaml.Node) int {
	at := t.start(n.Line)
	for range n.Column - 1 {
		_, size := utf8.DecodeRune(t.data[at:])
		at += size
	}
	return at
}

// newline returns the line ending of a line, or of the previous line if the line has none.
func (t *text) newline(n int) string {
	for ; n > 0; n-- {
		switch line := t.data[t.start(n):t.start(n+1)]; {
		case bytes.HasSuffix(line, []byte("\r\n")):
			return "\r\n"
		case bytes.HasSuffix(line, []byte("\n")):
			return "\n"
		}
	}
	return "\n"
}

func (t *text) splice(from, to int, with string) []byte {
	out := make([]byte, 0, len(t.data)+len(with))
	out = append(out, t.data[:from]...)
	out = append(out, with...)
	return append(out, t.data[to:]...)
}
