package report_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/validators"
)

// at returns a finding on an object in a namespace, that is reported at one position and written at another.
func at(rule, namespace, position, source, path, message string) report.Finding {
	f := report.Finding{
		Rule: rule, Action: v1alpha1.ActionWarn, Object: report.Object{APIVersion: "v1", Kind: "Provider", Namespace: namespace, Name: "a"},
		Path: path, Message: message, Kustomization: "flux-system/" + namespace,
	}
	read := func(text string) (p validators.Position) {
		p.File, _, _ = strings.Cut(text, ":")
		_, _ = fmt.Sscanf(text[len(p.File):], ":%d", &p.Line)
		return p
	}
	p := read(position)
	f.File, f.Line, f.Source = p.File, p.Line, read(source)
	return f
}

func TestNormalize_Causes(t *testing.T) {
	for name, tc := range map[string]struct {
		causes   int
		findings []report.Finding
	}{
		"one component in three namespaces": {1, []report.Finding{
			at("r", "x", "x/k.yaml:3", "c/p.yaml:5", "metadata.namespace", `namespace "f" in the file is overridden with "x"`),
			at("r", "y", "y/k.yaml:3", "c/p.yaml:5", "metadata.namespace", `namespace "f" in the file is overridden with "y"`),
			at("r", "z", "z/k.yaml:3", "c/p.yaml:5", "metadata.namespace", `namespace "f" in the file is overridden with "z"`),
		}},
		"another field of the component": {2, []report.Finding{
			at("r", "x", "x/k.yaml:3", "c/p.yaml:5", "spec.a", `"x" is missing`),
			at("r", "y", "y/k.yaml:3", "c/p.yaml:6", "spec.b", `"y" is missing`),
		}},
		"one object in three files": {1, []report.Finding{
			at("r", "x", "a.yaml:1", "a.yaml:1", "", "Kustomization f/b, f/c applies this object too"),
			at("r", "x", "b.yaml:1", "b.yaml:1", "", "Kustomization f/a, f/c applies this object too"),
			at("r", "x", "c.yaml:1", "c.yaml:1", "", "Kustomization f/a applies this object too"),
		}},
		"two variables in one line, twice": {2, []report.Finding{
			at("r", "x", "a.yaml:1", "a.yaml:1", "", `variable "A" has no value`), at("r", "x", "a.yaml:1", "a.yaml:1", "", `variable "B" has no value`),
			at("r", "y", "a.yaml:1", "a.yaml:1", "", `variable "A" has no value`), at("r", "y", "a.yaml:1", "a.yaml:1", "", `variable "B" has no value`),
		}},
		"two rules":      {2, []report.Finding{at("r", "x", "a.yaml:1", "a.yaml:1", "", "m"), at("s", "x", "a.yaml:1", "a.yaml:1", "", "m")}},
		"equal messages": {1, []report.Finding{at("r", "x", "a.yaml:1", "a.yaml:1", "p", "m"), at("r", "y", "b.yaml:2", "b.yaml:2", "q", "m")}},
		"other words":    {2, []report.Finding{at("r", "x", "a.yaml:1", "a.yaml:1", "", "is missing"), at("r", "x", "a.yaml:1", "a.yaml:1", "", "is twice")}},
	} {
		t.Run(name, func(t *testing.T) {
			r := report.Report{Findings: tc.findings}
			r.Normalize()
			causes, fingerprints := map[string]int{}, map[string]bool{}
			for _, f := range r.Findings {
				causes[f.Cause]++
				fingerprints[f.Fingerprint] = true
			}
			if len(causes) != tc.causes || r.Summary.Causes != tc.causes {
				t.Errorf("causes %v, in the summary %d, want %d", causes, r.Summary.Causes, tc.causes)
			}
			for cause := range causes {
				if !fingerprints[cause] {
					t.Errorf("the cause %s is no finding", cause)
				}
			}
			for _, format := range []report.Format{report.Text, report.Markdown, report.GitHub} {
				var out strings.Builder
				if err := report.Write(&out, format, &r, report.Options{}); err != nil {
					t.Fatal(err)
				}
				text, _, _ := strings.Cut(out.String(), "::stop-commands")
				if got := strings.Count(strings.ToLower(text), "similar finding"); (got > 0) != (tc.causes < len(r.Findings)) {
					t.Errorf("%s: %d entries of several findings\n%s", format, got, text)
				}
			}
		})
	}
}

func TestNormalize_SuppressedHasACauseOfItsOwn(t *testing.T) {
	a, b := at("r", "x", "a.yaml:1", "a.yaml:1", "", "m"), at("r", "y", "b.yaml:1", "b.yaml:1", "", "m")
	a.Suppressed = &report.Suppression{By: report.ByBaseline}
	r := report.Report{Findings: []report.Finding{a, b}}
	r.Normalize()
	if r.Findings[0].Cause == r.Findings[1].Cause || r.Summary.Causes != 1 {
		t.Errorf("causes %s and %s, in the summary %d", r.Findings[0].Cause, r.Findings[1].Cause, r.Summary.Causes)
	}
	if err := report.Write(io.Discard, report.HTML, &r, report.Options{}); err != nil {
		t.Error(err)
	}
}

// TestWriteText_NotEvaluatedFitsOnAScreen has many reasons that differ in names, many others, and a long one.
func TestWriteText_NotEvaluatedFitsOnAScreen(t *testing.T) {
	r := report.Report{}
	for i := range 50 {
		for _, rule := range []string{"a", "b"} {
			r.Skipped = append(r.Skipped, report.Skipped{Rule: rule, Unknown: true, Reason: fmt.Sprintf("cannot determine whether Secret ns/s%d exists", i)})
		}
		r.Skipped = append(r.Skipped, report.Skipped{Unknown: true, Reason: "one " + strings.Repeat("x", i+1)})
	}
	r.Skipped = append(r.Skipped, report.Skipped{Unknown: true, Leading: true, Reason: "long: " + strings.Repeat("name, ", 1000) + "use --flag"})
	r.Normalize()
	var out strings.Builder
	if err := report.WriteText(&out, &r, report.Options{}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) > 22 {
		t.Errorf("%d lines\n%s", len(lines), out.String())
	}
	for _, line := range lines {
		if len(line) > 300 {
			t.Errorf("%d characters: %s", len(line), line)
		}
	}
	for _, want := range []string{"use --flag", "a, b: cannot determine whether Secret ns/s0 exists (and 99 more)", "further causes; --output json has all"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}
