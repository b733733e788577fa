// Package fix applies the edits that findings carry to the YAML files of a Git tree, and touches nothing else in them: comments, order, indentation, quotes
// and line ends stay as they are.
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
	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"github.com/flux-admission/flux-admission/validators"
)

// Apply returns the text of a YAML file with the edits applied, in their order, to one of its documents. Documents count from 0, without empty ones; within is
// where the edited object stands in its document, empty for the document itself.
//
// What the text means afterwards is compared with what the edits ask for; an error says what cannot be done, and the text is to be left alone then. Errors
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
		return nil, fmt.Errorf("the file has %d documents, and not number %d", len(docs), document)
	}
	if k := docs[document].Content[0].Kind; k != yaml.MappingNode && k != yaml.SequenceNode || len(e.Path) == 0 {
		return nil, errNoPlace
	}
	is, err := valuesOf(docs)
	if err != nil {
		return nil, err
	}
	want, err := patched(is, document, e)
	if err != nil {
		return nil, err
	}
	if reflect.DeepEqual(is, want) {
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
	if !bytes.HasSuffix(data, []byte("\n")) { // the last line has gone, and the one before ends the text
		out = bytes.TrimSuffix(bytes.TrimSuffix(out, []byte("\n")), []byte("\r"))
	}
	got, err := parse(out)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Path, errNoPlace)
	}
	if values, err := valuesOf(got); err != nil || !reflect.DeepEqual(values, want) {
		return nil, fmt.Errorf("%s: an edit in this place would change something else as well", e.Path)
	}
	return out, nil
}

// parse returns the documents that are not empty, counted as rendering counts them.
func parse(data []byte) ([]*yaml.Node, error) {
	if bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff}) {
		return nil, errors.New("the file is UTF-16; save it as UTF-8")
	}
	var out []*yaml.Node
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		n := &yaml.Node{}
		if err := decode(dec.Decode, n); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("the file does not parse: %w", err)
		}
		if len(n.Content) == 1 && (n.Content[0].Kind != yaml.ScalarNode || n.Content[0].Tag != "!!null") {
			out = append(out, n)
		}
	}
}

// decode turns a panic of the parser, which is known to have some on hostile input, into an error.
func decode(with func(any) error, into any) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the parser failed")
		}
	}()
	return with(into)
}

// valuesOf returns what documents mean, as JSON has it.
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
		return nil, errors.New("the file cannot be read as values; does it have a key twice?")
	}
	v, err := textKeys(v)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(v)
	if err != nil {
		return nil, errors.New("the file holds values that JSON does not have")
	}
	return fromJSON(data)
}

// textKeys makes texts of the keys that are numbers or the like, as Kubernetes does.
func textKeys(v any) (any, error) {
	var err error
	switch t := v.(type) {
	case []any:
		for i := range t {
			if t[i], err = textKeys(t[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for k := range t {
			if t[k], err = textKeys(t[k]); err != nil {
				return nil, err
			}
		}
	case map[any]any:
		out := make(map[string]any, len(t))
		for k, value := range t {
			key := fmt.Sprint(k)
			if _, twice := out[key]; twice {
				return nil, errors.New("the file has a key twice, as a text and as a number")
			}
			if out[key], err = textKeys(value); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return v, nil
}

// fromJSON keeps the digits of numbers: a large one must not be taken for another.
func fromJSON(data []byte) (out any, err error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	return out, dec.Decode(&out)
}

// patched returns what the documents mean once the edit is made.
func patched(values []any, document int, e validators.Edit) ([]any, error) {
	ops, err := validators.JSONPatch([]validators.Edit{e})
	if err != nil {
		return nil, err
	}
	patch, err := jsonpatch.DecodePatch(ops)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Path, err)
	}
	data, err := json.Marshal(values[document])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Path, err)
	}
	if data, err = patch.Apply(data); err != nil {
		return nil, fmt.Errorf("%s: the file does not have what is to be changed", e.Path)
	}
	out := slices.Clone(values)
	out[document], err = fromJSON(data)
	return out, err
}

// text is a file's text with the offset of each line.
type text struct {
	data     []byte
	lines    []int
	document int
}

// byteOrderMark may stand at the beginning of a file; the parser does not count it.
var byteOrderMark = []byte("\xef\xbb\xbf")

// lineStarts returns the offsets of lines, as YAML counts them: Unicode has more line ends than \n.
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

// line returns a line without its end; lines count from 1.
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

// offset returns where a node begins. The parser counts columns in characters.
func (t *text) offset(n *yaml.Node) int {
	at := t.start(n.Line)
	for range n.Column - 1 {
		_, size := utf8.DecodeRune(t.data[at:])
		at += size
	}
	return at
}

// newline is the line end of a line, or of the one before when it has none.
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
