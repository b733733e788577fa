package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/check/repair"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/test/sharedinputs"
)

// replayCase is a line of cases.jsonl, or of negatives.jsonl (with tree). Trees are tags of trees.bundle: states of a
// real cluster's repository, with mistakes that its author repaired later.
type replayCase struct {
	ID, Before, After, Tree, Rule, File, Object string
	FixWasRight                                 any `json:"fix_was_right"`
}

// matches reports whether a finding is the labeled mistake: its object or the missing object that it names is the
// labeled one, or it is in the labeled file.
func (c *replayCase) matches(f *report.Finding) bool {
	if f.Rule != c.Rule {
		return false
	}
	for object := range strings.SplitSeq(c.Object, ", ") {
		if regexp.MustCompile(`(^| )` + regexp.QuoteMeta(object) + `($|[^\w./-])`).MatchString(f.Message) {
			return true
		}
		kind, name, _ := strings.Cut(object, " ")
		if full := strings.TrimPrefix(f.Object.Namespace+"/"+f.Object.Name, "/"); f.Object.Kind == kind && (full == name || f.Object.Name == name) {
			return true
		}
	}
	return f.File == c.File || slices.ContainsFunc(f.Related, func(p report.Position) bool { return p.File == c.File })
}

// refuted has the rules that would report the claim of each case of negatives.jsonl.
var refuted = map[string][]string{
	"N01": {"helm-values-schema", "helm-values-unknown-key", "helm-render-failed"}, "N04": {
		"kustomization-target-namespace", "namespace-missing",
	},
	"N07": {"kustomization-dependency-missing"}, "N10": {"kustomization-namespace", "kustomization-orphaned"},
	"N13": {"helm-values-schema", "helm-values-unknown-key"}, "N16": {"unknown-field", "api-version-not-served"},
	"N19": {"kustomization-dependency-missing", "kustomization-dependency-cycle"}, "N22": {"kustomization-dependency-missing"},
	"N25": {"kustomization-dependency-missing"}, "N27b": {"unknown-field", "invalid-value"}, "N27e": {
		"unknown-field", "invalid-value",
	},
}

// TestReplay checks the tree of each labeled mistake, where the mistake must be found, and that of its repair, where
// it must not.
func TestReplay(t *testing.T) {
	r := newReplay(t)
	for _, c := range r.cases(t, "cases.jsonl") {
		t.Run(c.ID+" "+c.Rule, func(t *testing.T) {
			if !slices.ContainsFunc(r.check(t, c.Before), pointed(c.matches)) {
				t.Errorf("%s is not found in %s", c.Rule, c.Before)
			}
			if c.FixWasRight == true && slices.ContainsFunc(r.check(t, c.After), pointed(c.matches)) {
				t.Errorf("%s is still found in %s", c.Rule, c.After)
			}
		})
	}
}

// TestReplay_Negatives checks trees in which a mistake was claimed that was none.
func TestReplay_Negatives(t *testing.T) {
	r := newReplay(t)
	for _, c := range r.cases(t, "negatives.jsonl") {
		t.Run(c.ID, func(t *testing.T) {
			rules := refuted[c.ID]
			if len(rules) == 0 {
				t.Fatal("refuted has no rules for this case")
			}
			for _, f := range r.check(t, c.Tree) {
				kind, name, named := strings.Cut(c.Object, " ")
				about := !named || f.Object.Kind == kind && f.Object.Namespace+"/"+f.Object.Name == name
				if slices.Contains(rules, f.Rule) && about && (named || f.Path == "spec.retryInterval" || strings.Contains(f.Path, "retries")) {
					t.Errorf("%s reports %s: %s", f.Rule, f.Object, f.Message)
				}
			}
		})
	}
}

func pointed(is func(*report.Finding) bool) func(report.Finding) bool {
	return func(f report.Finding) bool { return is(&f) }
}

// replay checks trees of the history, each once.
type replay struct {
	dir, charts string
	repository  string
	checked     map[string][]report.Finding
}

func newReplay(t *testing.T) *replay {
	t.Helper()
	shared := sharedinputs.Dir(t)
	r := &replay{
		dir: filepath.Join(shared, "replay"), charts: filepath.Join(shared, "charts"),
		repository: filepath.Join(t.TempDir(), "replay"), checked: map[string][]report.Finding{},
	}
	git(t, ".", "clone", "-q", "--no-checkout", filepath.Join(r.dir, "trees.bundle"), r.repository)
	return r
}

func (r *replay) cases(t *testing.T, name string) []replayCase {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	var out []replayCase
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var c replayCase
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if testing.Short() { // one repository is enough for the race detector
		out = out[:1]
	}
	return out
}

// tree writes the tree of a tag to a new directory.
func (r *replay) tree(t *testing.T, tag string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), tag)
	git(t, r.repository, "worktree", "add", "-q", "--force", dir, tag)
	return dir
}

func (r *replay) check(t *testing.T, tag string) []report.Finding {
	t.Helper()
	if findings, ok := r.checked[tag]; ok {
		return findings
	}
	r.checked[tag] = r.findings(t, r.tree(t, tag))
	return r.checked[tag]
}

func (r *replay) input(dir string) check.Input {
	return check.Input{Path: dir, Charts: []string{r.charts}}
}

func (r *replay) findings(t *testing.T, dir string) []report.Finding {
	t.Helper()
	result, err := check.Run(t.Context(), check.Options{Input: r.input(dir)})
	if err != nil {
		t.Fatal(err)
	}
	return result.Findings
}

// TestReplay_Fix repairs the labeled mistakes that have an edit: a check no longer reports them, a second run changes
// nothing, and the diff is as small as the repairs.
func TestReplay_Fix(t *testing.T) {
	if testing.Short() {
		t.Skip("repairs one repository after another; TestReplay checks one of them in short mode")
	}
	r := newReplay(t)
	repaired := 0
	for _, c := range r.cases(t, "cases.jsonl") {
		if !slices.ContainsFunc(r.check(t, c.Before), func(f report.Finding) bool { return c.matches(&f) && f.Fixable }) {
			continue
		}
		repaired++
		t.Run(c.ID+" "+c.Rule, func(t *testing.T) {
			dir := r.tree(t, c.Before)
			out, _, _ := fixed(t, fixOptions{rules: []string{c.Rule}, Options: repair.Options{Input: r.input(dir)}}, dir)
			changes := strings.Count(out, "\n") - 1 - strings.Count(out, "left alone, ")
			for _, f := range r.findings(t, dir) {
				if c.matches(&f) && f.Fixable {
					t.Errorf("still found: %s", f.Message)
				}
			}
			stat := git(t, dir, "diff", "--numstat")
			lines := 0
			for line := range strings.Lines(stat) {
				var added, removed int
				var name string
				if _, err := fmt.Sscan(line, &added, &removed, &name); err != nil {
					t.Fatal(err)
				}
				lines += added + removed
			}
			// A repair changes or adds a line, or moves a block.
			if limit := 2*changes + 10; lines > limit || lines == 0 {
				t.Errorf("%d lines differ for %d repairs, want 1 to %d:\n%s", lines, changes, limit, out)
			}
			fixed(t, fixOptions{rules: []string{c.Rule}, Options: repair.Options{Input: r.input(dir)}}, dir)
			if diff := cmp.Diff(stat, git(t, dir, "diff", "--numstat")); diff != "" {
				t.Errorf("changes of a second run (-first +second):\n%s", diff)
			}
		})
	}
	if repaired == 0 {
		t.Error("no labeled mistake has an edit")
	}
}
