package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/flux-admission/flux-admission/validators"
)

// The parts of the page of a diff, which has the style of the report's page and no script.
var (
	//go:embed page/diff.html.tmpl
	diffTemplate string
	//go:embed page/diff.css
	diffStyle string
)

// maxOpen is the most objects that the page shows with their fields from the start.
const maxOpen = 40

// diffPage is the data of the template.
type diffPage struct {
	Diff   *Diff
	Style  template.CSS
	Policy string
	// Effects are those that matter most; Further are the others.
	Effects, Further []Effect
	Lists            []diffFindings
	Groups           []*diffGroup
	Open             bool
}

// diffFindings are findings, those of one cause as one.
type diffFindings struct {
	Title  string
	Groups []diffFinding
}

type diffFinding struct {
	*Finding
	// Others names the further ones of the cause; empty for none.
	Others string
}

// diffGroup has the objects that one Kustomization or HelmRelease applies.
type diffGroup struct {
	Title   string
	Objects []diffObject
}

type diffObject struct {
	Change Change
	Title  string
	Lines  []diffLine
}

type diffLine struct{ Class, Text string }

// Text returns the effect for people.
func (e Effect) Text() string { return e.text() }

// Text returns what was not compared, for people.
func (n NotCompared) Text() string { return n.text() }

// writeDiffHTML writes the diff as a self-contained HTML page.
func writeDiffHTML(w io.Writer, d *Diff) error {
	t, err := template.New("diff").Funcs(template.FuncMap{
		"count": count, "lower": lower, "printable": printable, "severityClass": severityClass, "severityName": severityName,
	}).Parse(diffTemplate)
	if err != nil {
		return err
	}
	style := pageStyle + diffStyle
	p := &diffPage{
		Diff: d, Style: template.CSS(style), Open: len(d.Objects) <= maxOpen,
		Policy: fmt.Sprintf("default-src 'none'; style-src '%s'; base-uri 'none'; form-action 'none'", hashSource(style)),
	}
	for _, e := range d.Effects {
		if e.Severity == validators.SeverityInfo {
			p.Further = append(p.Further, e)
		} else {
			p.Effects = append(p.Effects, e)
		}
	}
	for _, list := range []struct {
		title    string
		findings []Finding
	}{{"Admission webhook, on what is changed", d.Admission}, {"New findings", d.Findings}} {
		found := diffFindings{Title: list.title}
		for _, g := range groupFindings(list.findings, (*Finding).Counts) {
			found.Groups = append(found.Groups, diffFinding{g.first, g.others(Options{})})
		}
		if len(found.Groups) > 0 {
			p.Lists = append(p.Lists, found)
		}
	}
	for i := range d.Objects {
		c := &d.Objects[i]
		if title := c.owner(); len(p.Groups) == 0 || p.Groups[len(p.Groups)-1].Title != title {
			p.Groups = append(p.Groups, &diffGroup{Title: title})
		}
		o := diffObject{Change: c.Change, Title: c.title()}
		for _, f := range c.Fields {
			for _, line := range f.lines() {
				o.Lines = append(o.Lines, diffLine{lineClass(line), line})
			}
		}
		group := p.Groups[len(p.Groups)-1]
		group.Objects = append(group.Objects, o)
	}
	return t.Execute(w, p)
}

// The classes of lines in the fields of an object, as the page's style has them.
const (
	lineAdded   = "added"
	lineRemoved = "removed"
	lineHunk    = "hunk"
)

// lineClass returns the class of a line; empty for others.
func lineClass(line string) string {
	switch {
	case strings.HasPrefix(line, "+"):
		return lineAdded
	case strings.HasPrefix(line, "-"):
		return lineRemoved
	case strings.HasPrefix(line, "@@"):
		return lineHunk
	}
	return ""
}

func severityClass(s validators.Severity) string {
	switch s {
	case validators.SeverityError:
		return "deny"
	case validators.SeverityWarning:
		return "warn"
	case validators.SeverityInfo:
	}
	return "audit"
}

func severityName(s validators.Severity) string {
	switch s {
	case validators.SeverityError:
		return "danger"
	case validators.SeverityWarning:
		return "warning"
	case validators.SeverityInfo:
	}
	return "info"
}
