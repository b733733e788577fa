package fix

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

var (
	errShared      = errors.New("value is shared by a YAML anchor; edit it manually")
	errUnsupported = errors.New("YAML at this position cannot be edited; edit it manually")
)

// field is an entry of a mapping.
type field struct {
	parent, key, value *yaml.Node
	index              int // of the key in the parent's content
}

// find returns the node at a path, and its field if its parent is a mapping. It does not follow aliases, since an edit would change all of them.
func find(root *yaml.Node, path validators.Path) (*yaml.Node, *field, error) {
	n := root
	var last *field
	for _, step := range path {
		last = nil
		switch {
		case n.Kind == yaml.AliasNode:
			return nil, nil, errShared
		case step.IsIndex():
			if n.Kind != yaml.SequenceNode || step.Index >= len(n.Content) {
				return nil, nil, errUnsupported
			}
			n = n.Content[step.Index]
		case n.Kind != yaml.MappingNode:
			return nil, nil, errUnsupported
		default:
			f := fieldOf(n, step.Key)
			if f == nil {
				return nil, nil, errUnsupported
			}
			n, last = f.value, f
		}
	}
	if n.Kind == yaml.AliasNode {
		return nil, nil, errShared
	}
	return n, last, nil
}

func fieldOf(m *yaml.Node, key string) *field {
	i := yamlposition.KeyIndex(m, key)
	if i < 0 {
		return nil
	}
	return &field{m, m.Content[i], m.Content[i+1], i}
}

// replace replaces a scalar.
func (t *text) replace(root *yaml.Node, e validators.Edit) ([]byte, error) {
	n, parent, err := find(root, e.Path)
	if err != nil {
		return nil, err
	}
	if n.Anchor != "" {
		return nil, errShared
	}
	from, to, err := t.scalar(n)
	if err != nil {
		return nil, err
	}
	with, err := format(e.Value, n.Style, parent != nil && parent.parent.Style&yaml.FlowStyle != 0)
	if err != nil {
		return nil, err
	}
	return t.splice(from, to, with), nil
}

// scalar returns the start and end offset of a scalar on one line.
func (t *text) scalar(n *yaml.Node) (from, to int, err error) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" && n.Value == "" {
		return 0, 0, errUnsupported
	}
	from = t.offset(n)
	rest := t.line(n.Line)
	rest = rest[min(len(rest), from-t.start(n.Line)):]
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		to = closing(rest, '"', '\\')
	case n.Style&yaml.SingleQuotedStyle != 0:
		to = closing(rest, '\'', '\'')
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) == 0 && strings.HasPrefix(rest, n.Value):
		to = len(n.Value)
	default:
		to = -1
	}
	if to < 0 {
		return 0, 0, errors.New("value has several lines; edit it manually")
	}
	return from, from + to, nil
}

// closing returns the length of a quoted text; -1 if the closing quote is missing.
func closing(text string, quote, escape byte) int {
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == escape && i+1 < len(text) && (escape == '\\' || text[i+1] == quote):
			i++
		case text[i] == quote:
			return i + 1
		}
	}
	return -1
}

// format returns a value as YAML text of one line, in the given style if possible. In a flow collection, some characters need quotes.
func format(value any, style yaml.Style, flow bool) (string, error) {
	s, isString := value.(string)
	switch {
	case isString && (style&yaml.DoubleQuotedStyle != 0 || flow && style&yaml.SingleQuotedStyle == 0 && strings.ContainsAny(s, ",[]{}")):
		return quoted(s)
	case isString && style&yaml.SingleQuotedStyle != 0 && !strings.ContainsAny(s, "\r\n\t"):
		return "'" + strings.ReplaceAll(s, "'", "''") + "'", nil
	}
	n := &yaml.Node{}
	if err := n.Encode(value); err != nil {
		return "", fmt.Errorf("encoding the new value: %w", err)
	}
	n.Style |= yaml.FlowStyle
	data, err := yaml.Marshal(n)
	out := strings.TrimSuffix(string(data), "\n")
	if err != nil || strings.Contains(out, "\n") {
		return quoted(value)
	}
	return out, nil
}

// quoted returns a value as JSON, which is valid YAML.
func quoted(value any) (string, error) {
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return "", fmt.Errorf("encoding the new value: %w", err)
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

// add adds an entry at the end of a mapping.
func (t *text) add(root *yaml.Node, e validators.Edit) ([]byte, error) {
	last := e.Path[len(e.Path)-1]
	m, _, err := find(root, e.Path[:len(e.Path)-1])
	if err != nil {
		return nil, err
	}
	if last.IsIndex() || m.Kind != yaml.MappingNode {
		return nil, errUnsupported
	}
	if fieldOf(m, last.Key) != nil {
		return t.replace(root, e) // as JSON Patch does
	}
	flow := m.Style&yaml.FlowStyle != 0
	if flow && len(m.Content) > 0 && m.Content[0].Style&yaml.DoubleQuotedStyle != 0 {
		return t.addJSON(m, last.Key, e.Value)
	}
	key, err := format(last.Key, 0, flow)
	if err != nil {
		return nil, err
	}
	value, err := format(e.Value, 0, flow)
	if err != nil {
		return nil, err
	}
	return t.insert(m, key+": "+value)
}

// addJSON adds an entry in JSON syntax to a mapping in JSON syntax, since the file may be JSON.
func (t *text) addJSON(m *yaml.Node, key string, value any) ([]byte, error) {
	k, err := quoted(key)
	if err != nil {
		return nil, err
	}
	v, err := quoted(value)
	if err != nil {
		return nil, err
	}
	return t.insert(m, k+": "+v)
}

// insert inserts lines, the first without indentation, after the last entry of a mapping.
func (t *text) insert(m *yaml.Node, entry string) ([]byte, error) {
	if m.Style&yaml.FlowStyle != 0 {
		return t.insertFlow(m, entry)
	}
	if len(m.Content) == 0 {
		return nil, errUnsupported
	}
	first, last := m.Content[0], m.Content[len(m.Content)-2]
	if last.Column != first.Column {
		return nil, errUnsupported
	}
	end := t.blockEnd(last, m.Content[len(m.Content)-1])
	at := t.start(end + 1)
	indent := strings.Repeat(" ", first.Column-1)
	nl := t.newline(end)
	lines := indent + strings.ReplaceAll(entry, "\n", nl) + nl
	if at == len(t.data) && at > 0 && t.data[at-1] != '\n' {
		lines = nl + strings.TrimSuffix(lines, nl)
	}
	return t.splice(at, at, lines), nil
}

// insertFlow inserts an entry of one line after the last entry of a flow mapping, on its own line if the last entry has one.
func (t *text) insertFlow(m *yaml.Node, entry string) ([]byte, error) {
	end := t.flowEnd(m)
	if end < 0 || strings.Contains(entry, "\n") {
		return nil, errUnsupported
	}
	at := len(bytes.TrimRight(t.data[:end-1], " \t\r\n"))
	if len(m.Content) == 0 {
		return t.splice(at, at, entry), nil
	}
	last := m.Content[len(m.Content)-2]
	before := string(t.data[t.start(last.Line):t.offset(last)])
	gap := " "
	if strings.TrimSpace(before) == "" {
		gap = t.newline(last.Line) + before
	}
	if t.data[at-1] == ',' {
		return t.splice(at, at, gap+entry+","), nil
	}
	return t.splice(at, at, ","+gap+entry), nil
}

// blockEnd returns the last line of an entry of a block mapping, without the comments and empty lines before the next entry.
func (t *text) blockEnd(key, value *yaml.Node) int {
	end := key.Line
	if value.Kind != yaml.AliasNode && value.Style&yaml.FlowStyle != 0 {
		if behind := t.flowEnd(value); behind > 0 {
			end = t.lineAt(behind - 1) // the closing bracket may be on a later line
		}
	}
	for n := end + 1; n <= len(t.lines); n++ {
		line := t.line(n)
		trimmed := strings.TrimLeft(line, " ")
		indent := len(line) - len(trimmed)
		switch {
		case strings.TrimSpace(line) == "":
			continue // part of the block only if the block continues
		case indent >= key.Column:
		case indent == key.Column-1 && value.Kind == yaml.SequenceNode && value.Style&yaml.FlowStyle == 0 && (strings.HasPrefix(trimmed, "- ") || trimmed == "-"):
		case strings.HasPrefix(trimmed, "#"):
			continue
		default:
			return end
		}
		end = n
	}
	return end
}

// lineAt returns the line of an offset.
func (t *text) lineAt(offset int) int {
	n, found := slices.BinarySearch(t.lines, offset)
	if found {
		return n + 1
	}
	return n
}

// flowEnd returns the offset after the closing bracket of a flow collection; -1 if there is none.
func (t *text) flowEnd(n *yaml.Node) int {
	depth := 0
	for i := t.offset(n); i < len(t.data); i++ {
		switch c := t.data[i]; c {
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		case '"', '\'':
			if i == 0 || !strings.ContainsRune(" \t\r\n,[{:", rune(t.data[i-1])) {
				continue // an apostrophe in a plain scalar
			}
			escape := byte('\\')
			if c == '\'' {
				escape = c
			}
			length := closing(string(t.data[i:]), c, escape)
			if length < 0 {
				return -1
			}
			i += length - 1
		case '#':
			if i > 0 && (t.data[i-1] == ' ' || t.data[i-1] == '\t' || t.data[i-1] == '\n') {
				for i+1 < len(t.data) && t.data[i+1] != '\n' {
					i++
				}
			}
		}
	}
	return -1
}

// remove removes an entry from a mapping. If it is the only entry, the mapping becomes empty.
func (t *text) remove(root *yaml.Node, path validators.Path) ([]byte, error) {
	_, f, err := find(root, path)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return nil, errUnsupported
	}
	if hasAnchor(f.value) {
		return nil, errShared
	}
	if f.parent.Style&yaml.FlowStyle != 0 {
		return t.removeFlow(f)
	}
	end := t.blockEnd(f.key, f.value)
	from, to := t.start(f.key.Line), t.start(end+1)
	indentation := string(t.data[from:t.offset(f.key)])
	if len(f.parent.Content) == 2 {
		return t.emptied(root, path, to)
	}
	if strings.TrimSpace(indentation) == "" {
		return t.splice(from, to, ""), nil
	}
	if f.index+2 >= len(f.parent.Content) {
		return nil, errUnsupported
	}
	// The entry follows the dash of a sequence item; the next entry takes its position.
	next := f.parent.Content[f.index+2]
	return t.splice(t.offset(f.key), t.offset(next), ""), nil
}

// emptied removes the only entry of a block mapping, which must be the value of an entry.
func (t *text) emptied(root *yaml.Node, path validators.Path, to int) ([]byte, error) {
	_, parent, err := find(root, path[:len(path)-1])
	if err != nil {
		return nil, err
	}
	if parent == nil || parent.value.Line == parent.key.Line {
		return nil, errUnsupported
	}
	line := t.line(parent.key.Line)
	at := t.start(parent.key.Line) + strings.LastIndex(line, ":")
	if code, _, ok := strings.Cut(line, " #"); ok {
		at = t.start(parent.key.Line) + strings.LastIndex(code, ":")
	}
	head := string(t.data[at+1 : t.start(parent.key.Line+1)])
	return t.splice(at+1, to, " {}"+head), nil
}

func (t *text) removeFlow(f *field) ([]byte, error) {
	from := t.offset(f.key)
	if f.index+2 < len(f.parent.Content) {
		return t.splice(from, t.offset(f.parent.Content[f.index+2]), ""), nil
	}
	end := t.flowEnd(f.parent)
	if end < 0 {
		return nil, errUnsupported
	}
	// Remove the comma before the last entry, too.
	for from > 0 && strings.ContainsRune(" \t\r\n,", rune(t.data[from-1])) && f.index > 0 {
		from--
	}
	return t.splice(from, end-1, ""), nil
}

// move renames a key, or moves its entry to the end of another mapping.
func (t *text) move(root *yaml.Node, e validators.Edit) ([]byte, error) {
	_, f, err := find(root, e.From)
	if err != nil {
		return nil, err
	}
	to := e.Path[len(e.Path)-1]
	if f == nil || to.IsIndex() {
		return nil, errUnsupported
	}
	key, err := format(to.Key, f.key.Style, f.parent.Style&yaml.FlowStyle != 0)
	if err != nil {
		return nil, err
	}
	from, end, err := t.scalar(f.key)
	if err != nil {
		return nil, err
	}
	if e.From[:len(e.From)-1].String() == e.Path[:len(e.Path)-1].String() {
		return t.splice(from, end, key), nil
	}
	target, _, err := find(root, e.Path[:len(e.Path)-1])
	if err != nil {
		return nil, err
	}
	if f.parent.Style&yaml.FlowStyle != 0 || target.Style&yaml.FlowStyle != 0 || target.Kind != yaml.MappingNode || len(target.Content) == 0 {
		return nil, errors.New("entry cannot be moved; move it manually")
	}
	block := string(t.data[end:t.start(t.blockEnd(f.key, f.value)+1)])
	block = strings.TrimRight(strings.ReplaceAll(block, "\r\n", "\n"), "\n")
	shift := target.Content[0].Column - f.key.Column
	if shift > 0 && deeper(block, target.Content[0].Column) {
		shift = 0 // the following lines are indented enough
	}
	entry := key + indented(block, shift)
	without, err := t.remove(root, e.From)
	if err != nil {
		return nil, err
	}
	docs, err := parse(without)
	if err != nil || t.document >= len(docs) {
		return nil, errUnsupported
	}
	m, _, err := find(docs[t.document].Content[0], e.Path[:len(e.Path)-1])
	if err != nil || m.Kind != yaml.MappingNode || len(m.Content) == 0 {
		return nil, errUnsupported
	}
	left := &text{data: without, lines: lineStarts(without), document: t.document}
	return left.insert(m, entry)
}

// indented changes the indentation of all lines but the first by a number of spaces.
func indented(block string, by int) string {
	lines := strings.Split(block, "\n")
	for i := 1; i < len(lines); i++ {
		switch indent := len(lines[i]) - len(strings.TrimLeft(lines[i], " ")); {
		case strings.TrimSpace(lines[i]) == "":
		case by >= 0:
			lines[i] = strings.Repeat(" ", by) + lines[i]
		default:
			lines[i] = lines[i][min(-by, indent):]
		}
	}
	return strings.Join(lines, "\n")
}

// deeper reports whether all lines of a block but the first start after a column.
func deeper(block string, column int) bool {
	for i, line := range strings.Split(block, "\n") {
		if i > 0 && strings.TrimSpace(line) != "" && len(line)-len(strings.TrimLeft(line, " ")) < column {
			return false
		}
	}
	return true
}

func hasAnchor(n *yaml.Node) bool {
	return n.Anchor != "" || slices.ContainsFunc(n.Content, hasAnchor)
}
