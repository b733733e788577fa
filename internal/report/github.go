package report

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
)

// GitHub's limits on annotations. It silently drops the annotations of a step after ten of each level:
// https://docs.github.com/en/rest/checks/runs and https://github.com/orgs/community/discussions/26680
const (
	annotationsPerLevel = 10
	annotationBytes     = 4096
)

// The escapes of workflow commands (actions/toolkit, packages/core/src/command.ts), for data and for the values of properties.
var (
	escapeData     = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	escapeProperty = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

// WriteGitHub writes findings as workflow commands, one per line, which GitHub Actions shows as annotations in a pull request. Similar findings
// are grouped. If there are more than GitHub's limit, the last annotation of the level contains the number of the others. The whole report
// follows as text, for the log.
func WriteGitHub(w io.Writer, r *Report, o Options) error {
	b := bufio.NewWriter(w)
	levels := []string{"error", "warning", "notice"}
	byLevel := map[string][]*findingGroup{}
	for _, g := range groupFindings(r.Findings, (*Finding).Counts) {
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
			writeCommand(b, level, annotation(g, r, o))
		}
		if left > 0 {
			writeCommand(b, level, command{title: r.Tool.Name, text: fmt.Sprintf("%s omitted because of GitHub's limit; the log has all",
				count(left, "more "+level, "more "+level+"s"))})
		}
	}
	for _, e := range r.Errors[:min(len(r.Errors), annotationsPerLevel/2)] {
		writeCommand(b, "error", command{file: withPrefix(o, e.File), line: e.Line, column: e.Column, title: "check failed", text: printable(e.Message)})
	}
	if err := b.Flush(); err != nil {
		return err
	}
	// Until the token is repeated, GitHub executes no command in the texts of the tree, whose author must not know the token.
	token := rand.Text()
	if _, err := fmt.Fprintf(w, "::stop-commands::%s\n", token); err != nil {
		return err
	}
	if err := WriteText(w, r, o); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "::%s::\n", token)
	return err
}

// annotationLevel returns the level of an action in GitHub, which calls SARIF's note a notice.
func annotationLevel(a v1alpha1.Action) string {
	if l := level(a); l != "note" {
		return l
	}
	return "notice"
}

// command is a workflow command.
type command struct {
	file         string
	line, column int
	title, text  string
}

func annotation(g *findingGroup, r *Report, o Options) command {
	f := g.first
	var text strings.Builder
	fmt.Fprintf(&text, "%s: %s", printable(f.Object.String()), printable(f.Message))
	for _, p := range f.Related {
		fmt.Fprintf(&text, "\n%s: %s", printable(p.Note), printable(p.String()))
	}
	if f.Fix != "" {
		fmt.Fprintf(&text, "\nFix: %s", printable(f.Fix))
	}
	if clusters := g.clusters(r); clusters != "" {
		fmt.Fprintf(&text, "\nIn %s.", printable(clusters))
	}
	if others := g.others(o); others != "" {
		fmt.Fprintf(&text, "\nAnd %s.", printable(others))
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
	// A bufio.Writer keeps its first error; Flush returns it.
	_, _ = fmt.Fprintf(b, "::%s %s::%s\n", level, strings.Join(properties, ","), escapeData.Replace(truncate(c.text, annotationBytes)))
}

// truncate shortens a text to at most n bytes, between two characters.
func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	n -= len("…")
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
