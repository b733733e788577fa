package check_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/test/ruletest"
)

// TestTrees checks whole trees. Their comments have the expected findings: the rule, the object, the position in Git and the message.
//
//	want: RULE KIND NAMESPACE/NAME FILE:LINE:COLUMN "regexp"
//	also: FILE:LINE:COLUMN   (a related position of the finding above; any number)
//	suppressed: RULE         (a finding that does not count)
func TestTrees(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatalf("no trees: %v", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			archive := txtar.Parse(data)
			r := evaluate(t, archive)
			for _, e := range r.Errors {
				t.Errorf("error: %+v", e)
			}
			compare(t, string(archive.Comment), r.Findings)
		})
	}
}

var wantLine = regexp.MustCompile(`^want: (\S+) (\S+ \S+) (\S+) "(.*)"$`)

func compare(t *testing.T, comment string, findings []report.Finding) {
	t.Helper()
	left := slices.Clone(findings)
	var last report.Finding
	for line := range strings.Lines(comment) {
		line = strings.TrimSpace(line)
		word, rest, _ := strings.Cut(line, ": ")
		switch m := wantLine.FindStringSubmatch(line); {
		case m != nil:
			message := regexp.MustCompile(m[4])
			i := slices.IndexFunc(left, func(f report.Finding) bool {
				return f.Suppressed == nil && f.Rule == m[1] && f.Object.String() == m[2] && message.MatchString(f.Message) &&
					fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column) == m[3]
			})
			if i < 0 {
				t.Errorf("missing: %s", line)
				continue
			}
			last = left[i]
			left = slices.Delete(left, i, i+1)
		case word == "also":
			if !slices.ContainsFunc(last.Related, func(p report.Position) bool { return p.String() == rest }) {
				t.Errorf("%s: related positions %v do not have %s", last.Rule, last.Related, rest)
			}
		case word == "suppressed":
			i := slices.IndexFunc(left, func(f report.Finding) bool { return f.Suppressed != nil && f.Rule == rest })
			if i < 0 {
				t.Errorf("missing: %s", line)
				continue
			}
			left = slices.Delete(left, i, i+1)
		}
	}
	for _, f := range left {
		t.Errorf("unexpected: %s %s %s:%d:%d %q (suppressed: %v)", f.Rule, f.Object, f.File, f.Line, f.Column, f.Message, f.Suppressed)
	}
}

// evaluate writes the archive's files to a directory and evaluates it as a tree, with the charts below charts/ if there are some.
func evaluate(t *testing.T, archive *txtar.Archive) *report.Report {
	t.Helper()
	in := check.Input{Path: t.TempDir()}
	for _, f := range archive.Files {
		if err := ruletest.WriteFile(in.Path, f.Name, f.Data); err != nil {
			t.Fatal(err)
		}
	}
	if charts := filepath.Join(in.Path, "charts"); isDir(charts) {
		in.Charts = []string{charts}
	}
	r, err := check.Run(t.Context(), check.Options{Input: in})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}
