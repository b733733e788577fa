package fix

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/validators"
)

var (
	errShared  = errors.New("it is shared by a YAML anchor; edit it by hand")
	errNoPlace = errors.New("it cannot be edited where it stands")
)

// field is a key of a map with its value.
type field struct {
	parent, key, value *yaml.Node
	index              int // of the key in the parent's content
}

// find returns the node at a path; for the last step into a map, the field as well.
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
				return nil, nil, errNoPlace
			}
			n = n.Content[step.Index]
		case n.Kind != yaml.MappingNode:
			return nil, nil, errNoPlace
		default:
			f := fieldOf(n, step.Key)
			if f == nil {
				return nil, nil, errNoPlace
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
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return &field{m, m.Content[i], m.Content[i+1], i}
		}
	}
	return nil
}

// replace writes another scalar in the place of one.
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
	with, err := written(e.Value, n.Style, parent != nil && parent.parent.Style&yaml.FlowStyle != 0)
	if err != nil {
		return nil, err
	}
	return t.splice(from, to, with), nil
}

// scalar returns where the text of a scalar on one line begins and ends.
func (t *text) scalar(n *yaml.Node) (from, to int, err error) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" && n.Value == "" {
		return 0, 0, errNoPlace
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
		return 0, 0, errors.New("its value is written over several lines; edit it by hand")
	}
	return from, from + to, nil
}

// closing returns the length of a quoted text; -1 when it does not end.
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

// written returns a value as YAML text of one line, in the style where it fits. In a flow collection some characters need quotes.
func written(value any, style yaml.Style, flow bool) (string, error) {
	s, isString := value.(string)
	switch {
	case isString && (style&yaml.DoubleQuotedStyle != 0 || flow && style&yaml.SingleQuotedStyle == 0 && strings.ContainsAny(s, ",[]{}")):
		return quoted(s)
	case isString && style&yaml.SingleQuotedStyle != 0 && !strings.ContainsAny(s, "\r\n\t"):
		return "'" + strings.ReplaceAll(s, "'", "''") + "'", nil
	}
	n := &yaml.Node{}
	if err := n.Encode(value); err != nil {
		return "", fmt.Errorf("the new value cannot be written: %w", err)
	}
	n.Style |= yaml.FlowStyle
	data, err := yaml.Marshal(n)
	out := strings.TrimSuffix(string(data), "\n")
	if err != nil || strings.Contains(out, "\n") {
		return quoted(value)
	}
	return out, nil
}

// quoted returns a value as JSON, which is YAML too.
func quoted(value any) (string, error) {
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return "", fmt.Errorf("the new value cannot be written: %w", err)
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

// add writes a new key behind the others of a map.
func (t *text) add(root *yaml.Node, e validators.Edit) ([]byte, error) {
	last := e.Path[len(e.Path)-1]
	m, _, err := find(root, e.Path[:len(e.Path)-1])
	if err != nil {
		return nil, err
	}
	if last.IsIndex() || m.Kind != yaml.MappingNode {
		return nil, errNoPlace
	}
	if fieldOf(m, last.Key) != nil {
		return t.replace(root, e) // as JSON Patch has it
	}
	flow := m.Style&yaml.FlowStyle != 0
	if flow && len(m.Content) > 0 && m.Content[0].Style&yaml.DoubleQuotedStyle != 0 {
		return t.addJSON(m, last.Key, e.Value)
	}
	key, err := written(last.Key, 0, flow)
	if err != nil {
		return nil, err
	}
	value, err := written(e.Value, 0, flow)
	if err != nil {
		return nil, err
	}
	return t.insert(m, key+": "+value)
}

// addJSON adds a key where the others look like JSON: the file may be read as that.
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

// insert writes lines, the first without indentation, behind the last key of a map.
func (t *text) insert(m *yaml.Node, entry string) ([]byte, error) {
	if m.Style&yaml.FlowStyle != 0 {
		return t.insertFlow(m, entry)
	}
	if len(m.Content) == 0 {
		return nil, errNoPlace
	}
	first, last := m.Content[0], m.Content[len(m.Content)-2]
	if last.Column != first.Column {
		return nil, errNoPlace
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

// insertFlow writes an entry of one line behind the last of a flow map; on a line of its own where the last has one.
func (t *text) insertFlow(m *yaml.Node, entry string) ([]byte, error) {
	end := t.flowEnd(m)
	if end < 0 || strings.Contains(entry, "\n") {
		return nil, errNoPlace
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

// blockEnd returns the last line of a key's block in a block map: without the comments and empty lines that belong to what follows.
func (t *text) blockEnd(key, value *yaml.Node) int {
	end := key.Line
	if value.Kind != yaml.AliasNode && value.Style&yaml.FlowStyle != 0 {
		if behind := t.flowEnd(value); behind > 0 {
			end = t.lineAt(behind - 1) // the closing bracket may stand below the key
		}
	}
	for n := end + 1; n <= len(t.lines); n++ {
		line := t.line(n)
		trimmed := strings.TrimLeft(line, " ")
		indent := len(line) - len(trimmed)
		switch {
		case strings.TrimSpace(line) == "":
			continue // it counts when the block goes on behind it
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

// lineAt returns the number of the line that an offset is on.
func (t *text) lineAt(offset int) int {
	n, found := slices.BinarySearch(t.lines, offset)
	if found {
		return n + 1
	}
	return n
}

// flowEnd returns the offset behind the closing bracket of a flow collection; -1 when it is not found.
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
				continue // an apostrophe in a plain text
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

// remove takes a key out of a map. A map that has no other key becomes an empty one.
func (t *text) remove(root *yaml.Node, path validators.Path) ([]byte, error) {
	_, f, err := find(root, path)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return nil, errNoPlace
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
		return nil, errNoPlace
	}
	// The key stands behind a dash: the next key moves there.
	next := f.parent.Content[f.index+2]
	return t.splice(t.offset(f.key), t.offset(next), ""), nil
}

// emptied removes the only key of a block map, which is the value of a key itself.
func (t *text) emptied(root *yaml.Node, path validators.Path, to int) ([]byte, error) {
	_, parent, err := find(root, path[:len(path)-1])
	if err != nil {
		return nil, err
	}
	if parent == nil || parent.value.Line == parent.key.Line {
		return nil, errNoPlace
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
		return nil, errNoPlace
	}
	// The last key goes with the comma before it.
	for from > 0 && strings.ContainsRune(" \t\r\n,", rune(t.data[from-1])) && f.index > 0 {
		from--
	}
	return t.splice(from, end-1, ""), nil
}

// move renames a key where it stands, or takes its block to the end of another map.
func (t *text) move(root *yaml.Node, e validators.Edit) ([]byte, error) {
	_, f, err := find(root, e.From)
	if err != nil {
		return nil, err
	}
	to := e.Path[len(e.Path)-1]
	if f == nil || to.IsIndex() {
		return nil, errNoPlace
	}
	key, err := written(to.Key, f.key.Style, f.parent.Style&yaml.FlowStyle != 0)
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
		return nil, errors.New("its block cannot be moved; move it by hand")
	}
	block := string(t.data[end:t.start(t.blockEnd(f.key, f.value)+1)])
	block = strings.TrimRight(strings.ReplaceAll(block, "\r\n", "\n"), "\n")
	by := target.Content[0].Column - f.key.Column
	if by > 0 && deeper(block, target.Content[0].Column) {
		by = 0 // the lines below the key are right where they are
	}
	entry := key + shifted(block, by)
	without, err := t.remove(root, e.From)
	if err != nil {
		return nil, err
	}
	docs, err := parse(without)
	if err != nil || t.document >= len(docs) {
		return nil, errNoPlace
	}
	m, _, err := find(docs[t.document].Content[0], e.Path[:len(e.Path)-1])
	if err != nil || m.Kind != yaml.MappingNode || len(m.Content) == 0 {
		return nil, errNoPlace
	}
	left := &text{data: without, lines: lineStarts(without), document: t.document}
	return left.insert(m, entry)
}

// shifted moves the lines behind the first to the right, or to the left.
func shifted(block string, by int) string {
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

// deeper tells whether all lines of a block behind the first begin behind a column.
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
