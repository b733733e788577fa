package report

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/validators"
)

// maskedText is in the place of values that differ and are not shown.
const maskedText = "values differ, and are not shown"

// sign is how a change begins its line.
func (c Change) sign() string {
	switch c {
	case Added:
		return "+"
	case Removed:
		return "-"
	case Changed:
		return "~"
	case Moved:
		return ">"
	}
	return " "
}

func (t *textWriter) change(c Change, text string) string {
	switch c {
	case Added:
		return t.paint(green, text)
	case Removed:
		return t.paint(red, text)
	case Changed, Moved:
		return t.paint(yellow, text)
	}
	return text
}

func (t *textWriter) severity(s validators.Severity) string {
	sgr := dim
	switch s {
	case validators.SeverityError:
		sgr = red
	case validators.SeverityWarning:
		sgr = yellow
	case validators.SeverityInfo:
	}
	return t.paint(sgr, severityName(s))
}

// writeDiffText writes the diff as text for people.
func writeDiffText(w io.Writer, d *Diff, o Options) error {
	t := &textWriter{w: bufio.NewWriter(w), color: o.Color}
	last := ""
	for _, c := range d.Objects {
		if title := c.owner(); title != last {
			if last != "" {
				t.line("")
			}
			t.line("%s", t.paint(bold, printable(title)))
			last = title
		}
		t.line("  %s", t.change(c.Change, c.Change.sign()+" "+printable(c.title())))
		for _, f := range c.Fields {
			for _, line := range f.lines() {
				t.line("      %s", t.diffLine(printable(line)))
			}
		}
	}
	if last != "" {
		t.line("")
	}
	if len(d.Effects) > 0 {
		t.line("%s", t.paint(bold, "What it does"))
		for _, e := range d.Effects {
			t.line("  %s  %s", t.severity(e.Severity), printable(e.text()))
		}
		t.line("")
	}
	for _, list := range []struct {
		title    string
		findings []Finding
	}{{"Admission webhook, on what is changed", d.Admission}, {"New findings of check", d.Findings}} {
		if len(list.findings) == 0 {
			continue
		}
		t.line("%s", t.paint(bold, list.title))
		t.findings(d.report(list.findings))
	}
	if len(d.NotCompared) > 0 {
		t.line("%s", t.paint(bold, "Not compared"))
		for _, n := range d.NotCompared {
			t.line("  %s", printable(n.text()))
		}
		t.line("")
	}
	t.line("%s", d.summary())
	return t.w.Flush()
}

func (t *textWriter) diffLine(line string) string {
	switch lineClass(line) {
	case lineAdded:
		return t.paint(green, line)
	case lineRemoved:
		return t.paint(red, line)
	case lineHunk:
		return t.paint(cyan, line)
	}
	return line
}

// owner is what applies the object, for a title.
func (c *ObjectChange) owner() string {
	out := "Kustomization " + c.Kustomization
	switch {
	case c.Release != "":
		out = "HelmRelease " + c.Release
	case c.Kustomization == "":
		out = "No Kustomization"
	}
	if c.Cluster != "" {
		out += " in " + c.Cluster
	}
	return out
}

func (c *ObjectChange) title() string {
	out := c.Object.String()
	if c.From != nil {
		out = c.From.String() + " to namespace " + c.Object.Namespace
	}
	if c.FromKustomization != "" {
		out += " (applied by " + c.FromKustomization + " before)"
	}
	if c.File != "" {
		out += "  " + validators.Position{File: c.File, Line: c.Line}.String()
	}
	return out
}

func (e *Effect) text() string {
	if e.Cluster == "" {
		return e.Message
	}
	return e.Message + " (in " + e.Cluster + ")"
}

func (n *NotCompared) text() string {
	out := n.Name
	if n.Cluster != "" {
		out += " in " + n.Cluster
	}
	return out + ": " + n.Reason
}

// lines returns the field with its values; lines of values begin with + and -.
func (f *FieldChange) lines() []string {
	switch {
	case f.Masked:
		return []string{f.Change.sign() + " " + f.Path + ": " + maskedText}
	case f.Hunks != "":
		out := []string{f.Path + ":"}
		for line := range strings.Lines(f.Hunks) {
			if !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "+++") {
				out = append(out, strings.TrimRight(line, "\n"))
			}
		}
		return out
	case f.Change == Moved:
		return []string{f.Path + ": the order changes", "- " + valueText(f.Before), "+ " + valueText(f.After)}
	}
	var out []string
	one := f.Change != Changed
	for _, side := range []struct {
		sign  string
		value any
		there bool
	}{{"-", f.Before, f.Change != Added}, {"+", f.After, f.Change != Removed}} {
		if !side.there {
			continue
		}
		text := valueText(side.value)
		if one && !strings.Contains(text, "\n") {
			return []string{side.sign + " " + f.Path + ": " + text}
		}
		if !strings.Contains(text, "\n") {
			out = append(out, side.sign+" "+text)
			continue
		}
		for line := range strings.Lines(text) {
			out = append(out, side.sign+"   "+strings.TrimRight(line, "\n"))
		}
	}
	return append([]string{f.Path + ":"}, out...)
}

// valueText returns a value as YAML.
func valueText(v any) string {
	text, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimRight(string(text), "\n")
}

func (d *Diff) summary() string {
	s := d.Summary
	var parts []string
	for _, c := range []struct {
		n    int
		name string
	}{{s.Added, "added"}, {s.Removed, "removed"}, {s.Changed, "changed"}, {s.Moved, "moved"}} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.name))
		}
	}
	out := "No difference"
	if len(parts) > 0 {
		out = count(len(d.Objects), "object", "objects") + ": " + strings.Join(parts, ", ")
	}
	for _, c := range []struct {
		n         int
		one, many string
	}{
		{s.Errors, "danger", "dangers"}, {s.Warnings, "warning", "warnings"}, {s.Deny, "denial at admission", "denials at admission"},
		{s.Findings, "new finding", "new findings"}, {s.NotCompared, "not compared", "not compared"},
	} {
		if c.n > 0 {
			out += "; " + count(c.n, c.one, c.many)
		}
	}
	return fmt.Sprintf("%s, from %s to %s", out, printable(d.Base.String()), printable(d.Head.String()))
}
