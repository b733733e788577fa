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
	"strings"

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
	want, err := patched(docs, document, e)
	if err != nil {
		return nil, err
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
	got, err := parse(out)
	if err != nil {
		return nil, fmt.Errorf("%s: it cannot be edited where it stands", e.Path)
	}
	if values, err := valuesOf(got); err != nil || !reflect.DeepEqual(values, want) {
		return nil, fmt.Errorf("%s: an edit in this place would change something else as well", e.Path)
	}
	return out, nil
}

// parse returns the documents that are not empty.
func parse(data []byte) ([]*yaml.Node, error) {
	var out []*yaml.Node
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		n := &yaml.Node{}
		if err := dec.Decode(n); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("the file does not parse: %w", err)
		}
		if len(n.Content) == 1 && (n.Content[0].Kind != yaml.ScalarNode || n.Content[0].Value != "") {
			out = append(out, n)
		}
	}
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
	if err := n.Decode(&v); err != nil {
		return nil, errors.New("the file cannot be read as values")
	}
	return throughJSON(v)
}

func throughJSON(v any) (any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, errors.New("the file has keys that are no text")
	}
	var out any
	return out, json.Unmarshal(data, &out)
}

// patched returns what the documents mean once the edit is made.
func patched(docs []*yaml.Node, document int, e validators.Edit) ([]any, error) {
	values, err := valuesOf(docs)
	if err != nil {
		return nil, err
	}
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
	values[document] = nil
	return values, json.Unmarshal(data, &values[document])
}

// text is a file's text with the offset of each line.
type text struct {
	data     []byte
	lines    []int
	document int
}

func lineStarts(data []byte) []int {
	out := []int{0}
	for i, b := range data {
		if b == '\n' {
			out = append(out, i+1)
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
		_, size := decodeRune(t.data[at:])
		at += size
	}
	return at
}

// newline is the line end that the file uses.
func (t *text) newline() string {
	if bytes.Contains(t.data, []byte("\r\n")) {
		return "\r\n"
	}
	return "\n"
}

func (t *text) splice(from, to int, with string) []byte {
	out := make([]byte, 0, len(t.data)+len(with))
	out = append(out, t.data[:from]...)
	out = append(out, with...)
	return append(out, t.data[to:]...)
}
