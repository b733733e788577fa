package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// exemptTree has two clusters that build the same directory, with one mistake: a field that a Deployment does not have.
func exemptTree(policy string) map[string]string {
	files := map[string]string{"apps/web/deployment.yaml": `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicaz: 1
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: 'web:1'}]}}
`}
	for _, c := range []string{"clusters/home", "clusters/prod"} {
		files[c+"/gotk-sync.yaml"] = strings.ReplaceAll(gotkSync, "./clusters/home", "./"+c)
		files[c+"/apps.yaml"] = `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: web, namespace: flux-system}
spec: {interval: 10m, path: ./apps/web, prune: true, sourceRef: {kind: GitRepository, name: flux-system}}
`
		if policy != "" {
			files[c+"/policy.yaml"] = policy
		}
	}
	return files
}

func exemptingPolicy(exemptions string) string {
	return "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\nspec:\n  exemptions:\n" + exemptions
}

func TestCheck_Exemptions(t *testing.T) {
	at := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
	one := func(match string) string {
		return exemptingPolicy("  - {rules: [SC001], match: {" + match + "}, reason: known}\n")
	}
	for _, test := range []struct {
		name, policy string
		code, deny   int
		want         []string
		not          []string
	}{
		{name: "none", code: 1, deny: 2},
		{name: "the path", policy: one(`paths: ['apps/*']`), not: []string{"EX002"}},
		{name: "another path", policy: one(`paths: [apps/db/*]`), code: 1, deny: 2, want: []string{"EX002", "the exemption from SC001 applies to nothing in this tree (known)", "policy.yaml\n  6:5"}},
		{name: "a cluster by the end of its directory", policy: one(`clusters: [prod]`), code: 1, deny: 1},
		{name: "clusters by a pattern", policy: one(`clusters: ['clusters/*']`)},
		{name: "a cluster and a path", policy: one(`clusters: [home], paths: [apps/web/deployment.yaml]`), code: 1, deny: 1},
		{name: "names by a pattern", policy: one(`names: ['we*']`), not: []string{"EX00"}},
		{
			name: "expired", code: 1, deny: 2, not: []string{"EX002"}, want: []string{"EX001", "the exemption from SC001 expired at 2020-01-01T00:00:00Z, so it does not apply (known)"},
			policy: exemptingPolicy("  - {rules: [SC001], match: {names: [web]}, reason: known, expires: '2020-01-01T00:00:00Z'}\n"),
		},
		{
			name: "soon to expire", want: []string{"EX001", "the exemption from SC001 expires at"},
			policy: exemptingPolicy(fmt.Sprintf("  - {rules: [SC001], match: {names: [web]}, reason: known, expires: '%s'}\n", at(48*time.Hour))),
		},
		{
			name: "later to expire", not: []string{"EX001"},
			policy: exemptingPolicy(fmt.Sprintf("  - {rules: [SC001], match: {names: [web]}, reason: known, expires: '%s'}\n", at(400*24*time.Hour))),
		},
		{
			name: "two for one finding are both used", not: []string{"EX002"},
			policy: exemptingPolicy("  - {rules: [SC001], match: {names: [web]}, reason: known}\n  - {rules: ['*'], match: {kinds: [Deployment]}, reason: known}\n"),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := writeTree(t, exemptTree(test.policy))
			code, out, stderr := execute(t, "check", dir)
			if code != test.code || strings.Count(out, "SC001 unknown-field") != min(test.deny, 1) {
				t.Errorf("exit code is %d, want %d, %s", code, test.code, stderr)
			}
			if got := strings.Count(denials(out), "1"); got != test.deny {
				t.Errorf("%d clusters have the denial, want %d", got, test.deny)
			}
			for _, want := range test.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q", want)
				}
			}
			for _, not := range test.not {
				if strings.Contains(out, not) {
					t.Errorf("%q is reported", not)
				}
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

// denials returns the column of the table of clusters with the numbers of denials.
func denials(out string) string {
	var column []string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[0], "clusters/") && !strings.Contains(f[0], ".yaml") {
			column = append(column, f[3])
		}
	}
	return strings.Join(column, " ")
}

func TestCheck_ExemptionsOfAPartOfTheTree(t *testing.T) {
	policy := exemptingPolicy("  - {rules: [KS001], match: {names: [nobody]}, reason: known}\n")
	dir := writeTree(t, exemptTree(""))
	file := write(t, policy)
	for _, test := range []struct {
		args []string
		want bool
	}{
		{nil, true}, {[]string{"--cluster", "home"}, false}, {[]string{"--skip", "KS001"}, false}, {[]string{"--only", "SC001"}, false},
	} {
		_, out, stderr := execute(t, append([]string{"check", dir, "--policy", file}, test.args...)...)
		if got := strings.Contains(out, "EX002"); got != test.want {
			t.Errorf("check %v: unused is %t, want %t\n%s%s", test.args, got, test.want, out, stderr)
		}
	}
}
