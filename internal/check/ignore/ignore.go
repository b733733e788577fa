// Package ignore reads the comments in YAML files that exclude findings from the report of a check:
//
//	# flux-admission: ignore RULE[,RULE] REASON
//	# flux-admission: ignore-file RULE[,RULE] REASON
package ignore

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/validators"
)

// Syntax is the form of a comment, for people.
const Syntax = "# flux-admission: ignore RULE[,RULE] REASON"

// The directives.
const (
	ignoreLines = "ignore"
	ignoreFile  = "ignore-file"
)

// Comment is one comment. It covers the lines of a field, of an object, or of its whole file.
type Comment struct {
	// Position is that of the "#".
	Position validators.Position
	// Rules are the IDs of the ignored rules.
	Rules []string
	// Reason is why they are ignored.
	Reason string
	// Invalid is what is wrong with the comment, which then ignores nothing; empty if nothing is.
	Invalid string
	// InText means that the comment is in the text of a value, such as a patch: it may not be meant for this program.
	InText bool

	first, last int // the covered lines, from 1; last is 0 for the whole file
}

// Covers reports whether the comment excludes a finding of a rule at a line of its file; line 0 is the file as a whole.
func (c *Comment) Covers(id string, line int) bool {
	return c.Invalid == "" && slices.Contains(c.Rules, id) && (c.last == 0 || c.first <= line && line <= c.last)
}

// directive matches a comment. The character before "#" is the start of the line or a space.
var directive = regexp.MustCompile(`(?:^|[ \t])(#+[ \t]*flux-admission:[ \t]*(.*))$`)

// Parse returns the comments of a file, in their order. Known are the rules that a comment can name.
func Parse(f *sourcetree.File, known []*validators.Meta) []*Comment {
	data, err := f.Read()
	if err != nil || !sourcetree.HasDirective(data) {
		return nil
	}
	p := &parser{known: known}
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		p.lines = append(p.lines, strings.TrimRight(string(line), " \t\r"))
	}
	parsed := f.Parse()
	inText := map[int]bool{}
	for _, doc := range parsed.Documents {
		p.textLines(doc, inText)
	}
	var out []*Comment
	for i, line := range p.lines {
		m := directive.FindStringSubmatchIndex(line)
		if m == nil || !isDirective(line[m[4]:m[5]]) {
			continue
		}
		c := &Comment{Position: f.Position(i+1, len([]rune(line[:m[2]]))+1), InText: inText[i]}
		p.read(c, i, m[2], line[m[4]:m[5]])
		out = append(out, c)
	}
	return out
}

// isDirective reports whether a text is meant as a directive. A comment may also just be about this program.
func isDirective(text string) bool {
	word, _, _ := strings.Cut(strings.ToLower(text), " ")
	return strings.HasPrefix(word, ignoreLines) || suggest.Nearest(word, []string{ignoreLines, ignoreFile}) != ""
}

// parser reads the comments of one file. Lines count from 0.
type parser struct {
	lines []string
	known []*validators.Meta
}

// textLines adds the lines of the scalars that have the text of a directive in their value: there, "#" starts no comment.
func (p *parser) textLines(n *yaml.Node, lines map[int]bool) {
	for _, child := range n.Content {
		p.textLines(child, lines)
	}
	if n.Kind != yaml.ScalarNode || !sourcetree.HasDirective([]byte(n.Value)) {
		return
	}
	header := n.Line - 1
	if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
		lines[header] = true
	}
	for i := header + 1; i < len(p.lines) && (p.lines[i] == "" || indentation(p.lines[i]) > indentation(p.lines[header])); i++ {
		lines[i] = true
	}
}

// read reads the text of a directive at a line, and which lines it covers. Column is that of the "#", in bytes.
func (p *parser) read(c *Comment, line, column int, text string) {
	word, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	switch word {
	case ignoreLines:
		c.first, c.last = p.covered(line, column)
		if c.last == 0 {
			c.Invalid = "nothing follows the comment that it could be about"
		}
	case ignoreFile:
		if p.firstContent(0) < line {
			c.Invalid = fmt.Sprintf("%s must be above everything else in its file", ignoreFile)
		}
	default:
		c.Invalid = fmt.Sprintf("%q is no directive; use %s or %s", word, ignoreLines, ignoreFile)
	}
	names, reason := splitRules(rest)
	var unknown string
	if c.Rules, unknown = p.ids(names); unknown != "" && c.Invalid == "" {
		c.Invalid = unknown
	}
	switch c.Reason = reason; {
	case c.Invalid != "":
	case len(c.Rules) == 0:
		c.Invalid = "no rule is named"
	case reason == "":
		c.Invalid = "the reason is missing"
	}
}

// splitRules splits "RULE, RULE reason", which may have a colon or a dash before the reason.
func splitRules(text string) (names []string, reason string) {
	more := true
	for more {
		text = strings.TrimLeft(text, " \t")
		end := strings.IndexAny(text, " \t,")
		if end < 0 {
			end = len(text)
		}
		name := strings.TrimRight(text[:end], ":")
		text = strings.TrimLeft(text[end:], " \t")
		if name != "" {
			names = append(names, name)
		}
		text, more = strings.CutPrefix(text, ",")
	}
	return names, strings.TrimLeft(text, " \t:-–—")
}

// ids returns the IDs of rules by name or ID, and what is wrong with the first one that is none.
func (p *parser) ids(names []string) (ids []string, unknown string) {
	all := make([]string, 0, 2*len(p.known))
	for _, m := range p.known {
		all = append(all, m.ID, m.Name)
	}
	for _, name := range names {
		i := slices.IndexFunc(p.known, func(m *validators.Meta) bool { return strings.EqualFold(m.ID, name) || m.Name == name })
		if i >= 0 {
			ids = append(ids, p.known[i].ID)
			continue
		}
		if unknown != "" {
			continue
		}
		unknown = fmt.Sprintf("there is no rule %q", name)
		if near := suggest.Nearest(name, all); near != "" {
			unknown += fmt.Sprintf("; did you mean %s?", near)
		}
	}
	return ids, unknown
}

// covered returns the lines, from 1, that a comment covers: those of the field on its own line, or else on the next line
// with content; those of the document if that is its first field, apiVersion or kind. Last is 0 if nothing follows.
func (p *parser) covered(line, column int) (first, last int) {
	target, own := line, strings.TrimLeft(p.lines[line][:column], " \t") == ""
	if own {
		if target = p.firstContent(line + 1); target == len(p.lines) {
			return 0, 0
		}
	}
	text := p.lines[target]
	start := target
	for start > 0 && !isMarker(p.lines[start]) {
		start--
	}
	head := isMarker(text) || strings.HasPrefix(text, "apiVersion:") || strings.HasPrefix(text, "kind:")
	if head || own && p.firstContent(start) == target {
		end := target + 1
		for end < len(p.lines) && !isMarker(p.lines[end]) {
			end++
		}
		return start + 1, end
	}
	limit, isItem := indentation(text), isItem(text)
	if !own {
		for isItem {
			limit += 1 + indentation(text[limit+1:])
			isItem = strings.HasPrefix(text[limit:], "- ")
		}
	}
	end := target + 1
	for ; end < len(p.lines) && !isMarker(p.lines[end]); end++ {
		next := p.lines[end]
		if isBlank(next) || indentation(next) > limit || indentation(next) == limit && !isItem &&
			strings.HasPrefix(next[limit:], "-") {
			continue
		}
		break
	}
	return min(line, target) + 1, end
}

// firstContent returns the first line from start on that has content; the number of lines if there is none.
func (p *parser) firstContent(start int) int {
	for i := start; i < len(p.lines); i++ {
		if !isBlank(p.lines[i]) && !isMarker(p.lines[i]) && !strings.HasPrefix(p.lines[i], "%") {
			return i
		}
	}
	return len(p.lines)
}

// isBlank reports whether a line has nothing but a comment.
func isBlank(line string) bool {
	line = strings.TrimLeft(line, " \t")
	return line == "" || line[0] == '#'
}

// isMarker reports whether a line starts or ends a document.
func isMarker(line string) bool {
	return line == "---" || line == "..." || strings.HasPrefix(line, "--- ") || strings.HasPrefix(line, "... ")
}

// isItem reports whether a line starts with an item of a list.
func isItem(line string) bool {
	line = strings.TrimLeft(line, " ")
	return line == "-" || strings.HasPrefix(line, "- ")
}

// indentation returns the number of spaces at the start of a line.
func indentation(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }
