package report

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
)

// The elements of a JUnit report that CI systems commonly read. There is no official specification.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Skipped  int          `xml:"skipped,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name      string       `xml:"name,attr"`
		Class     string       `xml:"classname,attr"`
		File      string       `xml:"file,attr,omitempty"`
		Line      int          `xml:"line,attr,omitempty"`
		Failure   *junitDetail `xml:"failure"`
		Error     *junitDetail `xml:"error"`
		Skipped   *junitDetail `xml:"skipped"`
		SystemOut string       `xml:"system-out,omitempty"`
	}
	junitDetail struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
)

// WriteJUnit writes the report as a JUnit report with a test suite for each file and a test case for each finding. The case fails for the action
// Deny, passes with the finding as its output for Warn and Audit, and is skipped if the finding is suppressed. Each Kustomization without
// findings is a passing case, and each cause of inconclusive evaluations a skipped one. A report without any of these has one passing case.
func WriteJUnit(w io.Writer, r *Report, o Options) error {
	all := junitSuites{Name: r.Tool.Name}
	suite := func(name string) *junitSuite {
		if n := len(all.Suites); n == 0 || all.Suites[n-1].Name != name {
			all.Suites = append(all.Suites, junitSuite{Name: name})
		}
		return &all.Suites[len(all.Suites)-1]
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		suite(r.section(o, f)).add(junitFinding(f, r, o))
	}
	for _, e := range r.Errors {
		where := e.Position().String()
		suite("errors").add(junitCase{
			Name: strings.TrimSpace(where + " " + e.Rule), Class: e.Rule, File: withPrefix(o, e.File), Line: e.Line, Error: &junitDetail{Message: e.Message, Type: e.ID, Text: e.Message},
		})
	}
	for _, n := range r.Graph.Nodes {
		if n.State == NodeOK {
			suite("Kustomizations").add(junitCase{Name: n.ID, Class: "Kustomization"})
		}
	}
	for _, g := range groupSkipped(r.Skipped) {
		if g.Unknown {
			suite("not evaluated").add(junitCase{
				Name: g.Text(), Class: cmp.Or(g.Rule, "check"),
				Skipped: &junitDetail{Message: count(g.count, "evaluation", "evaluations")},
			})
		}
	}
	if len(all.Suites) == 0 {
		suite("check").add(junitCase{Name: "no findings", Class: r.Tool.Name})
	}
	for _, s := range all.Suites {
		all.Tests += s.Tests
		all.Failures += s.Failures
		all.Errors += s.Errors
		all.Skipped += s.Skipped
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func junitFinding(f *Finding, r *Report, o Options) junitCase {
	c := junitCase{Name: strings.TrimSpace(f.Object.String() + " " + f.Path), Class: f.Rule, File: withPrefix(o, f.File), Line: f.Line}
	var text strings.Builder
	fmt.Fprintf(&text, "%s\n%s: %s\n", f.Message, f.ID, f.Position())
	for _, name := range r.clustersOf(f) {
		c.Name += " (" + name + ")"
		fmt.Fprintf(&text, "Cluster: %s\n", name)
	}
	for _, p := range f.Related {
		fmt.Fprintf(&text, "%s: %s\n", p.Note, p)
	}
	if f.Fix != "" {
		fmt.Fprintf(&text, "Fix: %s\n", f.Fix)
	}
	switch {
	case !f.Counts():
		c.Skipped = &junitDetail{Message: "suppressed by " + f.Suppressed.By.String() + ": " + f.Message}
	case f.Action != v1alpha1.ActionDeny:
		c.SystemOut = string(f.Action) + ": " + text.String()
	default:
		c.Failure = &junitDetail{Message: f.Message, Type: f.ID, Text: text.String()}
	}
	return c
}

func (s *junitSuite) add(c junitCase) {
	s.Cases = append(s.Cases, c)
	s.Tests++
	switch {
	case c.Failure != nil:
		s.Failures++
	case c.Error != nil:
		s.Errors++
	case c.Skipped != nil:
		s.Skipped++
	}
}
