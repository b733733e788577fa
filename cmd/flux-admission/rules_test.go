package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/rulecatalog"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// listed returns the list of `rules -o json` by name.
func listed(t *testing.T, args ...string) map[string]rulecatalog.Rule {
	t.Helper()
	code, stdout, stderr := execute(t, append([]string{"rules", "-o", "json"}, args...)...)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var list []rulecatalog.Rule
	if err := json.Unmarshal([]byte(stdout), &list); err != nil {
		t.Fatal(err)
	}
	byName := map[string]rulecatalog.Rule{}
	for _, r := range list {
		byName[r.Name] = r
	}
	return byName
}

func TestRules_ListsEveryRule(t *testing.T) {
	list := listed(t)
	for _, r := range allvalidators.Rules() {
		one, ok := list[r.Name]
		if !ok || one.ID != r.ID {
			t.Errorf("%s %s is listed as %+v", r.ID, r.Name, one)
		}
		atAdmission, onlyAudited := r.Stages.Has(validators.StageAdmission), r.Stages == validators.StageAudit
		if hasAction := one.Actions.Cluster != ""; hasAction != (atAdmission || onlyAudited) {
			t.Errorf("%s has the action %q in the cluster; evaluated at admission: %v", r.Name, one.Actions.Cluster, atAdmission)
		}
		if hasAction := one.Actions.Check != ""; hasAction == onlyAudited {
			t.Errorf("%s has the action %q in check; only the audit evaluates it: %v", r.Name, one.Actions.Check, onlyAudited)
		}
	}
	if len(list) != len(allvalidators.Rules()) {
		t.Errorf("%d rules are listed, there are %d", len(list), len(allvalidators.Rules()))
	}
}

func TestRules_Actions(t *testing.T) {
	cases := map[string]struct {
		policy, rule string
		want         rulecatalog.Actions
	}{
		"the default policy denies in the cluster a finding that only warns in check": {
			rule: "kustomization-namespace", want: rulecatalog.Actions{Cluster: v1alpha1.ActionDeny, Check: v1alpha1.ActionWarn},
		},
		"the default policy only warns in the cluster if the same apply may add the object": {
			rule: "source-missing", want: rulecatalog.Actions{Cluster: v1alpha1.ActionWarn, Check: v1alpha1.ActionDeny},
		},
		"the actions of a file apply to both": {
			policy: "spec: {rules: {source-missing: {action: Audit}}}", rule: "source-missing", want: rulecatalog.Actions{
				Cluster: v1alpha1.ActionAudit, Check: v1alpha1.ActionAudit,
			},
		},
		"a rule that a file disables is listed as off": {
			policy: `spec: {rules: {source-missing: {action: "Off"}}}`, rule: "source-missing", want: rulecatalog.Actions{
				Cluster: v1alpha1.ActionOff, Check: v1alpha1.ActionOff,
			},
		},
		"a rule that a file does not name has its default action": {
			policy: "spec: {}", rule: "unknown-field", want: rulecatalog.Actions{Cluster: "", Check: v1alpha1.ActionDeny},
		},
		"mode AuditOnly downgrades every action": {
			policy: "spec: {mode: AuditOnly, rules: {helm-values-schema: {action: Deny}}}", rule: "helm-values-schema", want: rulecatalog.Actions{
				Cluster: v1alpha1.ActionAudit, Check: v1alpha1.ActionAudit,
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var args []string
			if c.policy != "" {
				args = []string{
					"--policy",
					write(
						t, "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\n"+c.policy+"\n",
					),
				}
			}
			if got := listed(t, args...)[c.rule].Actions; got != c.want {
				t.Errorf("%s has the actions %+v, want %+v", c.rule, got, c.want)
			}
		})
	}
}

func TestRules_InvalidArguments(t *testing.T) {
	cases := map[string]struct {
		args []string
		want string
	}{
		"an unknown format": {[]string{"rules", "-o", "yaml"}, `--output "yaml" is not a format: use text, wide or json`},
		"a missing file":    {[]string{"rules", "--policy", "no/such/file"}, "--policy: open no/such/file"},
		"a misspelled rule in a file": {
			[]string{
				"rules", "--policy",
				write(
					t,
					"apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\nspec: {rules: {source-mising: {action: Deny}}}\n",
				),
			},
			"source-missing",
		},
		"an unexpected argument": {[]string{"rules", "source-missing"}, "source-missing"},
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

func TestRules_Table(t *testing.T) {
	for output, titles := range map[string]bool{"text": false, "wide": true} {
		code, stdout, _ := execute(t, "rules", "-o", output)
		lines := strings.Split(strings.TrimSpace(stdout), "\n")
		if code != 0 || len(lines) != len(allvalidators.Rules())+1 {
			t.Fatalf("%s: exit code %d, %d lines", output, code, len(lines))
		}
		want := []string{"KS001", "kustomization-namespace", "error", "Deny", "Warn"}
		if got := strings.Fields(lines[1]); !slices.Equal(got[:len(want)], want) {
			t.Errorf("%s: the first line is %q, want it to start with %v", output, lines[1], want)
		}
		for i, r := range allvalidators.Rules() {
			if line := lines[i+1]; strings.Contains(line, r.Doc.Title) != titles || !titles && len(line) > 80 {
				t.Errorf("%s: %q; with the title: %t", output, line, titles)
			}
		}
	}
}
