package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/flux-admission/flux-admission/validators"
)

// DiffMarker is the first line of a diff in Markdown, by which a bot finds its comment again.
const DiffMarker = "<!-- flux-admission diff -->"

// writeDiffMarkdown writes the diff as a comment of a pull request or merge request: what it does, what would be denied,
// and the objects in collapsed sections. It has at most 60,000 bytes; what is left out is counted.
func writeDiffMarkdown(w io.Writer, d *Diff, o Options) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n### %s flux-admission diff\n\n%s.\n", DiffMarker, d.markdownSign(), markdownText.Replace(d.summary()))
	effects := map[validators.Severity][]string{}
	for _, e := range d.Effects {
		effects[e.Severity] = append(effects[e.Severity], "- "+markdownText.Replace(printable(e.text()))+"\n")
	}
	for _, section := range []struct {
		severity validators.Severity
		title    string
	}{
		{validators.SeverityError, "\n**⚠️ Danger**\n\n"},
		{validators.SeverityWarning, "\n**Warnings**\n\n"},
	} {
		if rows := effects[section.severity]; len(rows) > 0 {
			writeRows(&b, section.title, rows, "")
		}
	}
	for _, list := range []struct {
		title    string
		findings []Finding
	}{{"Admission webhook, on what is changed", d.Admission}, {"New findings", d.Findings}} {
		var rows []string
		for _, g := range groupFindings(list.findings, (*Finding).Counts) {
			rows = append(rows, markdownRow(g, d.report(list.findings), o))
		}
		if len(rows) > 0 {
			writeRows(&b, "\n**"+list.title+"**\n\n| where | what | rule |\n|---|---|---|\n", rows, "")
		}
	}
	var rows []string
	for _, n := range d.NotCompared {
		rows = append(rows, "- "+markdownText.Replace(printable(n.text()))+"\n")
	}
	if len(rows) > 0 {
		writeRows(&b, "\n<details><summary>Not compared</summary>\n\n", rows, "\n</details>\n")
	}
	if rows := effects[validators.SeverityInfo]; len(rows) > 0 {
		writeRows(&b, "\n<details><summary>Further effects</summary>\n\n", rows, "\n</details>\n")
	}
	rows = nil
	for i := range d.Objects {
		rows = append(rows, d.Objects[i].markdown())
	}
	if len(rows) > 0 {
		writeRows(&b, "\n**Objects**\n\n", rows, "")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (d *Diff) markdownSign() string {
	switch s := d.Summary; {
	case s.Errors > 0 || s.Deny > 0:
		return "❌"
	case s.Warnings > 0 || s.Findings > 0 || s.NotCompared > 0:
		return "⚠️"
	}
	return "✅"
}

// maxMarkdownLines bounds the lines of one object in a comment.
const maxMarkdownLines = 60

// markdown returns a collapsed section with the fields of an object.
func (c *ObjectChange) markdown() string {
	title := c.Change.sign() + " " + c.title() + " · " + c.owner()
	var lines []string
	for _, f := range c.Fields {
		lines = append(lines, f.lines()...)
	}
	if len(lines) == 0 {
		return "- " + code(title) + "\n"
	}
	if more := len(lines) - maxMarkdownLines; more > 0 {
		lines = append(lines[:maxMarkdownLines], fmt.Sprintf("(%s)", count(more, "more line", "more lines")))
	}
	text := printable(strings.Join(lines, "\x00"))
	text = strings.ReplaceAll(text, `\u0000`, "\n")
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	return fmt.Sprintf("<details><summary>%s</summary>\n\n%sdiff\n%s\n%s\n\n</details>\n", markdownText.Replace(printable(title)), fence, text, fence)
}
