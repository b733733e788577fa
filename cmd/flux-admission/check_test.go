package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/internal/report"
)

const sync = `apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 1m, url: https://git.example.com/x}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 10m, path: ./clusters/home, prune: true, sourceRef: {kind: GitRepository, name: flux-system}}
`

const child = `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: db
  namespace: %s
spec:
  interval: 10m
  path: ./apps/db
  prune: true
  sourceRef: {kind: GitRepository, name: flux-system, namespace: flux-system}
`

const cluster = `apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata:
  name: db
  namespace: apps
spec:
  instances: 1
  storage:
    size: 1Gi
  monitoring:
    %s: true
`

func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func repository(namespace, field string) map[string]string {
	return map[string]string{
		"clusters/home/flux-system/gotk-sync.yaml": sync,
		"clusters/home/db.yaml":                    fmt.Sprintf(child, namespace),
		"apps/db/cluster.yaml":                     fmt.Sprintf(cluster, field),
	}
}

func TestCheck(t *testing.T) {
	const refuse = "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\nspec: {rules: {kustomization-namespace: {action: Deny}, cnpg-monitoring-enabled: {action: Warn}}}\n"
	for name, tc := range map[string]struct {
		files   map[string]string
		options checkOptions
		stdin   string
		want    []string // rule action file:line
		fails   bool
	}{
		"a clean tree": {files: repository("flux-system", "enablePodMonitor")},
		"both mistakes, each at its line; without a policy the namespace only warns": {
			files: repository("apps", "enabled"), fails: true,
			want: []string{"cnpg-monitoring-enabled Deny apps/db/cluster.yaml:11", "kustomization-namespace Warn clusters/home/db.yaml:5"},
		},
		"warnings fail only where asked": {files: repository("apps", "enablePodMonitor"), options: checkOptions{failOn: "warn"}, fails: true,
			want: []string{"kustomization-namespace Warn clusters/home/db.yaml:5"}},
		"nothing fails with never": {files: repository("apps", "enabled"), options: checkOptions{failOn: "never"},
			want: []string{"cnpg-monitoring-enabled Deny apps/db/cluster.yaml:11", "kustomization-namespace Warn clusters/home/db.yaml:5"}},
		"the policy that the tree applies decides": {
			files: func() map[string]string {
				f := repository("apps", "enabled")
				f["clusters/home/policy.yaml"] = refuse
				return f
			}(), fails: true,
			want: []string{"cnpg-monitoring-enabled Warn apps/db/cluster.yaml:11", "kustomization-namespace Deny clusters/home/db.yaml:5"},
		},
		"plain manifests on standard input": {stdin: fmt.Sprintf(cluster, "enabled"), fails: true, want: []string{"cnpg-monitoring-enabled Deny stdin:11"}},
		"a directory of plain manifests": {files: map[string]string{"db.yaml": fmt.Sprintf(cluster, "enabled")}, fails: true,
			want: []string{"cnpg-monitoring-enabled Deny db.yaml:11"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := tc.options
			o.output = "json"
			if o.failOn == "" {
				o.failOn = "deny"
			}
			path := "-"
			if tc.stdin == "" {
				path = tree(t, tc.files)
			}
			var out bytes.Buffer
			err := runCheck(t.Context(), o, path, strings.NewReader(tc.stdin), &out)
			if tc.fails != errors.Is(err, errFindings) || !tc.fails && err != nil {
				t.Errorf("error %v, want findings: %t", err, tc.fails)
			}
			var r report.Report
			if err := json.Unmarshal(out.Bytes(), &r); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			var got []string
			for _, f := range r.Findings {
				got = append(got, fmt.Sprintf("%s %s %s:%d", f.Rule, f.Action, f.File, f.Line))
			}
			slices.Sort(got)
			if !slices.Equal(got, tc.want) || len(r.Errors) > 0 {
				t.Errorf("findings %q, errors %v; want %q", got, r.Errors, tc.want)
			}
		})
	}
}

// What keeps Flux from building is an error with its place, and fails the check.
func TestCheckOfATreeThatCannotBeBuilt(t *testing.T) {
	files := repository("flux-system", "enablePodMonitor")
	files["apps/db/kustomization.yaml"] = "resources: [cluster.yaml, gone.yaml]\n"
	var out bytes.Buffer
	err := runCheck(t.Context(), checkOptions{output: "text", failOn: "deny"}, tree(t, files), nil, &out)
	if !errors.Is(err, errFindings) || !strings.Contains(out.String(), "gone.yaml") || !strings.Contains(out.String(), "apps/db/kustomization.yaml") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestCheckWithMistakenOptions(t *testing.T) {
	good := tree(t, repository("flux-system", "enablePodMonitor"))
	for name, tc := range map[string]struct {
		options checkOptions
		path    string
		want    string
	}{
		"an unknown format":          {checkOptions{output: "xml", failOn: "deny"}, good, `--output "xml" is not a format: use text, json, sarif, junit, github or html`},
		"an unknown threshold":       {checkOptions{output: "text", failOn: "always"}, good, `--fail-on "always": use deny, warn or never`},
		"a variable without value":   {checkOptions{output: "text", failOn: "deny", vars: []string{"X"}}, good, `--var "X": want NAME=VALUE`},
		"a policy that is not there": {checkOptions{output: "text", failOn: "deny", policy: "/nope"}, good, "--policy: open /nope: no such file or directory"},
		"a tree that is not there":   {checkOptions{output: "text", failOn: "deny"}, "/nope", "/nope"},
	} {
		t.Run(name, func(t *testing.T) {
			err := runCheck(t.Context(), tc.options, tc.path, nil, &bytes.Buffer{})
			if err == nil || errors.Is(err, errFindings) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}
