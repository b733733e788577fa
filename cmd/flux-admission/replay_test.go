package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/flux-admission/flux-admission/internal/report"
)

// replayDir holds trees of a real cluster's history with the mistakes that its author repaired later, in a folder beside the project; its README says
// what is in it.
const replayDir = "../../../shared/replay"

// replayCase is a line of cases.jsonl, or of negatives.jsonl (with tree).
type replayCase struct {
	ID, Before, After, Tree, Rule, File, Object string
	FixWasRight                                 any `json:"fix_was_right"`
}

// is tells whether a finding is the labelled mistake: it is about the object, names it as what is missing, or stands in the file.
func (c *replayCase) is(f *report.Finding) bool {
	if f.Rule != c.Rule {
		return false
	}
	for object := range strings.SplitSeq(c.Object, ", ") {
		if strings.HasSuffix(f.Message, " "+object) {
			return true
		}
		kind, name, _ := strings.Cut(object, " ")
		if full := strings.TrimPrefix(f.Object.Namespace+"/"+f.Object.Name, "/"); f.Object.Kind == kind && (full == name || f.Object.Name == name) {
			return true
		}
	}
	return f.File == c.File || slices.ContainsFunc(f.Related, func(p report.Position) bool { return p.File == c.File })
}

// refuted are the rules by which the claims of negatives.jsonl would be reported, by case.
var refuted = map[string][]string{
	"N01": {"helm-values-schema", "helm-values-unknown-key", "helm-render-failed"}, "N04": {"kustomization-target-namespace", "namespace-missing"},
	"N07": {"kustomization-dependency-missing"}, "N10": {"kustomization-namespace", "kustomization-orphaned"},
	"N13": {"helm-values-schema", "helm-values-unknown-key"}, "N16": {"unknown-field", "api-version-not-served"},
	"N19": {"kustomization-dependency-missing", "kustomization-dependency-cycle"}, "N22": {"kustomization-dependency-missing"},
	"N25": {"kustomization-dependency-missing"}, "N27b": {"unknown-field", "invalid-value"}, "N27e": {"unknown-field", "invalid-value"},
}

func TestReplayOfARealClustersHistory(t *testing.T) {
	if _, err := os.Stat(replayDir); err != nil {
		fmt.Println("the replay of a real cluster's history is not here: nothing was compared")
		return
	}
	r := newReplay(t)
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "case\trule\tbefore\tafter\tfix was right\textra before")
	found, missed, extra := 0, 0, map[string]bool{}
	for _, c := range readCases(t, "cases.jsonl") {
		before, after := r.check(t, c.Before), r.check(t, c.After)
		seen, still := slices.ContainsFunc(before, pointed(c.is)), slices.ContainsFunc(after, pointed(c.is))
		others := 0
		for i := range before {
			if f := &before[i]; !c.is(f) {
				others++
				extra[f.Rule+" "+f.Object.String()+" "+f.Message] = true
			}
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%v\t%d\n", c.ID, c.Rule, word(seen, "found", "MISSED"), word(still, "still there", "gone"), c.FixWasRight, others)
		if seen {
			found++
		} else {
			missed++
			t.Errorf("%s: %s is not found in %s", c.ID, c.Rule, c.Before)
		}
		if still && c.FixWasRight == true {
			t.Errorf("%s: %s is still found in %s", c.ID, c.Rule, c.After)
		}
	}
	_ = w.Flush()
	fmt.Printf("%s%d found, %d missed, %d other findings in all\n", table.String(), found, missed, len(extra))
	for _, c := range readCases(t, "negatives.jsonl") {
		rules := refuted[c.ID]
		if len(rules) == 0 {
			t.Errorf("%s: it is not said which rules would report the claim", c.ID)
		}
		for _, f := range r.check(t, c.Tree) {
			kind, name, named := strings.Cut(c.Object, " ")
			about := !named || f.Object.Kind == kind && f.Object.Namespace+"/"+f.Object.Name == name
			if slices.Contains(rules, f.Rule) && about && (named || f.Path == "spec.retryInterval" || strings.Contains(f.Path, "retries")) {
				t.Errorf("%s: %s is reported of %s: %s", c.ID, f.Rule, f.Object, f.Message)
			}
		}
	}
}

func pointed(is func(*report.Finding) bool) func(report.Finding) bool {
	return func(f report.Finding) bool { return is(&f) }
}

func word(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}

func readCases(t *testing.T, name string) []replayCase {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(replayDir, name))
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
	return out
}

// replay checks trees of the history, each once.
type replay struct {
	repository string
	checked    map[string][]report.Finding
}

func newReplay(t *testing.T) *replay {
	t.Helper()
	r := &replay{repository: filepath.Join(t.TempDir(), "replay"), checked: map[string][]report.Finding{}}
	if _, err := git(t.Context(), ".", "clone", "-q", "--no-checkout", filepath.Join(replayDir, "trees.bundle"), r.repository); err != nil {
		t.Fatal(err)
	}
	return r
}

// tree writes the tree of a tag to a directory of its own.
func (r *replay) tree(t *testing.T, tag string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), tag)
	if _, err := git(t.Context(), r.repository, "worktree", "add", "-q", "--force", dir, tag); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (r *replay) check(t *testing.T, tag string) []report.Finding {
	t.Helper()
	if findings, ok := r.checked[tag]; ok {
		return findings
	}
	r.checked[tag] = checkTree(t, r.tree(t, tag)).Findings
	return r.checked[tag]
}

func checkTree(t *testing.T, dir string) *report.Report {
	t.Helper()
	o := checkOptions{output: "json", failOn: "never", treeOptions: treeOptions{charts: []string{filepath.Join(replayDir, "..", "charts")}}}
	var out bytes.Buffer
	if err := runCheck(t.Context(), o, dir, nil, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	var rep report.Report
	if err := json.Unmarshal(out.Bytes(), &rep); err != nil {
		t.Fatal(err)
	}
	return &rep
}

// Of the labelled mistakes, those that carry an edit are repaired by fix: a check of the tree agrees, a second fix changes nothing, and the difference is as
// small as the repair.
func TestFixRepairsARealClustersMistakes(t *testing.T) {
	if _, err := os.Stat(replayDir); err != nil {
		fmt.Println("the replay of a real cluster's history is not here: nothing was repaired")
		return
	}
	r := newReplay(t)
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "case\trule\tlines removed\tlines added")
	repaired := 0
	for _, c := range readCases(t, "cases.jsonl") {
		i := slices.IndexFunc(r.check(t, c.Before), func(f report.Finding) bool { return c.is(&f) && f.Fixable })
		if i < 0 {
			continue
		}
		repaired++
		dir := r.tree(t, c.Before)
		o := fixOptions{rules: []string{c.Rule}, treeOptions: treeOptions{charts: []string{filepath.Join(replayDir, "..", "charts")}}}
		var said bytes.Buffer
		if err := runFix(t.Context(), o, dir, &said, &said); err != nil && !errors.Is(err, errFindings) {
			t.Fatalf("%s: %v", c.ID, err)
		}
		changes := strings.Count(said.String(), "\n") - 1 - strings.Count(said.String(), "left alone, ")
		for _, f := range checkTree(t, dir).Findings {
			if c.is(&f) && f.Fixable {
				t.Errorf("%s: %s is still found: %s", c.ID, c.Rule, f.Message)
			}
		}
		stat, err := git(t.Context(), dir, "diff", "--numstat")
		if err != nil {
			t.Fatal(err)
		}
		added, removed := 0, 0
		for line := range strings.Lines(string(stat)) {
			var a, d int
			var name string
			if _, err := fmt.Sscan(line, &a, &d, &name); err != nil {
				t.Fatal(err)
			}
			added, removed = added+a, removed+d
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%d\n", c.ID, c.Rule, removed, added)
		// A changed or added line is one of each; a block that moves has as many as it is long.
		if limit := 2*changes + 10; added+removed > limit || added+removed == 0 {
			t.Errorf("%s: %d lines differ for %d repairs:\n%s", c.ID, added+removed, changes, said.String())
		}
		said.Reset()
		if err := runFix(t.Context(), o, dir, &said, &said); err != nil && !errors.Is(err, errFindings) {
			t.Fatal(err)
		}
		if again, err := git(t.Context(), dir, "diff", "--numstat"); err != nil || string(again) != string(stat) {
			t.Errorf("%s: a second fix changes %q to %q (%v)", c.ID, stat, again, err)
		}
	}
	_ = w.Flush()
	fmt.Printf("%s%d labelled mistakes carry an edit and are repaired\n", table.String(), repaired)
	if repaired == 0 {
		t.Error("no labelled mistake carries an edit")
	}
}
