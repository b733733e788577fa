package report

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
)

// What GitHub takes: a step's annotations are cut off after ten of each level, without a word.
// https://docs.github.com/en/rest/checks/runs and https://github.com/orgs/community/discussions/26680
const (
	annotationsPerLevel = 10
	annotationBytes     = 4096
)

// Escapes of the workflow commands (actions/toolkit, packages/core/src/command.ts): data, and the values of properties.
var (
	escapeData     = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	escapeProperty = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

// WriteGitHub writes findings as workflow commands, one a line, which GitHub Actions shows at the lines of a pull request. Identical
// findings are folded, the refused come first. What is beyond GitHub's limit is counted in the last annotation of its level.
func WriteGitHub(w io.Writer, r *Report, o Options) error {
	b := bufio.NewWriter(w)
	levels := []string{"error", "warning", "notice"}
	byLevel := map[string][]*folded{}
	for _, g := range fold(r.Findings, (*Finding).Counts, nil) {
		level := annotationLevel(g.first.Action)
		byLevel[level] = append(byLevel[level], g)
	}
	for _, level := range levels {
		list := byLevel[level]
		limit := annotationsPerLevel
		if level == "error" {
			limit -= min(len(r.Errors), annotationsPerLevel/2)
		}
		left := 0
		if len(list) > limit {
			left = len(list) - (limit - 1)
			list = list[:limit-1]
		}
		for _, g := range list {
			writeCommand(b, level, annotation(g, o))
		}
		if left > 0 {
			writeCommand(b, level, command{title: r.Tool.Name, text: fmt.Sprintf("%s not shown here, GitHub takes no more of them: read the log or another output format",
				count(left, "more "+level+" is", "more "+level+"s are"))})
		}
	}
	for _, e := range r.Errors[:min(len(r.Errors), annotationsPerLevel/2)] {
		writeCommand(b, "error", command{file: withPrefix(o, e.File), line: e.Line, column: e.Column, title: "could not be done", text: printable(e.Message)})
	}
	return b.Flush()
}

func annotationLevel(a v1alpha1.Action) string {
	switch a {
	case v1alpha1.ActionDeny:
		return "error"
	case v1alpha1.ActionWarn:
		return "warning"
	case v1alpha1.ActionAudit, v1alpha1.ActionOff:
		return "notice"
	}
	return "notice"
}

// command is one workflow command.
type command struct {
	file         string
	line, column int
	title, text  string
}

func annotation(g *folded, o Options) command {
	f := g.first
	var text strings.Builder
	fmt.Fprintf(&text, "%s: %s", printable(f.Object.String()), printable(f.Message))
	for _, p := range f.Related {
		fmt.Fprintf(&text, "\n%s: %s", printable(p.Note), printable(p.String()))
	}
	if f.Fix != "" {
		fmt.Fprintf(&text, "\nFix: %s", printable(f.Fix))
	}
	if n := len(g.rest); n > 0 {
		fmt.Fprintf(&text, "\nAnd %d more like it.", n)
	}
	return command{file: withPrefix(o, f.File), line: f.Line, column: f.Column, title: f.ID + " " + f.Rule, text: text.String()}
}

func withPrefix(o Options, file string) string {
	if file == "" {
		return ""
	}
	return o.PathPrefix + file
}

func writeCommand(b *bufio.Writer, level string, c command) {
	var properties []string
	add := func(name, value string) {
		if value != "" && value != "0" {
			properties = append(properties, name+"="+escapeProperty.Replace(value))
		}
	}
	add("file", printable(c.file))
	if c.file != "" {
		add("line", fmt.Sprint(c.line))
		add("col", fmt.Sprint(c.column))
	}
	add("title", printable(c.title))
	// A bufio.Writer remembers its first error; Flush returns it.
	_, _ = fmt.Fprintf(b, "::%s %s::%s\n", level, strings.Join(properties, ","), escapeData.Replace(cut(c.text, annotationBytes)))
}

// cut shortens a text to a number of bytes, at the end of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	n -= len("…")
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
