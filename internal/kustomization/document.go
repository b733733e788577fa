package kustomization

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

// document is the parsed form of a YAML (or JSON) file.
type document struct {
	// docs are the documents that are not empty, each a mapping or something else at its root.
	docs []*yaml.Node
	// problems are what is wrong with the text: duplicate keys, or the error that ended parsing.
	problems []*Problem
	// refused says that the file breaks a limit; it is not to be given to kustomize.
	refused *refusedError
	// broken says that parsing ended with an error.
	broken bool
}

// document returns the parsed file. A file that cannot be read has no documents and a problem.
func (f *file) document() *document {
	f.parse.Do(func() {
		data, err := f.read()
		if err != nil {
			f.doc = &document{}
			if refused, ok := errors.AsType[*refusedError](err); ok {
				f.doc.refused = refused
			}
			f.doc.problems = []*Problem{{Kind: FileRefused, Position: f.tree.place(f.path, 0, 0), Message: fmt.Sprintf("the file was not read: %v", err)}}
			return
		}
		f.doc = parseYAML(data, f.tree.label+f.path, f.tree.limits)
	})
	return f.doc
}

// parseYAML parses a YAML stream as far as it goes and looks for what is wrong with it. Name is the file's, for places.
func parseYAML(data []byte, name string, limits Limits) *document {
	d := &document{}
	if i := bytes.IndexByte(data, 0); i >= 0 && !hasUTF16Mark(data) {
		d.fail(name, data, 1+bytes.Count(data[:i], []byte("\n")), NotYAML, "the file is binary, not YAML")
		return d
	}
	if !hasUTF16Mark(data) && !utf8.Valid(data) {
		d.fail(name, data, invalidUTF8Line(data), NotYAML, "the text is not UTF-8")
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
			line, text := yamlError(err)
			line = min(line, bytes.Count(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))+1) // the end of the text is on no line of its own
			d.fail(name, data, line, NotYAML, "YAML does not parse: "+text)
			return d
		}
		c := checker{limits: limits, sizes: map[*yaml.Node]int{}, name: name, doc: d}
		size := c.walk(&n, 0)
		if budget -= size; budget < 0 && d.refused == nil {
			d.refused = &refusedError{fmt.Sprintf("written out, its values are more than %d; YAML aliases multiply them", limits.Nodes)}
		}
		if d.refused != nil {
			d.docs = nil
			d.problems = []*Problem{{Kind: FileRefused, Position: Position{File: name}, Message: "the file was not read: " + d.refused.reason}}
			return d
		}
		if root := content(&n); root != nil && (root.Kind != yaml.ScalarNode || root.Tag != "!!null") {
			d.docs = append(d.docs, &n)
		}
	}
}

// decodeNode turns a panic of the parser, which is known to have some on hostile input, into an error.
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

func (d *document) fail(name string, data []byte, line int, kind ProblemKind, message string) {
	d.broken = true
	place := Position{File: name, Line: line}
	if line > 0 {
		place.Column = firstColumn(data, line)
	}
	d.problems = append(d.problems, &Problem{Kind: kind, Position: place, Message: message})
}

// firstColumn is the column of the first character of a line that is not a space: the parser's errors name only the line.
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

// yamlParserError matches what the parser says, and not the scanner: go.yaml.in/yaml counts the parser's lines from 0, and leaves out line 0.
var yamlParserError = regexp.MustCompile(`did not find expected (node content|key|',' or|'-' indicator|<document start>)`)

// yamlError takes a parser's error apart into its line (0 when it names none) and its text.
func yamlError(err error) (int, string) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	missing := 0
	if yamlParserError.MatchString(text) {
		missing = 1
	}
	m := yamlErrorLine.FindStringSubmatchIndex(text)
	if m == nil {
		return missing, text
	}
	line, convErr := strconv.Atoi(text[m[2]:m[3]])
	if convErr != nil {
		return 0, text
	}
	return line + missing, text[:m[0]] + text[m[1]:]
}

// checker walks a document once: it counts what aliases multiply, measures nesting and finds duplicate keys.
type checker struct {
	limits Limits
	sizes  map[*yaml.Node]int // of anchored nodes, with their aliases written out; 0 while being walked
	name   string
	doc    *document
}

func (c *checker) walk(n *yaml.Node, depth int) int {
	if c.doc.refused != nil {
		return 0
	}
	if depth > c.limits.Depth {
		c.doc.refused = &refusedError{fmt.Sprintf("its values are nested more than %d deep, at line %d", c.limits.Depth, n.Line)}
		return 0
	}
	if n.Kind == yaml.AliasNode {
		size, seen := c.sizes[n.Alias]
		if !seen || size == 0 {
			c.doc.refused = &refusedError{fmt.Sprintf("the alias *%s at line %d contains itself", n.Value, n.Line)}
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
		c.doc.problems = append(c.doc.problems, &Problem{
			Kind: DuplicateKey, Name: key.Value,
			Position: Position{File: c.name, Line: key.Line, Column: key.Column},
			Other:    []Position{{File: c.name, Line: was.Line, Column: was.Column}},
			Message:  fmt.Sprintf("the key %q stands here a second time; the first is on line %d", key.Value, was.Line),
		})
	}
}

// content returns the root value of a document node; nil when it is empty.
func content(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.DocumentNode {
		if len(n.Content) == 0 {
			return nil
		}
		return n.Content[0]
	}
	return n
}

// child returns the value of a key of a mapping, with aliases followed; nil when there is none.
func child(n *yaml.Node, keys ...string) *yaml.Node {
	for _, key := range keys {
		n = resolve(n)
		if n == nil || n.Kind != yaml.MappingNode {
			return nil
		}
		var next *yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				next = n.Content[i+1]
			}
		}
		n = next
	}
	return resolve(n)
}

func resolve(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n != nil && n.Kind == yaml.DocumentNode {
		return resolve(content(n))
	}
	return n
}

func scalar(n *yaml.Node, keys ...string) string {
	if v := child(n, keys...); v != nil && v.Kind == yaml.ScalarNode {
		return v.Value
	}
	return ""
}

// identity is what names an object in a file.
type identity struct{ apiVersion, kind, namespace, name string }

func identify(n *yaml.Node) identity {
	return identity{scalar(n, "apiVersion"), scalar(n, "kind"), scalar(n, "metadata", "namespace"), scalar(n, "metadata", "name")}
}

func (id identity) group() string {
	g, _, ok := strings.Cut(id.apiVersion, "/")
	if !ok {
		return ""
	}
	return g
}

// isObject tells whether the document looks like a Kubernetes object. A kustomization.yaml is none.
func (id identity) isObject() bool {
	return id.apiVersion != "" && id.kind != "" && id.group() != "kustomize.config.k8s.io"
}

// find returns the place of a path in a document of the named file.
func find(name string, doc *yaml.Node, p validators.Path) Position {
	pos := yamlposition.Find(doc, p)
	return Position{File: name, Line: pos.Line, Column: pos.Column}
}

// isTemplate tells whether the file is a chart's template, which is YAML only once Helm has rendered it.
func (t *tree) isTemplate(p string) bool {
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if path.Base(dir) == "templates" {
			if _, ok := t.files[path.Join(path.Dir(dir), "Chart.yaml")]; ok {
				return true
			}
		}
	}
	return false
}
