package conformance_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/test/ruletest"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// TestCheck writes each case as a Git tree, with the objects that it looks up beside the object itself, and checks it.
// The findings must be those of the suite, at the lines that the case expects.
func TestCheck(t *testing.T) {
	compared := 0
	for _, rule := range allvalidators.Rules() {
		if !rule.Stages.Has(validators.StageOffline) {
			continue
		}
		for _, c := range cases(t, rule) {
			if reason := c.NotATree(); reason != "" {
				t.Logf("%s/%s is not compared: %s", rule.Name, c.Name, reason)
				continue
			}
			compared++
			t.Run(rule.Name+"/"+c.Name, func(t *testing.T) {
				found := ruletest.Own(c.Suite(t, rule).Evaluate(t.Context(), c.Request, c.Lookup(t, resolver)), rule)
				var want, got []string
				var wantLines, gotLines []int
				for _, f := range found.Findings {
					want = append(want, f.Path.String()+": "+f.Message)
				}
				for _, w := range c.Want {
					wantLines = append(wantLines, w.Line)
				}
				for _, f := range checked(t, c, rule) {
					got = append(got, f.Path+": "+strings.ReplaceAll(f.Message, ruletest.EntryPoint+"/", ""))
					gotLines = append(gotLines, f.Line)
				}
				slices.Sort(want)
				slices.Sort(got)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("findings (-suite +check):\n%s", diff)
				}
				slices.Sort(wantLines)
				slices.Sort(gotLines)
				if diff := cmp.Diff(wantLines, gotLines); diff != "" {
					t.Errorf("lines of the findings (-case +check):\n%s", diff)
				}
			})
		}
	}
	if compared < 100 {
		t.Errorf("%d cases were compared, want at least 100", compared)
	}
}

// isEmpty reports whether a directory has no entries: check refuses such a one as the directory of charts.
func isEmpty(t *testing.T, dir string) bool {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries) == 0
}

// checked writes the case as a tree, checks it with a policy that denies the rule's findings only, and returns the
// rule's findings on the case's object.
func checked(t *testing.T, c *ruletest.Case, rule *validators.Rule) []report.Finding {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "tree")
	sources, err := c.WriteTree(root)
	if err != nil {
		t.Fatal(err)
	}
	var charts []string
	if dir := c.WriteCharts(t); !isEmpty(t, dir) {
		charts = append(charts, dir)
	}
	in := check.Input{
		Path: root, EntryPoints: []string{ruletest.EntryPoint}, Charts: charts,
		Policy: filepath.Join(dir, "policy.yaml"), CRDs: []string{filepath.Join(dir, "gadgets.yaml")},
	}
	for _, name := range sources {
		in.Sources = append(in.Sources, name+"="+root)
	}
	for name, data := range map[string][]byte{"policy.yaml": policyText(t, c, rule), "gadgets.yaml": []byte(ruletest.Gadgets)} {
		if err := ruletest.WriteFile(dir, name, data); err != nil {
			t.Fatal(err)
		}
	}
	result, err := check.Run(t.Context(), check.Options{Input: in})
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := report.Write(&text, report.JSON, result, report.Options{}); err != nil {
		t.Fatal(err)
	}
	var r report.Report
	if err := json.Unmarshal(text.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(r.Findings, func(f report.Finding) bool {
		o := c.Request.Object
		return f.ID != rule.ID ||
			f.Object != (report.Object{
				APIVersion: o.GetAPIVersion(), Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName(),
			})
	})
}
