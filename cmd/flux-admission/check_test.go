package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/internal/chartinput"
	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/test/chartrepo"
)

const gotkSync = `apiVersion: source.toolkit.fluxcd.io/v1
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

func writeTree(t *testing.T, files map[string]string) string {
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

// input returns the options of a check with an input.
func input(in check.Input) check.Options { return check.Options{Input: in} }

// runCheckIn runs the check command on a path.
func runCheckIn(t *testing.T, o checkOptions, path string, stdin io.Reader, stdout, stderr io.Writer) error {
	t.Helper()
	o.Path, o.Stdin = path, stdin
	return runCheck(t.Context(), o, stdout, stderr)
}

// git runs git in a directory and returns its standard output.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir}, args...)...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("git %s: %v: %s", args[0], err, &stderr)
	}
	return string(out)
}

// repository returns the files of a cluster whose Kustomization db is in a namespace, with a CloudNativePG Cluster that
// sets a field of monitoring.
func repository(namespace, field string) map[string]string {
	return map[string]string{
		"clusters/home/flux-system/gotk-sync.yaml": gotkSync,
		"clusters/home/db.yaml":                    fmt.Sprintf(child, namespace),
		"clusters/home/namespace.yaml":             "apiVersion: v1\nkind: Namespace\nmetadata: {name: apps}\n",
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
		"a clean tree has no findings": {files: repository("flux-system", "enablePodMonitor")},
		"both mistakes are reported at their lines, and the namespace only warns by default": {
			files: repository("apps", "enabled"), fails: true,
			want: []string{
				"cnpg-monitoring-enabled Deny apps/db/cluster.yaml:11", "kustomization-namespace Warn clusters/home/db.yaml:5",
			},
		},
		"warnings fail with --fail-on warn": {files: repository("apps", "enablePodMonitor"), options: checkOptions{reportOptions: reportOptions{failOn: "warn"}}, fails: true,
			want: []string{"kustomization-namespace Warn clusters/home/db.yaml:5"}},
		"nothing fails with --fail-on never": {files: repository("apps", "enabled"), options: checkOptions{reportOptions: reportOptions{failOn: "never"}},
			want: []string{"cnpg-monitoring-enabled Deny apps/db/cluster.yaml:11", "kustomization-namespace Warn clusters/home/db.yaml:5"}},
		"the AdmissionPolicy of the tree decides": {
			files: func() map[string]string {
				f := repository("apps", "enabled")
				f["clusters/home/policy.yaml"] = refuse
				return f
			}(), fails: true,
			want: []string{
				"cnpg-monitoring-enabled Warn apps/db/cluster.yaml:11", "kustomization-namespace Deny clusters/home/db.yaml:5",
			},
		},
		"plain manifests are read from standard input": {
			stdin: fmt.Sprintf(cluster, "enabled"), fails: true, want: []string{"cnpg-monitoring-enabled Deny stdin:11"},
		},
		"a directory of plain manifests is checked": {files: map[string]string{"db.yaml": fmt.Sprintf(cluster, "enabled")}, fails: true,
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
				path = writeTree(t, tc.files)
			}
			var out bytes.Buffer
			err := runCheckIn(t, o, path, strings.NewReader(tc.stdin), &out, io.Discard)
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
			if diff := cmp.Diff(tc.want, got); diff != "" || len(r.Errors) > 0 {
				t.Errorf("findings (-want +got):\n%s\nerrors: %v", diff, r.Errors)
			}
		})
	}
}

// A build that fails is a finding at its position, and fails the check.
func TestCheck_BuildFails(t *testing.T) {
	files := repository("flux-system", "enablePodMonitor")
	files["apps/db/kustomization.yaml"] = "resources: [cluster.yaml, gone.yaml]\n"
	var out bytes.Buffer
	err := runCheckIn(t, checkOptions{reportOptions: reportOptions{output: "text", failOn: "deny"}}, writeTree(t, files), nil, &out, io.Discard)
	if !errors.Is(err, errFindings) || !strings.Contains(out.String(), "gone.yaml") || !strings.Contains(out.String(), "apps/db/kustomization.yaml") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestCheck_InvalidOptions(t *testing.T) {
	good := writeTree(t, repository("flux-system", "enablePodMonitor"))
	for name, tc := range map[string]struct {
		options checkOptions
		path    string
		want    string
	}{
		"an unknown format": {
			checkOptions{reportOptions: reportOptions{output: "xml", failOn: "deny"}}, good,
			`--output "xml" is not a format: use text, json, sarif, junit, github, html or markdown`,
		},
		"an unknown threshold": {
			checkOptions{reportOptions: reportOptions{output: "text", failOn: "always"}}, good, `--fail-on "always": use deny, warn, unknown or never`,
		},
		"a report without a file": {
			checkOptions{reportOptions: reportOptions{output: "text", failOn: "deny", reports: []string{"sarif"}}}, good, `--report "sarif": use FORMAT=FILE`,
		},
		"a report of an unknown format": {
			checkOptions{reportOptions: reportOptions{output: "text", failOn: "deny", reports: []string{"xml=a"}}}, good, `--report "xml=a": use FORMAT=FILE`,
		},
		"a misspelled rule": {
			checkOptions{reportOptions: reportOptions{output: "text", failOn: "deny"}, Options: input(check.Input{Flags: policy.Flags{Skip: []string{"kustomization-namespac"}}})}, good,
			`--skip: there is no rule "kustomization-namespac"; did you mean kustomization-namespace?`,
		},
		"a rule with two actions": {
			checkOptions{reportOptions: reportOptions{output: "text", failOn: "deny"}, Options: input(check.Input{Flags: policy.Flags{Skip: []string{"KS001"}, Warn: []string{"ks001"}}})},
			good, "--warn KS001: another flag makes its action Off",
		},
		"a rule that is left out": {
			checkOptions{reportOptions: reportOptions{output: "text", failOn: "deny"}, Options: input(check.Input{Flags: policy.Flags{Only: []string{"KS001"}, Deny: []string{"KS002"}}})},
			good, "--only leaves out the rule kustomization-target-namespace, which another flag names",
		},
		"a variable without a value": {
			checkOptions{reportOptions: reportOptions{output: "text", failOn: "deny"}, Options: input(check.Input{Variables: []string{"X"}})}, good,
			`--var "X": want NAME=VALUE`,
		},
		"a missing baseline": {
			checkOptions{reportOptions: reportOptions{output: "text", failOn: "deny"}, Options: check.Options{Baseline: "/nope"}}, good,
			"--baseline: /nope does not exist; create it with --write-baseline /nope",
		},
		"an invalid line in a file of variables": {
			checkOptions{
				reportOptions: reportOptions{output: "text", failOn: "deny"},
				Options:       input(check.Input{VariablesFiles: []string{written(t, "vars", "A=1\nsecret")}}),
			},
			good, "vars:2: want NAME=VALUE",
		},
		"a list in a file of variables": {
			checkOptions{
				reportOptions: reportOptions{output: "text", failOn: "deny"},
				Options:       input(check.Input{VariablesFiles: []string{written(t, "vars.yaml", "A: [1]")}}),
			},
			good, "the value of A is not a scalar",
		},
		"a directory without definitions": {
			checkOptions{reportOptions: reportOptions{output: "text", failOn: "deny"}, Options: input(check.Input{CRDs: []string{good}})}, good,
			"; name a directory of JSON schemas with --schema-location",
		},
		"a JSON schema among definitions": {
			checkOptions{reportOptions: reportOptions{output: "text", failOn: "deny"}, Options: input(check.Input{CRDs: []string{
				written(t, "cluster_v1.json", `{"$schema": "http://json-schema.org/schema#", "properties": {"spec": {"type": "object"}}}`),
			}})},
			good, "cluster_v1.json is a JSON schema, not a CustomResourceDefinition: name its directory with --schema-location",
		},
		"a revision outside of a work tree": {
			checkOptions{reportOptions: reportOptions{output: "text", failOn: "deny"}, Options: check.Options{ChangedSince: "HEAD"}}, good,
			"--changed-since: ",
		},
		"a revision like a flag": {
			checkOptions{reportOptions: reportOptions{output: "text", failOn: "deny"}, Options: check.Options{ChangedSince: "--help"}}, good,
			"is not a revision",
		},
		"a revision with standard input": {
			checkOptions{reportOptions: reportOptions{output: "text", failOn: "deny"}, Options: check.Options{ChangedSince: "HEAD"}}, "-",
			"--changed-since needs a Git work tree",
		},
		"a missing policy": {
			checkOptions{reportOptions: reportOptions{output: "text", failOn: "deny"}, Options: input(check.Input{Policy: "/nope"})}, good,
			"--policy: open /nope: no such file or directory",
		},
		"a missing tree": {checkOptions{reportOptions: reportOptions{output: "text", failOn: "deny"}}, "/nope", "/nope"},
	} {
		t.Run(name, func(t *testing.T) {
			err := runCheckIn(t, tc.options, tc.path, nil, &bytes.Buffer{}, io.Discard)
			if err == nil || errors.Is(err, errFindings) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func written(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// checked runs a check and returns its findings that are not suppressed as "rule file:line".
func checked(t *testing.T, o checkOptions, dir string) []string {
	t.Helper()
	o.output, o.failOn = "json", "never"
	var out bytes.Buffer
	if err := runCheckIn(t, o, dir, nil, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	var r report.Report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, f := range r.Findings {
		if f.Suppressed == nil {
			got = append(got, fmt.Sprintf("%s %s:%d", f.Rule, f.File, f.Line))
		}
	}
	slices.Sort(got)
	return got
}

func TestCheck_Baseline(t *testing.T) {
	files := repository("flux-system", "enabled")
	dir := writeTree(t, files)
	file := filepath.Join(t.TempDir(), "baseline.yaml")
	var stderr bytes.Buffer
	if err := runCheckIn(t, checkOptions{reportOptions: reportOptions{output: "text", failOn: "deny"}, Options: check.Options{WriteBaseline: file}}, dir, nil, io.Discard, &stderr); err != nil || stderr.Len() == 0 {
		t.Fatalf("writing the baseline: %v, standard error %q", err, stderr.String())
	}
	if got := checked(t, checkOptions{Options: check.Options{Baseline: file}}, dir); len(got) != 0 {
		t.Errorf("findings %q, want none with the baseline", got)
	}
	other := strings.ReplaceAll(files["apps/db/cluster.yaml"], "name: db", "name: other")
	if other == files["apps/db/cluster.yaml"] {
		t.Fatal("the test's cluster has another name")
	}
	if err := os.WriteFile(filepath.Join(dir, "apps/db/other.yaml"), []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := checked(t, checkOptions{Options: check.Options{Baseline: file}}, dir); !slices.Equal(got, []string{"cnpg-monitoring-enabled apps/db/other.yaml:11"}) {
		t.Errorf("findings %q, want only the one that is not in the baseline", got)
	}
	fixed := writeTree(t, repository("flux-system", "enablePodMonitor"))
	_, out, _ := execute(t, "check", fixed, "--baseline", file)
	if want := "Baseline\n  1 entry without a finding: remove what is listed here, or write the baseline again\n    cnpg-monitoring-enabled: Cluster apps/db spec.monitoring.enabled\n"; !strings.Contains(out, want) {
		t.Errorf("no %q in\n%s", want, out)
	}
}

func TestCheck_ChangedSince(t *testing.T) {
	dir := writeTree(t, repository("flux-system", "enabled"))
	run := func(args ...string) {
		t.Helper()
		git(t, dir, args...)
	}
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("apps/db/kustomization.yaml", "resources: [cluster.yaml, extra.yaml]\n")
	put("apps/db/extra.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra, namespace: apps}\n")
	run("init", "-q")
	run("add", ".")
	run("-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-qm", "one")
	since := checkOptions{Options: check.Options{ChangedSince: "HEAD"}}
	if got := checked(t, since, dir); len(got) != 0 {
		t.Errorf("findings %q, want none without a change", got)
	}
	put("apps/db/README.md", "hello")
	if got := checked(t, since, dir); len(got) != 0 {
		t.Errorf("findings %q, want none of a new file without mistakes", got)
	}
	if err := os.Remove(filepath.Join(dir, "apps/db/extra.yaml")); err != nil {
		t.Fatal(err)
	}
	if got := checked(t, since, dir); !slices.Equal(got, []string{"kustomization-build-failed apps/db/kustomization.yaml:1"}) {
		t.Errorf("findings %q, want the file that the removal of another one breaks", got)
	}
	put("apps/db/extra.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra, namespace: apps}\n")
	text, err := os.ReadFile(filepath.Join(dir, "apps/db/cluster.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	put("apps/db/cluster.yaml", string(text)+"# touched\n")
	if got := checked(t, since, dir); !slices.Equal(got, []string{"cnpg-monitoring-enabled apps/db/cluster.yaml:11"}) {
		t.Errorf("findings %q, want the old mistake in a changed file", got)
	}
}

func TestCheck_VariablesAndDefinitions(t *testing.T) {
	files := repository("flux-system", "enablePodMonitor")
	files["clusters/home/db.yaml"] += "  postBuild: {substituteFrom: [{kind: Secret, name: cluster-settings}]}\n"
	files["apps/db/widget.yaml"] = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w, namespace: apps}\nspec:\n  size: ${SIZE}\n  colour: ${COLOUR}\n"
	dir := writeTree(t, files)
	crd := written(t, "crd.yaml", `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Widget, plural: widgets}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: string}, colour: {type: string, enum: [red]}}}}}}
`)
	o := checkOptions{Options: input(check.Input{
		CRDs: []string{crd}, VariablesFiles: []string{written(
			t, "vars.env", "# ours\nexport SIZE=\"big one\"\nCOLOUR=green\n",
		)},
	})}
	if got := checked(t, o, dir); !slices.Contains(got, "invalid-value apps/db/widget.yaml:6") {
		t.Errorf("findings %q, want the invalid value of the file of variables", got)
	}
	o.Variables = []string{"COLOUR=red"}
	if got := checked(t, o, dir); slices.Contains(got, "invalid-value apps/db/widget.yaml:6") {
		t.Errorf("findings %q, want none of the value of --var", got)
	}
}

func TestCheck_FetchCharts(t *testing.T) {
	web := t.TempDir()
	server, err := chartrepo.Serve(web, filepath.Join("..", "..", "test", "demo", "charts", "airflow"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	files := repository("flux-system", "enablePodMonitor")
	files["apps/db/release.yaml"] = `apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmRepository
metadata: {name: charts, namespace: apps}
spec: {interval: 1h, url: "` + server.URL + `"}
---
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: airflow, namespace: apps}
spec:
  interval: 1h
  chart: {spec: {chart: airflow, version: 1.16.0, sourceRef: {kind: HelmRepository, name: charts}}}
  values:
    data:
      metadataConnection:
        existingSecret: db
`
	dir := writeTree(t, files)
	if got := checked(t, checkOptions{}, dir); len(got) != 0 {
		t.Errorf("findings %q, want none without --fetch-charts", got)
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	want := []string{"helm-values-schema apps/db/release.yaml:15"}
	for _, cache := range []string{"", t.TempDir(), chartinput.NoCache} {
		o := checkOptions{Options: input(check.Input{FetchCharts: true, ChartCache: cache})}
		if got := checked(t, o, dir); !slices.Equal(got, want) {
			t.Errorf("cache %q: findings %q, want one of the fetched chart's schema", cache, got)
		}
	}
	if kept, err := filepath.Glob(filepath.Join(os.Getenv("XDG_CACHE_HOME"), "flux-admission", "charts", "objects", "*")); len(kept) == 0 {
		t.Errorf("the default cache has no charts (%v)", err)
	}
}

func TestCheck_AnnotationPaths(t *testing.T) {
	dir := writeTree(t, repository("flux-system", "enabled"))
	t.Chdir(filepath.Dir(dir))
	name := filepath.Base(dir)
	var out bytes.Buffer
	if err := runCheckIn(t, checkOptions{reportOptions: reportOptions{output: "github", failOn: "never"}}, name, nil, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if want := "file=" + name + "/apps/db/cluster.yaml"; !strings.Contains(out.String(), want) {
		t.Errorf("the annotations do not have %s:\n%s", want, out.String())
	}
	for path, want := range map[string]string{".": "", name: name + "/", dir: "", "../x": "", "-": "", name + "/apps/db/cluster.yaml": ""} {
		if got := pathPrefix(path); got != want {
			t.Errorf("the prefix of %s is %q, want %q", path, got, want)
		}
	}
}
