package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/report"
)

// twoClusters returns a tree of the clusters home and away, each with a Cluster that sets a misplaced field, and with a policy for each that is not
// empty.
func twoClusters(home, away string) map[string]string {
	out := secondCluster(repository("flux-system", "enabled"))
	for name, action := range map[string]string{"home": home, "away": away} {
		if action != "" {
			out["clusters/"+name+"/policy.yaml"] = "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\n" +
				"spec: {rules: {cnpg-monitoring-enabled: {action: " + action + "}}}\n"
		}
	}
	return out
}

// reported runs check on a tree and returns its JSON report.
func reported(t *testing.T, o checkOptions, dir string) *report.Report {
	t.Helper()
	var out, stderr bytes.Buffer
	o.output, o.failOn = "json", "never"
	if err := runCheckIn(t, o, dir, nil, &out, &stderr); err != nil {
		t.Fatal(err)
	}
	r := &report.Report{}
	if err := json.Unmarshal(out.Bytes(), r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCheck_PolicyWithUnknownRule(t *testing.T) {
	files := twoClusters("Deny", "")
	name := "clusters/home/policy.yaml"
	files[name] = strings.ReplaceAll(files[name], "cnpg-monitoring-enabled", "KS005")
	const unknown = `:4: spec.rules.KS005: unknown rule; did you mean "kustomization-path-missing"?`
	if code, _, stderr := execute(t, "check", writeTree(t, files)); code != 2 || !strings.Contains(stderr, name+unknown) {
		t.Errorf("in the tree: exit code %d\n%s", code, stderr)
	}
	file := write(t, files[name])
	for _, args := range [][]string{{"check", writeTree(t, twoClusters("", "")), "--policy", file}, {"rules", "--policy", file}} {
		if code, _, stderr := execute(t, args...); code != 2 || !strings.Contains(stderr, file+unknown) {
			t.Errorf("%s: exit code %d\n%s", args[0], code, stderr)
		}
	}
}

func TestCheck_PolicyOfEachCluster(t *testing.T) {
	for _, tc := range []struct {
		home, away string
		want       []string // the actions of the findings on the Cluster
	}{
		{"", "", []string{"clusters/away Deny", "clusters/home Deny"}},
		{"Off", "Deny", []string{"clusters/away Deny"}},
		{"Deny", "Off", []string{"clusters/home Deny"}},
		{"Warn", "", []string{"clusters/away Deny", "clusters/home Warn"}},
		{"", "Audit", []string{"clusters/away Audit", "clusters/home Deny"}},
	} {
		t.Run(fmt.Sprintf("home %q, away %q", tc.home, tc.away), func(t *testing.T) {
			r := reported(t, checkOptions{}, writeTree(t, twoClusters(tc.home, tc.away)))
			var got []string
			fingerprints := map[string]bool{}
			for _, f := range r.Findings {
				if f.Rule == "cnpg-monitoring-enabled" {
					got = append(got, f.Cluster+" "+string(f.Action))
					fingerprints[f.Fingerprint] = true
				}
			}
			if slices.Sort(got); !slices.Equal(got, tc.want) {
				t.Errorf("findings %q, want %q", got, tc.want)
			}
			if len(fingerprints) != len(got) {
				t.Errorf("%d fingerprints of %d findings", len(fingerprints), len(got))
			}
			for i, name := range []string{"away", "home"} {
				want := "the default policy"
				if action := map[string]string{"home": tc.home, "away": tc.away}[name]; action != "" {
					want = "clusters/" + name + "/policy.yaml:1:1"
				}
				if c := r.Clusters[i]; c.Name != "clusters/"+name || c.Policy != want {
					t.Errorf("cluster %+v, want %s with %s", c, name, want)
				}
			}
		})
	}
}

func TestCheck_Cluster(t *testing.T) {
	files := twoClusters("Warn", "Deny")
	maps.Copy(files, map[string]string{"clusters/away/broken.yaml": "a: [\n"})
	dir := writeTree(t, files)
	for name, tc := range map[string]struct{ cluster, want, err string }{
		"the directory":        {cluster: "clusters/home", want: "clusters/home"},
		"the end of it":        {cluster: "home", want: "clusters/home"},
		"an unknown name":      {cluster: "hom", err: "there is no such cluster; the clusters are clusters/away, clusters/home"},
		"a part of the name":   {cluster: "me", err: "there is no such cluster"},
		"no name of a cluster": {cluster: "apps", err: "there is no such cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			o := checkOptions{Options: input(check.Input{Cluster: tc.cluster}), reportOptions: reportOptions{output: "json", failOn: "never"}}
			err := runCheckIn(t, o, dir, nil, &out, &out)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			r := reported(t, o, dir)
			if len(r.Clusters) != 1 || r.Clusters[0].Name != tc.want {
				t.Errorf("clusters %+v, want %s", r.Clusters, tc.want)
			}
			for _, f := range r.Findings {
				if f.Cluster != tc.want {
					t.Errorf("finding of the cluster %q: %s %s", f.Cluster, f.Rule, f.Position())
				}
			}
		})
	}
}

// TestCheck_ClustersInEveryFormat looks for the names of both clusters, and for their policies where people read.
func TestCheck_ClustersInEveryFormat(t *testing.T) {
	dir := writeTree(t, twoClusters("Warn", "Deny"))
	for _, format := range report.Formats() {
		t.Run(string(format), func(t *testing.T) {
			var out, stderr bytes.Buffer
			if err := runCheckIn(t, checkOptions{reportOptions: reportOptions{output: string(format), failOn: "never"}}, dir, nil, &out, &stderr); err != nil {
				t.Fatal(err)
			}
			want := []string{"clusters/home", "clusters/away"}
			if !slices.Contains([]report.Format{report.SARIF, report.JUnit}, format) {
				want = append(want, "clusters/home/policy.yaml:1:1")
			}
			for _, name := range want {
				if !strings.Contains(out.String(), name) {
					t.Errorf("the output does not name %s:\n%s", name, &out)
				}
			}
		})
	}
}

// TestCheck_OnUnknown has a release whose chart is missing: the policy decides what that means.
func TestCheck_OnUnknown(t *testing.T) {
	files := repository("flux-system", "enablePodMonitor")
	files["apps/db/release.yaml"] = "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {name: web, namespace: apps}\n" +
		"spec: {interval: 1h, chart: {spec: {chart: web, sourceRef: {kind: HelmRepository, name: charts}}}, values: {a: 1}}\n"
	files["apps/db/charts.yaml"] = "apiVersion: source.toolkit.fluxcd.io/v1\nkind: HelmRepository\nmetadata: {name: charts, namespace: apps}\nspec: {url: https://charts.example.com}\n"
	for action, fails := range map[string]bool{"Allow": false, "Warn": false, "Deny": true} {
		t.Run(action, func(t *testing.T) {
			files["clusters/home/policy.yaml"] = "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\n" +
				"spec: {rules: {helm-values-schema: {action: Deny, onUnknown: " + action + "}}}\n"
			dir := writeTree(t, files)
			var out bytes.Buffer
			err := runCheckIn(t, checkOptions{reportOptions: reportOptions{output: "text", failOn: "deny"}}, dir, nil, &out, &out)
			if errors.Is(err, errFindings) != fails || err != nil && !fails {
				t.Errorf("error %v, want the check to fail: %t\n%s", err, fails, &out)
			}
			if has := strings.Contains(out.String(), "inconclusive: "); has != (action != "Allow") {
				t.Errorf("output:\n%s", &out)
			}
		})
	}
}

// TestCheck_PolicyWithOneRule compares the findings without a policy with those of a policy that lists one rule, as a file and applied by the tree,
// and of the default policy.
func TestCheck_PolicyWithOneRule(t *testing.T) {
	files := repository("apps", "enabled")
	files["clusters/home/typo.yaml"] = strings.NewReplacer("name: db", "name: typo", "./apps/db", "./apps/dbs").Replace(fmt.Sprintf(child, "flux-system"))
	const one = "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\nspec: {rules: {reference-missing: {action: \"Off\"}}}\n"
	actions := func(o checkOptions, files map[string]string) map[string]string {
		out := map[string]string{}
		for _, f := range reported(t, o, writeTree(t, files)).Findings {
			out[f.Rule+" "+f.Object.String()] = string(f.Action)
		}
		return out
	}
	want := actions(checkOptions{}, files)
	if want["kustomization-path-missing Kustomization flux-system/typo"] != "Deny" || len(want) < 3 {
		t.Fatalf("findings without a policy: %v", want)
	}
	given := writeTree(t, map[string]string{"one.yaml": one})
	applied := maps.Clone(files)
	applied["clusters/home/policy.yaml"] = one
	if got := actions(checkOptions{Options: input(check.Input{Policy: given + "/one.yaml"})}, files); !maps.Equal(got, want) {
		t.Errorf("with a policy file: %v, want %v", got, want)
	}
	if got := actions(checkOptions{}, applied); !maps.Equal(got, want) {
		t.Errorf("with the policy of the tree: %v, want %v", got, want)
	}
	// The default policy lists every rule that is evaluated at admission with its action there.
	delete(want, "kustomization-namespace Kustomization apps/db")
	got := actions(checkOptions{Options: input(check.Input{Policy: "../../manifests/policy/default.yaml"})}, files)
	delete(got, "kustomization-namespace Kustomization apps/db")
	if !maps.Equal(got, want) {
		t.Errorf("with the default policy: %v, want %v", got, want)
	}
}
