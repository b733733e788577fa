package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/internal/report"
)

func TestCompare(t *testing.T) {
	finding := func(line int, message string) report.Finding {
		return report.Finding{
			ID: "KS001", Action: "Deny", Object: report.Object{Kind: "Kustomization", Name: "web"}, File: "a.yaml", Line: line,
			Message: message,
		}
	}
	of := func(findings ...report.Finding) *outcome {
		return &outcome{lines: linesOf(&report.Report{Findings: findings})}
	}
	const third, fourth = `finding KS001 Deny, Kustomization web, a.yaml:3, path ""`, `finding KS001 Deny, Kustomization web, a.yaml:4, path ""`
	tests := map[string]struct {
		before, after  *outcome
		removed, added []string
	}{
		"another text is no difference": {before: of(finding(3, "is wrong")), after: of(finding(3, "is not right"))},
		"another line is a difference": {
			before: of(finding(3, "")), after: of(finding(4, "")), removed: []string{third}, added: []string{fourth},
		},
		"a lost duplicate is a difference": {
			before: of(finding(3, ""), finding(3, "")), after: of(finding(3, "")), removed: []string{third},
		},
		"another exit code is a difference": {
			before: &outcome{}, after: &outcome{exit: 1}, removed: []string{"exit code 0"}, added: []string{"exit code 1"},
		},
		"the text of a failure may change": {before: &outcome{failure: "a"}, after: &outcome{failure: "b"}},
		"a failure of one only is a difference": {
			before: &outcome{}, after: &outcome{failure: "b"}, removed: []string{"failure: "}, added: []string{"failure: b"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := compare(test.before, test.after)
			if diff := cmp.Diff([2][]string{test.removed, test.added}, [2][]string{got.removed, got.added}); diff != "" {
				t.Errorf("removed and added lines (-want +got):\n%s", diff)
			}
			if want := len(test.removed)+len(test.added) == 0; got.equal() != want {
				t.Errorf("equal: %t, want %t", got.equal(), want)
			}
		})
	}
}

func TestTranslate(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"policy.yaml": "kind: AdmissionPolicy\nspec:\n  exemptions:\n    - rules: [a]\n", "other.yaml": "exemptions: []\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	translated, err := translate(dir)
	if err != nil || translated == "" {
		t.Fatalf("directory %q, error %v", translated, err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(translated) })
	for name, want := range map[string]string{
		"policy.yaml": "kind: AdmissionPolicy\nspec:\n  exceptions:\n    - rules: [a]\n", "other.yaml": "exemptions: []\n",
	} {
		got, err := os.ReadFile(filepath.Join(translated, name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if again, err := translate(translated); err != nil || again != "" {
		t.Errorf("a tree without renamed fields is copied to %q (%v)", again, err)
	}
}
