package ruletest

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Directive is a finding that a case expects. It is a comment on the line of the finding:
//
//	# want RULE "regexp" KEY=VALUE ... RULE "regexp" ...
//
// The words are want (a finding), was (one that the stored object has too) and suppressed (one that does not count).
// The regular expression is that of the message; it and the keys are optional:
//
//	object="KIND NAMESPACE/NAME"  the object of the finding
//	column=NUMBER                 its column
//	related=FILE:LINE:COLUMN      a related position; any number
//
// In the comment of an archive a directive begins with the position instead, for lines that cannot have a comment: want
// FILE:LINE RULE ...
type Directive struct {
	Word string
	// File is set for directives in the comment of an archive.
	File string
	Line int
	// Rule is the rule's ID.
	Rule string
	// Message is nil if any message is expected.
	Message *regexp.Regexp
	// Object is empty, and Column 0, if they are not compared.
	Object  string
	Column  int
	Related []string
}

// String returns the directive for messages of tests.
func (d Directive) String() string {
	position := strconv.Itoa(d.Line)
	if d.File != "" {
		position = d.File + ":" + position
	}
	parts := []string{d.Word, position, d.Rule}
	if d.Message != nil {
		parts = append(parts, "/"+d.Message.String()+"/")
	}
	if d.Object != "" {
		parts = append(parts, d.Object)
	}
	if d.Column != 0 {
		parts = append(parts, strconv.Itoa(d.Column))
	}
	return strings.Join(append(parts, d.Related...), " ")
}

var (
	lineDirective   = regexp.MustCompile(`#\s*(want|was|suppressed)\s+([A-Z]{2}[0-9]{3}(?:\s.*)?)$`)
	headerDirective = regexp.MustCompile(`^(want|was|suppressed)\s+(\S+):(\d+)\s+([A-Z]{2}[0-9]{3}(?:\s.*)?)$`)
	ruleID          = regexp.MustCompile(`^[A-Z]{2}[0-9]{3}$`)
)

// Directives returns the directives in the comments of a YAML file, by line.
func Directives(src []byte) ([]Directive, error) {
	var out []Directive
	for i, line := range bytes.Split(src, []byte("\n")) {
		m := lineDirective.FindStringSubmatch(strings.TrimRight(string(line), " \r"))
		if m == nil {
			continue
		}
		list, err := parseDirectives(m[2])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		for _, d := range list {
			d.Word, d.Line = m[1], i+1
			out = append(out, d)
		}
	}
	return out, nil
}

// HeaderDirectives returns the directives in the comment of an archive.
func HeaderDirectives(comment string) ([]Directive, error) {
	var out []Directive
	for line := range strings.Lines(comment) {
		m := headerDirective.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		list, err := parseDirectives(m[4])
		if err != nil {
			return nil, fmt.Errorf("%q: %w", strings.TrimSpace(line), err)
		}
		number, err := strconv.Atoi(m[3])
		if err != nil {
			return nil, fmt.Errorf("%q: %w", strings.TrimSpace(line), err)
		}
		for _, d := range list {
			d.Word, d.File, d.Line = m[1], m[2], number
			out = append(out, d)
		}
	}
	return out, nil
}

func parseDirectives(text string) ([]Directive, error) {
	var out []Directive
	for {
		text = strings.TrimLeft(text, " \t")
		if text == "" {
			return out, nil
		}
		if text[0] == '"' {
			message, rest, err := unquotePrefix(text)
			if err != nil {
				return nil, err
			}
			if len(out) == 0 || out[len(out)-1].Message != nil {
				return nil, fmt.Errorf("%q does not follow a rule", message)
			}
			if out[len(out)-1].Message, err = regexp.Compile(message); err != nil {
				return nil, err
			}
			text = rest
			continue
		}
		word, _, _ := strings.Cut(text, " ")
		key, _, isKey := strings.Cut(word, "=")
		switch {
		case ruleID.MatchString(word):
			out = append(out, Directive{Rule: word})
			text = text[len(word):]
		case !isKey || len(out) == 0:
			return nil, fmt.Errorf("cannot parse %q", text)
		default:
			value, rest, err := valueOf(text[len(key)+1:])
			if err != nil {
				return nil, err
			}
			if err := out[len(out)-1].set(key, value); err != nil {
				return nil, err
			}
			text = rest
		}
	}
}

func (d *Directive) set(key, value string) (err error) {
	switch key {
	case "object":
		d.Object = value
	case "column":
		d.Column, err = strconv.Atoi(value)
	case "related":
		d.Related = append(d.Related, value)
	default:
		err = fmt.Errorf("unknown key %q", key)
	}
	return err
}

// valueOf returns the quoted string or the word at the beginning of a text, and the rest.
func valueOf(text string) (value, rest string, err error) {
	if strings.HasPrefix(text, `"`) {
		return unquotePrefix(text)
	}
	value, rest, _ = strings.Cut(text, " ")
	if value == "" {
		return "", "", errors.New("a key has no value")
	}
	return value, rest, nil
}

func unquotePrefix(text string) (value, rest string, err error) {
	quoted, err := strconv.QuotedPrefix(text)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", text, err)
	}
	value, err = strconv.Unquote(quoted)
	return value, text[len(quoted):], err
}
