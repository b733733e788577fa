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

// TestTrees checks whole trees. Their comments have the expected findings: the rule, the object, the position in Git
// and, if it matters, the message.
//
//	want: RULE KIND NAMESPACE/NAME FILE:LINE:COLUMN ["regexp"]
//	also: FILE:LINE:COLUMN   (a related position of the finding above; any number)
//	suppressed: RULE         (a finding that does not count)
func TestTrees(t *testing.T) {
	for name, archive := range archives(t, "testdata") {
		t.Run(name, func(t *testing.T) {
			r := evaluate(t, archive.Files)
			for _, e := range r.Errors {
				t.Errorf("error: %+v", e)
			}
			compare(t, string(archive.Comment), r.Findings)
		})
	}
}

// TestRegression checks mistakes from the history of real clusters, reduced to small trees. The files of base.txtar are
// in every tree, those below before/ are the mistake and those below after/ its repair. The comments have the expected
// findings of the first, as for TestTrees; the second must have none.
func TestRegression(t *testing.T) {
	cases := archives(t, filepath.Join("testdata", "regression"))
	base := cases["base"].Files
	delete(cases, "base")
	if len(cases) < 20 {
		t.Errorf("%d cases, want at least 20", len(cases))
	}
	for name, archive := range cases {
		for side, comment := range map[string]string{"before": string(archive.Comment), "after": ""} {
			t.Run(name+"/"+side, func(t *testing.T) {
				if side == "before" && !strings.Contains(comment, "\nwant: ") {
					t.Error("no finding is expected of the mistake")
				}
				r := evaluate(t, append(filesOf(archive, side), base...))
				for _, e := range r.Errors {
					t.Errorf("error: %+v", e)
				}
				compare(t, comment, r.Findings)
			})
		}
	}
}

// filesOf returns the files of one side of a regression case, and those of both.
func filesOf(archive *txtar.Archive, side string) []txtar.File {
	var out []txtar.File
	for _, f := range archive.Files {
		switch first, rest, _ := strings.Cut(f.Name, "/"); first {
		case side:
			out = append(out, txtar.File{Name: rest, Data: f.Data})
		case "before", "after":
		default:
			out = append(out, f)
		}
	}
	return out
}

func archives(t *testing.T, dir string) map[string]*txtar.Archive {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no archives in %s: %v", dir, err)
	}
	out := map[string]*txtar.Archive{}
	for _, name := range names {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimSuffix(filepath.Base(name), ".txtar")] = archive
	}
	return out
}

var wantLine = regexp.MustCompile(`^want: (\S+) (\S+ \S+) (\S+)(?: "(.*)")?$`)

// compare compares findings with those that a comment expects.
func compare(t *testing.T, comment string, findings []report.Finding) {
	t.Helper()
	left := slices.Clone(findings)
	var last report.Finding
	for line := range strings.Lines(comment) {
		line = strings.TrimSpace(line)
		word, rest, _ := strings.Cut(line, ": ")
		m := wantLine.FindStringSubmatch(line)
		switch {
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
		case word == "want":
			t.Errorf("invalid: %s", line)
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
		t.Errorf(
			"unexpected: %s %s %s:%d:%d %q (suppressed: %v)", f.Rule, f.Object, f.File, f.Line, f.Column, f.Message,
			f.Suppressed,
		)
	}
}

// evaluate writes files to a directory and evaluates it as a tree, with the charts below charts/ if there are some.
func evaluate(t *testing.T, files []txtar.File) *report.Report {
	t.Helper()
	in := check.Input{Path: t.TempDir()}
	for _, f := range files {
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
