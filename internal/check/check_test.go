package check_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/test/ruletest"
)

// TestTrees checks whole trees. The expected findings are directives of test/ruletest in the files, with the object and
// the column, or in the comment of the archive if a file cannot have a comment, or is part of the repair too.
func TestTrees(t *testing.T) {
	for name, archive := range archives(t, "testdata") {
		t.Run(name, func(t *testing.T) {
			r := evaluate(t, archive.Files)
			for _, e := range r.Errors {
				t.Errorf("error: %+v", e)
			}
			compare(t, string(archive.Comment), archive.Files, r.Findings)
		})
	}
}

// TestRegression checks mistakes from the history of real clusters, reduced to small trees. The files of base.txtar are
// in every tree, those below before/ are the mistake and those below after/ its repair. The first must have findings,
// expected as in TestTrees, and the second none.
func TestRegression(t *testing.T) {
	cases := archives(t, filepath.Join("testdata", "regression"))
	base := cases["base"].Files
	delete(cases, "base")
	if len(cases) < 20 {
		t.Errorf("%d cases, want at least 20", len(cases))
	}
	for name, archive := range cases {
		for _, side := range []string{"before", "after"} {
			t.Run(name+"/"+side, func(t *testing.T) {
				files := append(filesOf(archive, side), base...)
				comment := ""
				if side == "before" {
					comment = string(archive.Comment)
				}
				if expected := len(directives(t, comment, files)); (expected > 0) != (side == "before") {
					t.Errorf("%d findings are expected, want some of the mistake and none of its repair", expected)
				}
				r := evaluate(t, files)
				for _, e := range r.Errors {
					t.Errorf("error: %+v", e)
				}
				compare(t, comment, files, r.Findings)
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

// compare compares findings with the directives in the files and in the comment of an archive.
func compare(t *testing.T, comment string, files []txtar.File, findings []report.Finding) {
	t.Helper()
	left := slices.Clone(findings)
	for _, d := range directives(t, comment, files) {
		i := slices.IndexFunc(left, func(f report.Finding) bool { return matches(&f, d) })
		if i < 0 {
			t.Errorf("missing: %s: %s", d.File, d)
			continue
		}
		left = slices.Delete(left, i, i+1)
	}
	for _, f := range left {
		t.Errorf("unexpected: %s %s %s:%d:%d %q (suppressed: %v, related: %v)", f.ID, f.Object, f.File, f.Line, f.Column, f.Message, f.Suppressed, f.Related)
	}
}

func directives(t *testing.T, comment string, files []txtar.File) []ruletest.Directive {
	t.Helper()
	out, err := ruletest.HeaderDirectives(comment)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		list, err := ruletest.Directives(f.Data)
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		for _, d := range list {
			d.File = f.Name
			out = append(out, d)
		}
	}
	return out
}

func matches(f *report.Finding, d ruletest.Directive) bool {
	for _, related := range d.Related {
		if !slices.ContainsFunc(f.Related, func(p report.Position) bool { return p.String() == related }) {
			return false
		}
	}
	return f.ID == d.Rule && f.File == d.File && f.Line == d.Line && (f.Suppressed != nil) == (d.Word == "suppressed") &&
		(d.Message == nil || d.Message.MatchString(f.Message)) && (d.Object == "" || f.Object.String() == d.Object) && (d.Column == 0 || f.Column == d.Column)
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

// TestLoad_Progress: building reports how many Kustomizations of those known so far are built, to the last one.
func TestLoad_Progress(t *testing.T) {
	dir := t.TempDir()
	const sync = "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {name: flux-system, namespace: flux-system}\nspec: {interval: 1m, url: https://example.com/x}\n---\n"
	const kustomization = "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: %[1]s, namespace: flux-system}\n" +
		"spec: {interval: 1m, path: ./%[1]s, prune: true, sourceRef: {kind: GitRepository, name: flux-system}}\n"
	for name, text := range map[string]string{
		"flux-system/gotk-sync.yaml": sync + fmt.Sprintf(kustomization, "flux-system"),
		"flux-system/apps.yaml":      fmt.Sprintf(kustomization, "apps"),
		"apps/a.yaml":                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: a}\n",
	} {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var last [2]int
	tree, err := check.Load(t.Context(), check.Input{Path: dir, ChartCache: "none", Built: func(built, known int) { last = [2]int{built, known} }})
	if err != nil {
		t.Fatal(err)
	}
	tree.Close()
	if want := [2]int{2, 2}; last != want {
		t.Errorf("built and known at the end: %v, want %v", last, want)
	}
}
