package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/internal/report"
)

func badTree(t *testing.T) string {
	return writeTree(t, map[string]string{
		"clusters/home/gotk-sync.yaml": gotkSync,
		"clusters/home/db.yaml":        fmt.Sprintf(child, "flux-system"),
		"apps/db/cluster.yaml":         fmt.Sprintf(cluster, "enabled"),
		"apps/namespace.yaml":          "apiVersion: v1\nkind: Namespace\nmetadata: {name: apps}\n",
	})
}

func TestCheck_FurtherReports(t *testing.T) {
	dir := t.TempDir()
	sarif, junit := filepath.Join(dir, "a.sarif"), filepath.Join(dir, "b.xml")
	code, stdout, stderr := execute(t, "check", badTree(t), "--report", "sarif="+sarif, "--report", "junit="+junit)
	if code != 1 || !strings.Contains(stdout, "PG001") {
		t.Fatalf("exit code %d\n%s%s", code, stdout, stderr)
	}
	for file, want := range map[string]string{sarif: `"PG001"`, junit: "<failure"} {
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s does not contain %s (%v)", file, want, err)
		}
	}
	code, _, stderr = execute(t, "check", badTree(t), "--report", "sarif="+filepath.Join(dir, "missing", "a"))
	if code != 2 || !strings.Contains(stderr, "no such file or directory") {
		t.Errorf("a file in a missing directory: exit code %d\n%s", code, stderr)
	}
}

func TestCheck_SummaryOfAStep(t *testing.T) {
	summary := filepath.Join(t.TempDir(), "summary.md")
	if err := os.WriteFile(summary, []byte("an earlier step\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GITHUB_STEP_SUMMARY", summary)
	var out strings.Builder
	err := runCheckIn(t, checkOptions{reportOptions: reportOptions{output: "github", failOn: "never"}}, badTree(t), nil, &out, &strings.Builder{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(summary)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(text), "an earlier step\n"+report.MarkdownMarker) || !strings.Contains(string(text), "PG001") {
		t.Errorf("the summary is %s", text)
	}
}

func TestCheck_RulesAndThreshold(t *testing.T) {
	unknown := writeTree(t, map[string]string{"a.yaml": "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\n" +
		"metadata: {name: a, namespace: a}\nspec: {interval: 1m, chart: {spec: {chart: a, sourceRef: {kind: HelmRepository, name: a}}}}\n"})
	for name, tc := range map[string]struct {
		tree string
		args []string
		code int
		with string
		not  string
	}{
		"the rule is evaluated":           {badTree(t), nil, 1, "deny  Cluster apps/db  PG001", ""},
		"the rule is skipped, by ID":      {badTree(t), []string{"--skip", "pg001,SC001"}, 0, "1 warn", "PG001"},
		"the rule is skipped, by name":    {badTree(t), []string{"--skip", "cnpg-monitoring-enabled", "--skip", "unknown-field"}, 0, "1 warn", "PG001"},
		"another rule is the only one":    {badTree(t), []string{"--only", "KS001"}, 0, "No findings", "PG001"},
		"the rule warns":                  {badTree(t), []string{"--only", "PG001", "--warn", "PG001"}, 0, "warn  Cluster apps/db  PG001", ""},
		"a warning fails":                 {badTree(t), []string{"--only", "PG001", "--warn", "PG001", "--fail-on", "warn"}, 1, "warn  Cluster", ""},
		"nothing is denied":               {unknown, []string{"--only", "HR001"}, 0, "Not evaluated", ""},
		"what is not evaluated fails":     {unknown, []string{"--only", "HR001", "--fail-on", "unknown"}, 1, "Not evaluated", ""},
		"a rule that warns by default":    {badTree(t), []string{"--deny", "namespace-missing", "--skip", "PG001,SC001"}, 1, "deny  ", "PG001"},
		"everything evaluated, no denial": {badTree(t), []string{"--only", "KS001", "--fail-on", "unknown"}, 0, "No findings", ""},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := execute(t, append([]string{"check", tc.tree}, tc.args...)...)
			if code != tc.code || !strings.Contains(stdout, tc.with) || tc.not != "" && strings.Contains(stdout, tc.not) {
				t.Errorf("exit code %d, want %d with %q and without %q:\n%s%s", code, tc.code, tc.with, tc.not, stdout, stderr)
			}
		})
	}
}

func TestVersion_Flag(t *testing.T) {
	code, stdout, _ := execute(t, "--version")
	_, command, _ := execute(t, "version")
	if code != 0 || stdout == "" || stdout != command {
		t.Errorf("exit code %d: %q, want %q", code, stdout, command)
	}
}

func TestCheck_UnusedSource(t *testing.T) {
	code, _, stderr := execute(t, "check", badTree(t), "--source", "flux-sistem="+t.TempDir())
	want := "source flux-sistem: no Kustomization of the tree has a source of this name; did you mean flux-system?"
	if code != 2 || !strings.Contains(stderr, want) {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	code, stdout, stderr := execute(t, "check", badTree(t), "--source", "flux-system="+badTree(t))
	if code != 1 || !strings.Contains(stdout, "PG001") {
		t.Errorf("with a source of the tree: exit code %d\n%s%s", code, stdout, stderr)
	}
}

// TestCheck_DefinitionsOfACluster reads definitions as kubectl get prints them.
func TestCheck_DefinitionsOfACluster(t *testing.T) {
	dir := writeTree(t, map[string]string{
		"foo.yaml": "apiVersion: example.com/v1\nkind: Foo\nmetadata: {name: a, namespace: default}\nspec: {b: 1}\n",
		"crds.json": `{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
			"metadata": {"name": "foos.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced", "names": {"kind": "Foo", "plural": "foos"},
			"versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
			"spec": {"type": "object", "properties": {"a": {"type": "string"}}}}}}}]}}]}`,
	})
	code, stdout, stderr := execute(t, "check", filepath.Join(dir, "foo.yaml"), "--crds", filepath.Join(dir, "crds.json"))
	if code != 1 || !strings.Contains(stdout, "spec.b is not a field of Foo (example.com/v1)") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
}

// TestCheck_MistypedKindOfFlux finds a kind that no release of Flux has, without its definition in the tree.
func TestCheck_MistypedKindOfFlux(t *testing.T) {
	for kind, want := range map[string]string{
		"helm.toolkit.fluxcd.io/v2 HelmRelaese":          "did you mean HelmRelease (helm.toolkit.fluxcd.io/v2)?",
		"kustomize.toolkit.fluxcd.io/v1 Kustomisation":   "did you mean Kustomization (kustomize.toolkit.fluxcd.io/v1)?",
		"source.toolkit.fluxcd.io/v1 HelmRelease":        "did you mean HelmRelease (helm.toolkit.fluxcd.io/v2)?",
		"source.toolkit.fluxcd.io/v1 SomethingOfFlux3":   "",
		"notification.toolkit.fluxcd.io/v1beta3 Provder": "did you mean Provider (notification.toolkit.fluxcd.io/",
	} {
		version, name, _ := strings.Cut(kind, " ")
		dir := writeTree(t, map[string]string{"a.yaml": "apiVersion: " + version + "\nkind: " + name + "\nmetadata: {name: a, namespace: default}\n"})
		code, stdout, stderr := execute(t, "check", filepath.Join(dir, "a.yaml"))
		if want == "" && code != 0 || want != "" && (code != 1 || !strings.Contains(stdout, want)) {
			t.Errorf("%s: exit code %d, want %q\n%s%s", kind, code, want, stdout, stderr)
		}
	}
}

// TestCheck_VariablesWithoutFlux leaves values with variables open where nothing shows what Flux substitutes, and passes on
// what an outer Kustomization leaves open.
func TestCheck_VariablesWithoutFlux(t *testing.T) {
	code, stdout, stderr := execute(t, "check", writeTree(t, map[string]string{
		"base/kustomization.yaml": "resources: [namespace.yaml]\n",
		"base/namespace.yaml": "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: ${NAMESPACE}\n" +
			"  labels: {example.com/inject: '${INJECT:-enabled}', team: '${TEAM}'}\n",
		"plain.yaml": "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  labels: {example.com/inject: '${INJECT:-enabled}'}\n",
	}))
	if code != 0 || !strings.Contains(stdout, "No findings in 2 objects") {
		t.Errorf("without an entry point: exit code %d\n%s%s", code, stdout, stderr)
	}
	child := strings.Replace(fmt.Sprintf(child, "flux-system"), "  path:",
		"  postBuild: {substitute: {SIZE: \"${q:=''}${STORAGE}${q:=''}\", none: '1'}}\n  path:", 1)
	code, stdout, stderr = execute(t, "check", "--only", "SC002", writeTree(t, map[string]string{
		"clusters/home/gotk-sync.yaml": gotkSync + "  postBuild: {substitute: {A: b}}\n",
		"clusters/home/db.yaml":        child,
		"apps/db/cluster.yaml":         strings.Replace(fmt.Sprintf(cluster, "enablePodMonitor"), "instances: 1", "instances: ${SIZE:=${none}}", 1),
	}))
	if code != 0 || !strings.Contains(stdout, "No findings in ") {
		t.Errorf("with a variable that is left open: exit code %d\n%s%s", code, stdout, stderr)
	}
}

func TestCheck_NothingChecked(t *testing.T) {
	for name, args := range map[string][]string{
		"an empty directory": {"check", t.TempDir()}, "text": {"check", writeTree(t, map[string]string{"README.yaml": "hello\n"})}, "no input": {"check", "-"},
	} {
		code, stdout, stderr := execute(t, args...)
		if code != 2 || !strings.Contains(stderr, "nothing was checked") || strings.Contains(stdout, "No findings") {
			t.Errorf("%s: exit code %d\n%s%s", name, code, stdout, stderr)
		}
		if name == "no input" && stdout != "" {
			t.Errorf("beside the error: %s", stdout)
		}
		if _, stdout, _ := execute(t, append(args, "-o", "markdown")...); !strings.Contains(stdout, "Nothing was checked") || strings.Contains(stdout, "✅") {
			t.Errorf("%s: %s", name, stdout)
		}
	}
}

func TestCheck_EmptyCharts(t *testing.T) {
	dir := writeTree(t, map[string]string{
		"cm.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n", "charts/app/Chart.yaml": "apiVersion: v2\nname: app\nversion: 1.0.0\n",
	})
	empty := t.TempDir()
	args := []string{"check", filepath.Join(dir, "cm.yaml"), "--charts", empty}
	text := "--charts: nothing is in " + empty + "; specify a directory"
	if code, _, stderr := execute(t, args...); code != 2 || !strings.Contains(stderr, "flux-admission: "+text) {
		t.Errorf("alone: exit code %d\n%s", code, stderr)
	}
	if code, _, stderr := execute(t, append(args, "--charts", filepath.Join(dir, "charts"))...); code != 0 || !strings.Contains(stderr, "warning: "+text) {
		t.Errorf("beside another: exit code %d\n%s", code, stderr)
	}
}

// TestCheck_TextOfGenerators finds a key twice in manifests, but not in the text that a generator puts into a ConfigMap, nor
// in values.
func TestCheck_TextOfGenerators(t *testing.T) {
	twice := "pipeline:\n  rename: a\n  rename: b\n"
	files := map[string]string{
		"app/kustomization.yaml": "resources: [config.yaml]\nconfigMapGenerator:\n  - {name: text, namespace: default, files: [b.yaml=text.yaml]}\n",
		"app/config.yaml":        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: default}\n",
		"app/text.yaml":          twice + "\tno: YAML\n",
		"values.yaml":            twice,
	}
	code, stdout, stderr := execute(t, "check", writeTree(t, files))
	if code != 0 || strings.Contains(stdout, "FI00") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	files["app/config.yaml"] += "data: {a: b}\ndata: {c: d}\n"
	if code, stdout, stderr = execute(t, "check", writeTree(t, files)); code != 1 || !strings.Contains(stdout, "FI001") {
		t.Errorf("in a manifest: exit code %d\n%s%s", code, stdout, stderr)
	}
}

// TestCheck_SourceAppliedByHand does not miss the source of a Kustomization that nothing in the tree applies.
func TestCheck_SourceAppliedByHand(t *testing.T) {
	self := "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: a, namespace: flux-system}\n" +
		"spec: {interval: 1h, path: ./clusters/%s, prune: true, sourceRef: {kind: GitRepository, name: fleet}}\n"
	source := "---\napiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {name: %s, namespace: flux-system}\n" +
		"spec: {interval: 1h, url: 'https://git.example.com/fleet'}\n"
	for name, tc := range map[string]struct {
		files map[string]string
		code  int
	}{
		"the source of another cluster only": {map[string]string{
			"clusters/a/a.yaml": fmt.Sprintf(self, "a"), "clusters/b/b.yaml": fmt.Sprintf(self, "b"), "clusters/b/source.yaml": fmt.Sprintf(source, "fleet"),
		}, 0},
		"another name beside it": {map[string]string{"clusters/a/gotk-sync.yaml": fmt.Sprintf(self, "a") + fmt.Sprintf(source, "flet")}, 1},
	} {
		code, stdout, stderr := execute(t, "check", writeTree(t, tc.files), "--only", "SO001")
		if code != tc.code {
			t.Errorf("%s: exit code %d, want %d\n%s%s", name, code, tc.code, stdout, stderr)
		}
	}
}

// TestCheck_BuildWithoutFluxFails names a directory that was not evaluated.
func TestCheck_BuildWithoutFluxFails(t *testing.T) {
	code, stdout, stderr := execute(t, "check", "--fail-on", "unknown", writeTree(t, map[string]string{
		"app/kustomization.yaml": "resources: [missing.yaml]\n", "b.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n",
	}))
	if code != 1 || !strings.Contains(stdout, "kustomize cannot build app, which was not evaluated: ") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
}

// TestCheck_ConventionOfTheTree reports what few objects do otherwise, not what more than a fifth of them do, unless a policy or a flag
// names the rule.
func TestCheck_ConventionOfTheTree(t *testing.T) {
	tree := func(namespaces ...string) string {
		files := map[string]string{"clusters/home/gotk-sync.yaml": gotkSync, "apps/db/a.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: db}\n"}
		for i, ns := range namespaces {
			files[fmt.Sprintf("clusters/home/%d.yaml", i)] = strings.Replace(fmt.Sprintf(child, ns), "name: db", fmt.Sprintf("name: db%d", i), 1)
		}
		return writeTree(t, files)
	}
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	other := filepath.Join(t.TempDir(), "other.yaml")
	head := "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\n"
	for file, spec := range map[string]string{
		policy: "spec: {rules: {kustomization-namespace: {action: Warn, allowedNamespaces: [flux-system]}}}\n",
		other:  "spec: {rules: {unknown-field: {action: Warn}}}\n",
	} {
		if err := os.WriteFile(file, []byte(head+spec), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		args []string
		want bool
	}{
		"one of four":                            {[]string{tree("flux-system", "flux-system", "a")}, true},
		"three of four":                          {[]string{tree("a", "b", "c")}, false},
		"three of four, with a policy":           {[]string{tree("a", "b", "c"), "--policy", policy}, true},
		"three of four, policy without the rule": {[]string{tree("a", "b", "c"), "--policy", other}, false},
		"three of four, with --warn":             {[]string{tree("a", "b", "c"), "--warn", "KS001"}, true},
		"three of four, with --deny":             {[]string{tree("a", "b", "c"), "--deny", "kustomization-namespace"}, true},
		"three of four, with --only":             {[]string{tree("a", "b", "c"), "--only", "KS001"}, true},
		"three of four, with another flag":       {[]string{tree("a", "b", "c"), "--warn", "KS002"}, false},
		"three of fourteen":                      {[]string{tree(append([]string{"a", "b", "c"}, slices.Repeat([]string{"flux-system"}, 10)...)...)}, false},
		"three of fifteen":                       {[]string{tree(append([]string{"a", "b", "c"}, slices.Repeat([]string{"flux-system"}, 11)...)...)}, true},
	} {
		code, stdout, stderr := execute(t, append([]string{"check", "--fail-on", "never"}, tc.args...)...)
		if code != 0 || strings.Contains(stdout, "KS001") != tc.want {
			t.Errorf("%s: exit code %d, want a finding: %t\n%s%s", name, code, tc.want, stdout, stderr)
		}
	}
}

// TestCheck_FlagsBeforeThePolicy has a policy whose override is about all rules, which no flag names.
func TestCheck_FlagsBeforeThePolicy(t *testing.T) {
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	text := "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\n" +
		"spec: {overrides: [{namespaceSelector: {}, rules: ['*'], action: Deny}]}\n"
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	tree := badTree(t)
	for args, want := range map[string]string{"": "deny", "--warn PG001": "warn", "--skip PG001": ""} {
		_, stdout, stderr := execute(t, append([]string{"check", tree, "--policy", policy}, strings.Fields(args)...)...)
		finding := want + "  Cluster apps/db  PG001"
		if want == "" && strings.Contains(stdout, "PG001") || want != "" && !strings.Contains(stdout, finding) {
			t.Errorf("%q: want %q\n%s%s", args, want, stdout, stderr)
		}
	}
}

// TestCheck_Comment has a finding that a comment ignores.
func TestCheck_Comment(t *testing.T) {
	dir := badTree(t)
	file := filepath.Join(dir, "apps", "db", "cluster.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const reason = "goes with the next release"
	if err := os.WriteFile(file, append([]byte("# flux-admission: ignore PG001 "+reason+"\n"), text...), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := execute(t, "check", dir)
	if code != 0 || !strings.Contains(stdout, "; 1 finding ignored by a comment") || strings.Contains(stdout, "PG001") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	for format, want := range map[string]string{
		"json":  `"position": {`,
		"sarif": `"kind": "inSource",` + "\n              " + `"justification": "ignored by a comment: ` + reason + `"`,
		"junit": "suppressed by comment",
	} {
		if code, stdout, stderr = execute(t, "check", dir, "-o", format); code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("%s: exit code %d, without %q\n%s%s", format, code, want, stdout, stderr)
		}
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr = execute(t, "fix", dir)
	if after, err := os.ReadFile(file); code != 0 || err != nil || string(after) != string(before) {
		t.Errorf("fix: exit code %d, %v\n%s%s", code, err, stdout, stderr)
	}
}

// The fixes of SARIF are the edits of the command fix, the notifications are what was not evaluated, and the category names the part of the
// repository.
func TestCheck_SARIF(t *testing.T) {
	files := repository("flux-system", "enabled")
	files["apps/db/web.yaml"] = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: wéb, namespace: apps, lables: {é: b}} # ü\n" +
		"spec:\n  replicaz: 1\n  selector: {matchLabels: {app: web}}\n  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: web}]}}\n"
	files["apps/db/other.yaml"] = "apiVersion: example.com/v1\nkind: Other\nmetadata: {name: a, namespace: apps}\n"
	tree := writeTree(t, files)
	t.Chdir(filepath.Dir(tree))
	dir := filepath.Base(tree)
	_, out, stderr := execute(t, "check", dir, "--cluster", "home", "--output", "sarif")
	type region struct{ StartLine, StartColumn, EndLine, EndColumn int }
	var log struct {
		Runs []struct {
			AutomationDetails struct{ ID string }
			Invocations       []struct {
				ToolExecutionNotifications []struct {
					Level   string
					Message struct{ Text string }
				}
			}
			Results []struct {
				RuleID string
				Fixes  []struct {
					ArtifactChanges []struct {
						ArtifactLocation struct{ URI string }
						Replacements     []struct {
							DeletedRegion   region
							InsertedContent struct{ Text string }
						}
					}
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &log); err != nil {
		t.Fatalf("%v: %s", err, stderr)
	}
	run := log.Runs[0]
	if want := "flux-admission/" + dir + "/home/"; run.AutomationDetails.ID != want {
		t.Errorf("the category is %s, want %s", run.AutomationDetails.ID, want)
	}
	notified := false
	for _, n := range run.Invocations[0].ToolExecutionNotifications {
		notified = notified || n.Level == "note" && strings.Contains(n.Message.Text, "Other (example.com)")
	}
	if !notified {
		t.Errorf("no notification names the kind without a schema: %+v", run.Invocations)
	}
	// Later positions first, so that the earlier ones stay.
	offset := func(text string, line, column int) int {
		lines := strings.SplitAfter(text, "\n")
		return len(strings.Join(lines[:line-1], "")) + len(string([]rune(lines[line-1])[:column-1]))
	}
	edits := map[string][]func(string) string{}
	fixes := 0
	for _, result := range slices.Backward(run.Results) {
		for _, f := range result.Fixes {
			fixes++
			change := f.ArtifactChanges[0]
			to := change.Replacements[0]
			edits[change.ArtifactLocation.URI] = append(edits[change.ArtifactLocation.URI], func(text string) string {
				r := to.DeletedRegion
				return text[:offset(text, r.StartLine, r.StartColumn)] + to.InsertedContent.Text + text[offset(text, r.EndLine, r.EndColumn):]
			})
		}
	}
	if fixes < 2 {
		t.Fatalf("%d fixes, want those of lables and replicaz: %s", fixes, out)
	}
	got := contents(t, dir)
	for uri, list := range edits {
		for _, edit := range list {
			name := strings.TrimPrefix(uri, dir+"/")
			got[name] = edit(got[name])
		}
	}
	if code, _, stderr := execute(t, "fix", dir); code == exitUsage {
		t.Fatal(stderr)
	}
	if diff := cmp.Diff(contents(t, dir), got); diff != "" {
		t.Errorf("the edits of SARIF against those of fix (-fix +sarif):\n%s", diff)
	}
}

func TestNameOfTree(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fleet")
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if got := nameOfTree(t.Context(), dir); got != "fleet" {
		t.Errorf("outside of a work tree: %q", got)
	}
	git(t, dir, "init", "-q")
	git(t, dir, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-q", "--allow-empty", "-m", "a")
	if got := nameOfTree(t.Context(), dir); !regexp.MustCompile(`^fleet at [0-9a-f]{10}$`).MatchString(got) {
		t.Errorf("in a work tree: %q", got)
	}
	if got := nameOfTree(t.Context(), "-"); got != "" {
		t.Errorf("standard input: %q", got)
	}
}
