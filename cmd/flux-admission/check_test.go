package main

import (
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

func gitTree(t *testing.T, files map[string]string) string {
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
				path = gitTree(t, tc.files)
			}
			var out bytes.Buffer
			err := runCheck(t.Context(), o, path, strings.NewReader(tc.stdin), &out, io.Discard)
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
	err := runCheck(t.Context(), checkOptions{output: "text", failOn: "deny"}, gitTree(t, files), nil, &out, io.Discard)
	if !errors.Is(err, errFindings) || !strings.Contains(out.String(), "gone.yaml") || !strings.Contains(out.String(), "apps/db/kustomization.yaml") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestCheckWithMistakenOptions(t *testing.T) {
	good := gitTree(t, repository("flux-system", "enablePodMonitor"))
	for name, tc := range map[string]struct {
		options checkOptions
		path    string
		want    string
	}{
		"an unknown format":                            {checkOptions{output: "xml", failOn: "deny"}, good, `--output "xml" is not a format: use text, json, sarif, junit, github or html`},
		"an unknown threshold":                         {checkOptions{output: "text", failOn: "always"}, good, `--fail-on "always": use deny, warn or never`},
		"a variable without value":                     {checkOptions{output: "text", failOn: "deny", treeOptions: treeOptions{vars: []string{"X"}}}, good, `--var "X": want NAME=VALUE`},
		"a baseline that is not there":                 {checkOptions{output: "text", failOn: "deny", baseline: "/nope"}, good, "--baseline: /nope does not exist; make it with --write-baseline /nope"},
		"a file of variables with a line that is none": {checkOptions{output: "text", failOn: "deny", treeOptions: treeOptions{varsFiles: []string{written(t, "vars", "A=1\nsecret")}}}, good, "vars:2: want NAME=VALUE"},
		"a file of variables with a list":              {checkOptions{output: "text", failOn: "deny", treeOptions: treeOptions{varsFiles: []string{written(t, "vars.yaml", "A: [1]")}}}, good, "A is no scalar"},
		"definitions that are none":                    {checkOptions{output: "text", failOn: "deny", treeOptions: treeOptions{crds: []string{good}}}, good, "--crds: there is no CustomResourceDefinition in "},
		"a revision in what is no work tree":           {checkOptions{output: "text", failOn: "deny", changedSince: "HEAD"}, good, "--changed-since: "},
		"a revision that is an option":                 {checkOptions{output: "text", failOn: "deny", changedSince: "--help"}, good, "is no revision"},
		"a change of standard input":                   {checkOptions{output: "text", failOn: "deny", changedSince: "HEAD"}, "-", "--changed-since needs a Git work tree"},
		"a policy that is not there":                   {checkOptions{output: "text", failOn: "deny", treeOptions: treeOptions{policy: "/nope"}}, good, "--policy: open /nope: no such file or directory"},
		"a tree that is not there":                     {checkOptions{output: "text", failOn: "deny"}, "/nope", "/nope"},
	} {
		t.Run(name, func(t *testing.T) {
			err := runCheck(t.Context(), tc.options, tc.path, nil, &bytes.Buffer{}, io.Discard)
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

// checked runs a check and returns its findings, "rule file:line", those that count only.
func checked(t *testing.T, o checkOptions, dir string) []string {
	t.Helper()
	o.output, o.failOn = "json", "never"
	var out bytes.Buffer
	if err := runCheck(t.Context(), o, dir, nil, &out, io.Discard); err != nil {
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

func TestABaselineKeepsOldFindingsOut(t *testing.T) {
	files := repository("flux-system", "enabled")
	dir := gitTree(t, files)
	file := filepath.Join(t.TempDir(), "baseline.yaml")
	var said bytes.Buffer
	if err := runCheck(t.Context(), checkOptions{output: "text", failOn: "deny", writeBaseline: file}, dir, nil, io.Discard, &said); err != nil || said.Len() == 0 {
		t.Fatalf("writing the baseline: %v, said %q", err, said.String())
	}
	if got := checked(t, checkOptions{baseline: file}, dir); len(got) != 0 {
		t.Errorf("with the baseline: %q", got)
	}
	other := strings.ReplaceAll(files["apps/db/cluster.yaml"], "name: db", "name: other")
	if other == files["apps/db/cluster.yaml"] {
		t.Fatal("the test's cluster has another name")
	}
	if err := os.WriteFile(filepath.Join(dir, "apps/db/other.yaml"), []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := checked(t, checkOptions{baseline: file}, dir); !slices.Equal(got, []string{"cnpg-monitoring-enabled apps/db/other.yaml:11"}) {
		t.Errorf("a new mistake beside an old one: %q", got)
	}
}

func TestOnlyWhatAChangeTouchesIsReported(t *testing.T) {
	dir := gitTree(t, repository("flux-system", "enabled"))
	run := func(args ...string) {
		t.Helper()
		if _, err := git(t.Context(), dir, args...); err != nil {
			t.Fatal(err)
		}
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
	since := checkOptions{changedSince: "HEAD"}
	if got := checked(t, since, dir); len(got) != 0 {
		t.Errorf("nothing has changed, and reported is %q", got)
	}
	put("apps/db/README.md", "hello")
	if got := checked(t, since, dir); len(got) != 0 {
		t.Errorf("a file without findings is new, and reported is %q", got)
	}
	if err := os.Remove(filepath.Join(dir, "apps/db/extra.yaml")); err != nil {
		t.Fatal(err)
	}
	if got := checked(t, since, dir); !slices.Equal(got, []string{"kustomization-build-failed apps/db/kustomization.yaml:1"}) {
		t.Errorf("what the removal of a file breaks elsewhere is %q", got)
	}
	put("apps/db/extra.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra, namespace: apps}\n")
	text, err := os.ReadFile(filepath.Join(dir, "apps/db/cluster.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	put("apps/db/cluster.yaml", string(text)+"# touched\n")
	if got := checked(t, since, dir); !slices.Equal(got, []string{"cnpg-monitoring-enabled apps/db/cluster.yaml:11"}) {
		t.Errorf("an old mistake in a file that is touched: %q", got)
	}
}

func TestVariablesAndDefinitionsFromFiles(t *testing.T) {
	files := repository("flux-system", "enablePodMonitor")
	files["clusters/home/db.yaml"] += "  postBuild: {substituteFrom: [{kind: Secret, name: cluster-settings}]}\n"
	files["apps/db/widget.yaml"] = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w, namespace: apps}\nspec:\n  size: ${SIZE}\n  colour: ${COLOUR}\n"
	dir := gitTree(t, files)
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
	o := checkOptions{treeOptions: treeOptions{crds: []string{crd}, varsFiles: []string{written(t, "vars.env", "# ours\nexport SIZE=\"big one\"\nCOLOUR=green\n")}}}
	if got := checked(t, o, dir); !slices.Contains(got, "invalid-value apps/db/widget.yaml:6") {
		t.Errorf("by the file of variables the colour is wrong, and found is %q", got)
	}
	o.vars = []string{"COLOUR=red"}
	if got := checked(t, o, dir); slices.Contains(got, "invalid-value apps/db/widget.yaml:6") {
		t.Errorf("--var comes first and makes the colour right, and found is %q", got)
	}
}

func TestChartsFromTheNetworkOnlyWhenAsked(t *testing.T) {
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
  chart: {spec: {chart: airflow, sourceRef: {kind: HelmRepository, name: charts}}}
  values:
    data:
      metadataConnection:
        existingSecret: db
`
	dir := gitTree(t, files)
	if got := checked(t, checkOptions{}, dir); len(got) != 0 {
		t.Errorf("without --fetch-charts: %q", got)
	}
	if got := checked(t, checkOptions{treeOptions: treeOptions{fetchCharts: true}}, dir); !slices.Equal(got, []string{"helm-values-schema apps/db/release.yaml:15"}) {
		t.Errorf("with --fetch-charts: %q", got)
	}
}

func TestFilesAreNamedFromTheWorkingDirectoryInAnnotations(t *testing.T) {
	dir := gitTree(t, repository("flux-system", "enabled"))
	t.Chdir(filepath.Dir(dir))
	name := filepath.Base(dir)
	var out bytes.Buffer
	if err := runCheck(t.Context(), checkOptions{output: "github", failOn: "never"}, name, nil, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if want := "file=" + name + "/apps/db/cluster.yaml"; !strings.Contains(out.String(), want) {
		t.Errorf("the annotations do not have %s:\n%s", want, out.String())
	}
	for path, want := range map[string]string{".": "", name: name + "/", dir: "", "../x": "", "-": "", name + "/apps/db/cluster.yaml": ""} {
		if got := prefix(path); got != want {
			t.Errorf("the prefix of %s is %q, want %q", path, got, want)
		}
	}
}
