package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
)

// markdownBytes bounds the Markdown format. A comment on GitHub has at most 65,536 characters, a note on GitLab a million,
// a job summary one MiB.
const markdownBytes = 60_000

// MarkdownMarker is the first line of the Markdown format, by which a bot finds its comment again.
const MarkdownMarker = "<!-- flux-admission -->"

// markdownText escapes text in Markdown: the syntax of tables and HTML, and mentions of users.
var markdownText = strings.NewReplacer("\\", "\\\\", "|", "\\|", "<", "&lt;", ">", "&gt;", "\n", " ", "\r", " ", "*", "\\*", "_", "\\_",
	"[", "\\[", "`", "\\`", "@", "@&#8203;", "#", "&#35;")

// WriteMarkdown writes the report as a comment of a pull request or merge request: the counts, a table of the findings that would
// be denied, and the others in collapsed sections. It has at most 60,000 bytes; what is left out is counted.
func WriteMarkdown(w io.Writer, r *Report, o Options) error {
	var b strings.Builder
	s := r.Summary
	b.WriteString(MarkdownMarker + "\n")
	summary := &textWriter{}
	fmt.Fprintf(&b, "### %s flux-admission\n\n%s.\n", markdownSign(s), markdownText.Replace(summary.summary(s)))
	if len(r.Clusters) > 1 {
		rows := make([]string, 0, len(r.Clusters))
		for _, c := range r.Clusters {
			rows = append(rows, fmt.Sprintf("| %s | %d | %d | %d | %s |\n", code(c.Name), c.Deny, c.Warn, c.Audit, code(c.Policy)))
		}
		writeRows(&b, "\n| cluster | deny | warn | audit | policy |\n|---|---|---|---|---|\n", rows, "")
	}
	if len(r.Errors) > 0 {
		rows := make([]string, 0, len(r.Errors))
		for _, e := range r.Errors {
			rows = append(rows, fmt.Sprintf("- %s %s\n", code(withPrefix(o, e.Position().String())), markdownText.Replace(printable(e.Message))))
		}
		writeRows(&b, "\n**Errors**\n\n", rows, "")
	}
	for _, section := range []struct {
		action      v1alpha1.Action
		title, tail string
	}{
		{v1alpha1.ActionDeny, "\n**Would be denied**\n", ""},
		{v1alpha1.ActionWarn, "\n<details><summary>Warnings</summary>\n", "\n</details>\n"},
		{v1alpha1.ActionAudit, "\n<details><summary>Recorded only</summary>\n", "\n</details>\n"},
	} {
		var rows []string
		for _, g := range groupFindings(r.Findings, func(f *Finding) bool { return f.Counts() && f.Action == section.action }) {
			rows = append(rows, markdownRow(g, r, o))
		}
		if len(rows) > 0 {
			writeRows(&b, section.title+"\n| where | what | rule |\n|---|---|---|\n", rows, section.tail)
		}
	}
	var rows []string
	for _, g := range groupSkipped(r.Skipped) {
		if g.Unknown {
			rows = append(rows, fmt.Sprintf("- %s (%d)\n", markdownText.Replace(printable(g.Text())), g.count))
		}
	}
	if len(rows) > 0 {
		writeRows(&b, "\n<details><summary>Not evaluated</summary>\n\n", rows, "\n</details>\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func markdownSign(s Summary) string {
	switch {
	case s.Deny > 0 || s.Errors > 0:
		return "❌"
	case s.Warn > 0, s.Nothing():
		return "⚠️"
	}
	return "✅"
}

// writeRows writes as many rows as fit, and how many did not: of a section that does not fit at all, only that.
func writeRows(b *strings.Builder, head string, rows []string, tail string) {
	const reserve = 800 // for the counts of this section and of those after it
	omitted := func(n int) {
		fmt.Fprintf(b, "\n%s omitted because of the size of a comment; another output format has all.\n", count(n, "more entry", "more entries"))
	}
	if b.Len()+len(head)+len(tail)+reserve > markdownBytes {
		omitted(len(rows))
		return
	}
	b.WriteString(head)
	for i, row := range rows {
		if b.Len()+len(row)+len(tail)+reserve > markdownBytes {
			omitted(len(rows) - i)
			break
		}
		b.WriteString(row)
	}
	b.WriteString(tail)
}

func markdownRow(g *findingGroup, r *Report, o Options) string {
	f := g.first
	where := code(f.Object.String())
	if f.File != "" {
		where = code(withPrefix(o, f.Position().String())) + "<br>" + where
	}
	if clusters := g.clusters(r); clusters != "" {
		where += "<br>" + markdownText.Replace(printable(clusters))
	}
	what := markdownText.Replace(printable(f.Message))
	if f.Fix != "" {
		what += "<br>**Fix:** " + markdownText.Replace(printable(f.Fix))
	}
	if others := g.others(o); others != "" {
		what += "<br>And " + markdownText.Replace(printable(others)) + "."
	}
	rule := f.ID + " " + f.Rule
	if o.DocsURL != "" {
		rule = fmt.Sprintf("[%s](%s%s.md)", rule, o.DocsURL, f.Rule)
	}
	return fmt.Sprintf("| %s | %s | %s |\n", where, what, rule)
}

// code returns a code span; it is empty for an empty text.
func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + strings.NewReplacer("`", "'", "|", "\\|", "\n", " ").Replace(printable(text)) + "`"
}
