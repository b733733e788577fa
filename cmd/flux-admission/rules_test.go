package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

func sampleRules() []listedRule {
	return []listedRule{
		{
			ID: "KS001", Name: "wrong-place", Title: "Widget in the wrong place", Severity: validators.SeverityError, LooksAt: "kinds",
			Kinds: []string{"Widget.example.com", "Secret"}, Actions: ruleActions{Cluster: v1alpha1.ActionDeny, Check: v1alpha1.ActionWarn}, Since: "v0.1.0",
		},
		{
			ID: "FI001", Name: "two-keys", Title: "Key <twice>", Severity: validators.SeverityWarning, LooksAt: "files",
			Kinds: []string{}, Actions: ruleActions{Check: v1alpha1.ActionOff}, Since: "v0.2.0",
		},
	}
}

func TestRulesAreATableWithALineEach(t *testing.T) {
	var out bytes.Buffer
	if err := writeRulesTable(&out, sampleRules()); err != nil {
		t.Fatal(err)
	}
	want := `
ID      NAME          SEVERITY   CLUSTER   CHECK   TITLE                       KINDS
KS001   wrong-place   error      Deny      Warn    Widget in the wrong place   Widget,Secret
FI001   two-keys      warning    -         Off     Key <twice>                 (files)
`
	if out.String() != want[1:] {
		t.Errorf("wrote\n%s\nwant%s", out.String(), want)
	}
}

func TestRulesAreAListInJSON(t *testing.T) {
	var out bytes.Buffer
	if err := writeRulesJSON(&out, sampleRules()); err != nil {
		t.Fatal(err)
	}
	want := `[
  {
    "id": "KS001",
    "name": "wrong-place",
    "title": "Widget in the wrong place",
    "severity": "error",
    "actions": {
      "cluster": "Deny",
      "check": "Warn"
    },
    "looksAt": "kinds",
    "kinds": [
      "Widget.example.com",
      "Secret"
    ],
    "since": "v0.1.0"
  },
  {
    "id": "FI001",
    "name": "two-keys",
    "title": "Key <twice>",
    "severity": "warning",
    "actions": {
      "check": "Off"
    },
    "looksAt": "files",
    "kinds": [],
    "since": "v0.2.0"
  }
]
`
	if out.String() != want {
		t.Errorf("wrote\n%s\nwant\n%s", out.String(), want)
	}
}

type failingWriter struct{}

var errNoRoom = errors.New("no room")

func (failingWriter) Write([]byte) (int, error) { return 0, errNoRoom }

func TestAListThatCannotBeWrittenIsAnError(t *testing.T) {
	for name, err := range map[string]error{
		"text": writeRulesTable(failingWriter{}, sampleRules()), "json": writeRulesJSON(failingWriter{}, sampleRules()),
	} {
		if !errors.Is(err, errNoRoom) {
			t.Errorf("%s: error %v, want one that says %q", name, err, errNoRoom)
		}
	}
}

// listed returns what `rules -o json` lists, by name.
func listed(t *testing.T, args ...string) map[string]listedRule {
	t.Helper()
	code, stdout, stderr := execute(t, append([]string{"rules", "-o", "json"}, args...)...)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var list []listedRule
	if err := json.Unmarshal([]byte(stdout), &list); err != nil {
		t.Fatal(err)
	}
	byName := map[string]listedRule{}
	for _, r := range list {
		byName[r.Name] = r
	}
	return byName
}

func TestEveryRuleIsListed(t *testing.T) {
	list := listed(t)
	for _, r := range allvalidators.Rules() {
		one, ok := list[r.Name]
		if !ok || one.ID != r.ID {
			t.Errorf("%s %s is listed as %+v", r.ID, r.Name, one)
		}
		if hasAction := one.Actions.Cluster != ""; hasAction != r.AtAdmission() {
			t.Errorf("%s has the action %q in the cluster, and is asked there: %v", r.Name, one.Actions.Cluster, r.AtAdmission())
		}
	}
	if len(list) != len(allvalidators.Rules()) {
		t.Errorf("%d rules are listed, there are %d", len(list), len(allvalidators.Rules()))
	}
}

func TestRulesShowTheActionsOfThePolicy(t *testing.T) {
	cases := map[string]struct {
		policy, rule string
		want         ruleActions
	}{
		"the policy that ships refuses in the cluster what check only warns about": {
			rule: "kustomization-namespace", want: ruleActions{v1alpha1.ActionDeny, v1alpha1.ActionWarn},
		},
		"the policy that ships only warns in the cluster of what may come in the same apply": {
			rule: "source-missing", want: ruleActions{v1alpha1.ActionWarn, v1alpha1.ActionDeny},
		},
		"a file's actions are the same in both places": {
			policy: "spec: {rules: {source-missing: {action: Audit}}}", rule: "source-missing", want: ruleActions{v1alpha1.ActionAudit, v1alpha1.ActionAudit},
		},
		"a rule that a file switches off is listed as off": {
			policy: `spec: {rules: {source-missing: {action: "Off"}}}`, rule: "source-missing", want: ruleActions{v1alpha1.ActionOff, v1alpha1.ActionOff},
		},
		"a rule that a file does not name warns at most": {
			policy: "spec: {}", rule: "unknown-field", want: ruleActions{"", v1alpha1.ActionWarn},
		},
		"a file that only audits refuses nothing": {
			policy: "spec: {mode: AuditOnly, rules: {helm-values-schema: {action: Deny}}}", rule: "helm-values-schema", want: ruleActions{v1alpha1.ActionAudit, v1alpha1.ActionAudit},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var args []string
			if c.policy != "" {
				args = []string{"--policy", write(t, "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\n"+c.policy+"\n")}
			}
			if got := listed(t, args...)[c.rule].Actions; got != c.want {
				t.Errorf("%s has the actions %+v, want %+v", c.rule, got, c.want)
			}
		})
	}
}

func TestRulesThatCannotBeListedSayWhy(t *testing.T) {
	cases := map[string]struct {
		args []string
		want string
	}{
		"a format that there is not":    {[]string{"rules", "-o", "yaml"}, `--output "yaml" is not a format: use text or json`},
		"a file that there is not":      {[]string{"rules", "--policy", "no/such/file"}, "--policy: open no/such/file"},
		"a rule that a file misspells":  {[]string{"rules", "--policy", write(t, "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\nspec: {rules: {source-mising: {action: Deny}}}\n")}, "source-missing"},
		"an argument that nothing asks": {[]string{"rules", "source-missing"}, "source-missing"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := execute(t, c.args...)
			if code != exitUsage || stdout != "" || !strings.Contains(stderr, c.want) {
				t.Errorf("exit code %d, output %q, error %q; want 2 and %q", code, stdout, stderr, c.want)
			}
		})
	}
}

func TestTheTableHasTheRulesOfTheProgram(t *testing.T) {
	code, stdout, _ := execute(t, "rules")
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if code != 0 || len(lines) != len(allvalidators.Rules())+1 {
		t.Fatalf("exit code %d, %d lines", code, len(lines))
	}
	want := []string{"KS001", "kustomization-namespace", "error", "Deny", "Warn"}
	if got := strings.Fields(lines[1]); !slices.Equal(got[:len(want)], want) {
		t.Errorf("the first line is %q, want it to begin with %v", lines[1], want)
	}
}
