package report

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/term"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

// ColorWanted reports whether text written to the file should be colored: the file is a terminal, and the environment does not set TERM=dumb. NO_COLOR
// (https://no-color.org) prevents colors, FORCE_COLOR (https://force-color.org) and CLICOLOR_FORCE, unless 0, force them, as in the log of a CI job.
func ColorWanted(f *os.File, getenv func(string) string) bool {
	if force := cmp.Or(getenv("FORCE_COLOR"), getenv("CLICOLOR_FORCE")); force != "" && force != "0" && getenv("NO_COLOR") == "" {
		return true
	}
	return getenv("NO_COLOR") == "" && getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

// textWriter writes lines, with or without colors.
type textWriter struct {
	w     *bufio.Writer
	color bool
}

// The colors, as parameters of an ANSI SGR sequence.
const (
	bold   = "1"
	dim    = "2"
	red    = "1;31"
	yellow = "33"
	cyan   = "36"
	green  = "32"
)

func (t *textWriter) paint(sgr, text string) string {
	if !t.color || text == "" {
		return text
	}
	return "\x1b[" + sgr + "m" + text + "\x1b[0m"
}

func (t *textWriter) line(format string, args ...any) {
	// A bufio.Writer keeps its first error; Flush returns it.
	_, _ = fmt.Fprintf(t.w, format+"\n", args...)
}

// printable makes a text of the tree safe for a terminal. It escapes control characters, which could overwrite other lines, and characters
// that reverse the order of the text.
func printable(s string) string {
	if !strings.ContainsFunc(s, unsafeInTerminal) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unsafeInTerminal(r) {
			fmt.Fprintf(&b, "\\u%04x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unsafeInTerminal(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}

// WriteText writes the report as text for people.
func WriteText(w io.Writer, r *Report, o Options) error {
	t := &textWriter{w: bufio.NewWriter(w), color: o.Color}
	t.findings(r)
	t.errors(r.Errors)
	t.skipped(r.Skipped)
	t.baseline(r.Baseline)
	t.clusters(r.Clusters)
	t.line("%s", t.summary(r.Summary))
	return t.w.Flush()
}

func (t *textWriter) findings(r *Report) {
	var files []string
	byFile := map[string][]*findingGroup{}
	for _, g := range groupFindings(r.Findings, (*Finding).Counts) {
		file := r.section(Options{}, g.first)
		if byFile[file] == nil {
			files = append(files, file)
		}
		byFile[file] = append(byFile[file], g)
	}
	for _, file := range files {
		t.line("%s", t.paint(bold, printable(file)))
		for _, g := range byFile[file] {
			t.finding(g, r)
		}
		t.line("")
	}
}

func (t *textWriter) finding(g *findingGroup, r *Report) {
	f := g.first
	at := ""
	if f.Line > 0 {
		at = fmt.Sprintf("%d:%d", f.Line, f.Column)
	}
	head := strings.Join(slices.DeleteFunc([]string{
		t.paint(dim, printable(at)), t.action(f.Action), t.paint(bold, printable(f.Object.String())), t.paint(dim, f.ID+" "+f.Rule),
	}, func(s string) bool { return s == "" }), "  ")
	t.line("  %s", head)
	t.line("      %s", printable(f.Message))
	for _, p := range f.Related {
		note := p.Note
		if note == "" {
			note = "see also"
		}
		t.line("      %s %s", t.paint(dim, printable(note)+":"), printable(p.String()))
	}
	if f.Fix != "" {
		t.line("      %s %s", t.paint(green, "fix:"), printable(f.Fix))
	}
	if clusters := g.clusters(r); clusters != "" {
		t.line("      %s", t.paint(dim, printable(clusters)))
	}
	if others := g.others(Options{}); others != "" {
		t.line("      %s", t.paint(cyan, printable("and "+others)))
	}
}

func (t *textWriter) action(a v1alpha1.Action) string {
	switch a {
	case v1alpha1.ActionDeny:
		return t.paint(red, "deny")
	case v1alpha1.ActionWarn:
		return t.paint(yellow, "warn")
	case v1alpha1.ActionAudit, v1alpha1.ActionOff:
		return t.paint(dim, "audit")
	}
	return ""
}

func (t *textWriter) errors(list []Error) {
	if len(list) == 0 {
		return
	}
	t.line("%s", t.paint(red, "Errors"))
	for _, e := range list {
		where := e.Position().String()
		if where == "" && e.Object != nil {
			where = e.Object.String()
		}
		if where != "" {
			where += ": "
		}
		if e.Rule != "" {
			where += e.Rule + ": "
		}
		t.line("  %s", printable(where+e.Message))
	}
	t.line("")
}

func (t *textWriter) skipped(list []Skipped) {
	groups := slices.DeleteFunc(groupSkipped(list), func(g *skippedGroup) bool { return !g.Unknown })
	if len(groups) == 0 {
		return
	}
	t.line("%s", t.paint(bold, "Not evaluated"))
	for _, g := range groups[:min(len(groups), maxSkipped)] {
		text := shorten(printable(g.Text()), maxReason)
		if times := g.Times(); times != "" {
			text += " (" + times + ")"
		} else if g.Object != nil {
			text += printable(" (" + g.Object.String() + ")")
		} else if g.File != "" {
			text += printable(" (" + validators.Position{File: g.File, Line: g.Line}.String() + ")")
		}
		t.line("  %s", text)
	}
	if left := len(groups) - maxSkipped; left > 0 {
		t.line("  %s; --output json has all", count(left, "further cause", "further causes"))
	}
	t.line("")
}

// baseline writes what has to change in the baseline.
func (t *textWriter) baseline(b *Baseline) {
	if b == nil || len(b.Stale)+len(b.Expired) == 0 {
		return
	}
	t.line("%s", t.paint(bold, "Baseline"))
	for _, list := range []struct {
		text  string
		names []string
	}{
		{"expired, so that findings count: repair them, or set a later expires", b.Expired},
		{"without a finding: remove what is listed here, or write the baseline again", b.Stale},
	} {
		if len(list.names) == 0 {
			continue
		}
		t.line("  %s %s", count(len(list.names), "entry", "entries"), list.text)
		for _, name := range list.names[:min(len(list.names), maxSkipped)] {
			t.line("    %s", shorten(printable(name), maxReason))
		}
		if left := len(list.names) - maxSkipped; left > 0 {
			t.line("    %d further; --output json has all", left)
		}
	}
	t.line("")
}

// maxSkipped and maxReason limit what was not evaluated to a screen: so many lines, of so many characters.
const (
	maxSkipped = 15
	maxReason  = 240
)

// shorten shortens a text to about n characters. It leaves out the middle: the end is often what to do.
func shorten(text string, n int) string {
	runes := []rune(text)
	if len(runes) <= n {
		return text
	}
	return string(runes[:n*2/3]) + " … " + string(runes[len(runes)-n/3:])
}

// clusters writes a table of several clusters.
func (t *textWriter) clusters(list []Cluster) {
	if len(list) < 2 {
		return
	}
	const columns = "%-*s  %14s  %7s  %4s  %4s  %5s  %s"
	width := len("CLUSTER")
	for _, c := range list {
		width = max(width, len(printable(c.Name)))
	}
	t.line("%s", t.paint(bold, fmt.Sprintf(columns, width, "CLUSTER", "KUSTOMIZATIONS", "OBJECTS", "DENY", "WARN", "AUDIT", "POLICY")))
	for _, c := range list {
		t.line(columns, width, printable(c.Name), fmt.Sprint(c.Kustomizations), fmt.Sprint(c.Objects), fmt.Sprint(c.Deny), fmt.Sprint(c.Warn),
			fmt.Sprint(c.Audit), printable(c.Policy))
	}
	t.line("")
}

func (t *textWriter) summary(s Summary) string {
	var parts []string
	switch {
	case s.Nothing():
		parts = append(parts, t.paint(yellow, "Nothing was checked"))
	case s.Findings == 0:
		parts = append(parts, t.paint(green, "No findings"))
	default:
		var by []string
		for _, c := range []struct {
			n    int
			sgr  string
			name string
		}{{s.Deny, red, "deny"}, {s.Warn, yellow, "warn"}, {s.Audit, dim, "audit"}} {
			if c.n > 0 {
				by = append(by, t.paint(c.sgr, fmt.Sprintf("%d %s", c.n, c.name)))
			}
		}
		text := count(s.Findings, "finding", "findings")
		if s.Causes > 0 && s.Causes < s.Findings {
			text += " of " + count(s.Causes, "cause", "causes")
		}
		text += fmt.Sprintf(" (%s)", strings.Join(by, ", "))
		if s.Fixable > 0 {
			text += fmt.Sprintf(", %d fixable", s.Fixable)
		}
		parts = append(parts, text)
	}
	evaluated := count(s.Objects, "object", "objects")
	if s.Kustomizations > 0 {
		evaluated += " of " + count(s.Kustomizations, "Kustomization", "Kustomizations")
	}
	if !s.Nothing() {
		parts = append(parts, "in "+evaluated)
	}
	sentences := []string{strings.Join(parts, " ")}
	for _, c := range []struct {
		n         int
		one, many string
	}{
		{s.Ignored, "finding ignored by a comment", "findings ignored by comments"},
		{s.Suppressed - s.Ignored, "finding suppressed", "findings suppressed"},
		{s.StaleBaseline, "stale entry in the baseline", "stale entries in the baseline"},
		{s.Skipped, "evaluation skipped", "evaluations skipped"}, {s.Errors, "error", "errors"},
	} {
		if c.n > 0 {
			sentences = append(sentences, count(c.n, c.one, c.many))
		}
	}
	return strings.Join(sentences, "; ")
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
