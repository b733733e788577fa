package sourcetree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

// Parsed is a YAML (or JSON) file after parsing.
type Parsed struct {
	// Documents are the documents that are not empty, as document nodes.
	Documents []*yaml.Node
	// Problems are what is wrong with the text: duplicate keys, or the error that ended parsing, which is the last one.
	Problems []*validators.Problem

	limit  *limitError // the limit that the file exceeds
	broken bool        // parsing ended with an error
}

// Refused returns the limit that the file exceeds, as a reason not to pass it to kustomize; empty when it exceeds none.
func (p *Parsed) Refused() string {
	if p.limit == nil {
		return ""
	}
	return p.limit.reason
}

// Failure returns the problem that kept the file from being parsed to its end; nil when there was none.
func (p *Parsed) Failure() *validators.Problem {
	if !p.broken && p.limit == nil {
		return nil
	}
	return p.Problems[len(p.Problems)-1]
}

// First returns the first document; nil when there is none.
func (p *Parsed) First() *yaml.Node {
	if len(p.Documents) == 0 {
		return nil
	}
	return p.Documents[0]
}

// parse parses a YAML stream up to its first error. Name is the file's name in positions.
func parse(data []byte, name string, limits Limits) *Parsed {
	d := &Parsed{}
	if i := bytes.IndexByte(data, 0); i >= 0 && !hasUTF16Mark(data) {
		d.fail(name, data, 1+bytes.Count(data[:i], []byte("\n")), "the file is binary, not YAML")
		return d
	}
	if !hasUTF16Mark(data) && !utf8.Valid(data) {
		d.fail(name, data, invalidUTF8Line(data), "the text is not UTF-8")
		return d
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	budget := limits.Nodes
	for {
		var n yaml.Node
		err := decodeNode(dec, &n)
		if errors.Is(err, io.EOF) {
			return d
		}
		if err != nil {
			line, text := SplitYAMLError(err)
			line = min(line, bytes.Count(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))+1) // the end of the text has no line of its own
			if strings.HasPrefix(text, cannotStart) && indentedWithTab(data, line) {
				text = "the line is indented with a tab, and YAML allows only spaces"
			}
			d.fail(name, data, line, "YAML does not parse: "+text)
			if m := unknownAnchor.FindStringSubmatch(text); m != nil && line == 0 {
				at := &d.Problems[len(d.Problems)-1].Position
				at.Line, at.Column = aliasPosition(data, m[1])
			}
			return d
		}
		c := checker{limits: limits, sizes: map[*yaml.Node]int{}, name: name, doc: d}
		size := c.walk(&n, 0)
		if a := c.foreign; a != nil && d.limit == nil {
			d.fail(name, data, a.Line, fmt.Sprintf("YAML does not parse: unknown anchor '%s' referenced: an anchor ends with its document", a.Value))
			d.Problems[len(d.Problems)-1].Position.Column = a.Column
			return d
		}
		if budget -= size; budget < 0 && d.limit == nil {
			d.limit = &limitError{fmt.Sprintf("its values are more than %d once its aliases are expanded", limits.Nodes)}
		}
		if d.limit != nil {
			d.Documents = nil
			d.Problems = []*validators.Problem{{Kind: validators.ProblemFileRefused, Diagnostic: validators.Diagnostic{
				Position: validators.Position{File: name}, Message: "the file was not read: " + d.limit.reason, Fix: refusedFix,
			}}}
			return d
		}
		if root := yamlposition.Root(&n); root != nil && (root.Kind != yaml.ScalarNode || root.Tag != "!!null") {
			d.Documents = append(d.Documents, &n)
		}
	}
}

// decodeNode returns a panic of the parser, which is known to panic on hostile input, as an error.
func decodeNode(dec *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: the parser failed: %v", r)
		}
	}()
	return dec.Decode(n)
}

func hasUTF16Mark(data []byte) bool {
	return bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff})
}

func invalidUTF8Line(data []byte) int {
	line := 1
	for len(data) > 0 {
		r, size := utf8.DecodeRune(data)
		if r == utf8.RuneError && size == 1 {
			return line
		}
		if r == '\n' {
			line++
		}
		data = data[size:]
	}
	return line
}

func (p *Parsed) fail(name string, data []byte, line int, message string) {
	p.broken = true
	at := validators.Position{File: name, Line: line}
	if line > 0 {
		at.Column = firstColumn(data, line)
	}
	p.Problems = append(p.Problems, &validators.Problem{Kind: validators.ProblemNotYAML, Diagnostic: validators.Diagnostic{Position: at, Message: message}})
}

// unknownAnchor matches the parser's error on an alias without an anchor, which names no line.
var unknownAnchor = regexp.MustCompile(`^unknown anchor '([^']+)' referenced`)

// aliasPosition returns the position of the first alias that no anchor of its document precedes; zeros if it finds none, as in a text that only looks
// like one.
func aliasPosition(data []byte, name string) (line, column int) {
	anchored := false
	for text := range bytes.Lines(data) {
		line++
		if bytes.HasPrefix(text, []byte("---")) {
			anchored = false
		}
		for i := range text {
			if text[i] != '*' && text[i] != '&' || !bytes.HasPrefix(text[i+1:], []byte(name)) {
				continue
			}
			end := i + 1 + len(name)
			if i > 0 && !strings.ContainsRune(" \t[{,", rune(text[i-1])) || end < len(text) && !strings.ContainsRune(" \t\r\n,]}", rune(text[end])) {
				continue
			}
			if text[i] == '*' && !anchored {
				return line, i + 1
			}
			anchored = true
		}
	}
	return 0, 0
}

// indentedWithTab reports whether a line begins with spaces and a tab.
func indentedWithTab(data []byte, line int) bool {
	n := 0
	for text := range bytes.Lines(data) {
		if n++; n == line {
			return bytes.HasPrefix(bytes.TrimLeft(text, " "), []byte("\t"))
		}
	}
	return false
}

// firstColumn returns the column of the first character of a line that is not a space: the parser's errors name only
// the line.
func firstColumn(data []byte, line int) int {
	for range line - 1 {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			return 1
		}
		data = data[i+1:]
	}
	return 1 + len(data) - len(bytes.TrimLeft(data, " \t"))
}

var yamlErrorLine = regexp.MustCompile(`line (\d+): `)

// yamlParserError matches errors of the parser, not of the scanner: go.yaml.in/yaml counts the parser's lines from 0,
// and leaves out line 0.
var yamlParserError = regexp.MustCompile(`did not find expected (node content|key|',' or|'-' indicator|<document start>)`)

// cannotStart is the scanner's error on a character, such as a tab in an indentation. In the first line it names no line.
const cannotStart = "found character that cannot start any token"

// SplitYAMLError splits an error of the YAML parser into its line (0 when it names none) and its text.
func SplitYAMLError(err error) (int, string) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	missing := 0
	if yamlParserError.MatchString(text) {
		missing = 1
	}
	m := yamlErrorLine.FindStringSubmatchIndex(text)
	if m == nil && strings.HasPrefix(text, cannotStart) {
		return 1, text
	}
	if m == nil {
		return missing, text
	}
	line, convErr := strconv.Atoi(text[m[2]:m[3]])
	if convErr != nil {
		return 0, text
	}
	return line + missing, text[:m[0]] + text[m[1]:]
}

// checker walks a document once: it counts values with aliases expanded, measures nesting and finds duplicate keys.
type checker struct {
	limits Limits
	sizes  map[*yaml.Node]int // of anchored nodes, with their aliases expanded; 0 while they are walked
	name   string
	doc    *Parsed
	// foreign is an alias of an anchor in another document, which the parser accepts and YAML does not.
	foreign *yaml.Node
}

func (c *checker) walk(n *yaml.Node, depth int) int {
	if c.doc.limit != nil {
		return 0
	}
	if depth > c.limits.Depth {
		c.doc.limit = &limitError{fmt.Sprintf("its values are nested more than %d deep, at line %d", c.limits.Depth, n.Line)}
		return 0
	}
	if n.Kind == yaml.AliasNode {
		size, seen := c.sizes[n.Alias]
		if !seen {
			if c.foreign == nil {
				c.foreign = n
			}
			return 1
		}
		if size == 0 {
			c.doc.limit = &limitError{fmt.Sprintf("the alias *%s at line %d contains itself", n.Value, n.Line)}
			return 0
		}
		return size
	}
	if n.Anchor != "" {
		c.sizes[n] = 0
	}
	size := 1
	for _, child := range n.Content {
		size = min(size+c.walk(child, depth+1), c.limits.Nodes+1)
	}
	if n.Kind == yaml.MappingNode {
		c.duplicates(n)
	}
	if n.Anchor != "" {
		c.sizes[n] = size
	}
	return size
}

func (c *checker) duplicates(n *yaml.Node) {
	first := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
			continue
		}
		was, dup := first[key.Value]
		if !dup {
			first[key.Value] = key
			continue
		}
		c.doc.Problems = append(c.doc.Problems, &validators.Problem{Kind: validators.ProblemDuplicateKey, Name: key.Value, Diagnostic: validators.Diagnostic{
			Position: c.position(key), Related: []validators.Position{c.position(was)},
			Message: fmt.Sprintf("duplicate key %q; first defined at line %d", key.Value, was.Line),
		}})
	}
}

func (c *checker) position(n *yaml.Node) validators.Position {
	return validators.Position{File: c.name, Line: n.Line, Column: n.Column}
}
