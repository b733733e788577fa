package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fixed runs fix and returns its output, and whether findings are left.
func fixed(t *testing.T, o fixOptions, dir string) (out, errOut string, left bool) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	o.Path = dir
	err := runFix(t.Context(), o, &stdout, &stderr)
	if err != nil && !errors.Is(err, errFindings) {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String(), err != nil
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		out[filepath.ToSlash(name)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// secondCluster adds a cluster that applies the same directory.
func secondCluster(files map[string]string) map[string]string {
	files["clusters/away/flux-system/gotk-sync.yaml"] = strings.ReplaceAll(gotkSync, "./clusters/home", "./clusters/away")
	files["clusters/away/db.yaml"] = files["clusters/home/db.yaml"]
	return files
}

func TestFix(t *testing.T) {
	const enabled = "  monitoring:\n    enabled: true\n"
	const dependsOn = "  dependsOn: [{name: operator, namespace: elsewhere}]\n"
	with := func(files map[string]string, more map[string]string) map[string]string {
		maps.Copy(files, more)
		return files
	}
	withEnd := func(files map[string]string, name, end string) map[string]string {
		files[name] += end
		return files
	}
	operator := func(name string) string {
		return strings.NewReplacer("name: db", "name: "+name, "apps/db", "apps/"+name).Replace(fmt.Sprintf(
			child, "flux-system",
		))
	}
	for name, tc := range map[string]struct {
		files   map[string]string
		rules   []string
		changes map[string][2]string // by file: what becomes what
		output  []string
		left    bool
	}{
		"a clean tree is not changed": {
			files: repository("flux-system", "enablePodMonitor"), output: []string{"0 findings repaired in 0 files, 0 left alone"},
		},
		"an unknown field is removed, and a grouped finding is left": {
			files:   repository("apps", "enabled"),
			changes: map[string][2]string{"apps/db/cluster.yaml": {enabled, "  monitoring: {}\n"}},
			output: []string{
				"apps/db/cluster.yaml:11:5: cnpg-monitoring-enabled: Cluster apps/db: remove spec.monitoring.enabled",
				"1 finding repaired in 1 file, 0 left alone",
			},
		},
		"a rule that only warns is repaired when its ID is given": {
			files: repository("apps", "enabled"), rules: []string{"ks001"},
			changes: map[string][2]string{"clusters/home/db.yaml": {"namespace: apps", "namespace: flux-system"}},
			output:  []string{"1 finding repaired in 1 file, 0 left alone"},
		},
		"a file of two clusters is repaired once": {
			files:   secondCluster(repository("flux-system", "enabled")),
			changes: map[string][2]string{"apps/db/cluster.yaml": {enabled, "  monitoring: {}\n"}},
			output:  []string{"2 findings repaired in 1 file, 0 left alone"},
		},
		"an edit that is wrong for another cluster is left alone": {
			// The dependency exists in the away cluster only.
			files: with(secondCluster(repository("flux-system", "enablePodMonitor")), map[string]string{
				"clusters/home/kustomization.yaml": "resources: [flux-system/gotk-sync.yaml, ../../shared, operator.yaml]\n",
				"clusters/away/kustomization.yaml": "resources: [flux-system/gotk-sync.yaml, ../../shared, operator.yaml, elsewhere.yaml]\n",
				"shared/kustomization.yaml":        "resources: [app.yaml]\n",
				"shared/app.yaml":                  strings.ReplaceAll(operator("app"), "apps/app", "apps/db") + dependsOn,
				"clusters/home/operator.yaml":      strings.ReplaceAll(operator("operator"), "apps/operator", "apps/none"),
				"clusters/away/operator.yaml":      strings.ReplaceAll(operator("operator"), "apps/operator", "apps/none"),
				"clusters/away/elsewhere.yaml": strings.NewReplacer("namespace: flux-system\nspec", "namespace: elsewhere\nspec", "apps/operator", "apps/none").
					Replace(operator("operator")),
				"apps/none/cm.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: none, namespace: apps}\n",
			}),
			rules: []string{"kustomization-dependency-missing"}, left: true,
			output: []string{"left alone, file is also applied by Kustomization flux-system/flux-system of clusters/away/flux-system/gotk-sync.yaml, where the problem does not occur",
				"0 findings repaired in 0 files, 1 left alone"},
		},
		"contradicting edits of two clusters are left alone": {
			files: with(secondCluster(repository("flux-system", "enablePodMonitor")), map[string]string{
				"clusters/home/kustomization.yaml": "resources: [flux-system/gotk-sync.yaml, ../../shared, operator.yaml]\n",
				"clusters/away/kustomization.yaml": "resources: [flux-system/gotk-sync.yaml, ../../shared, operator.yaml]\n",
				"shared/kustomization.yaml":        "resources: [app.yaml]\n",
				"shared/app.yaml":                  strings.ReplaceAll(operator("app"), "apps/app", "apps/db") + dependsOn,
				"clusters/home/operator.yaml":      strings.ReplaceAll(operator("operator"), "apps/operator", "apps/none"),
				"clusters/away/operator.yaml": strings.NewReplacer("namespace: flux-system\nspec", "namespace: away\nspec", "apps/operator", "apps/none").
					Replace(operator("operator")),
				"apps/none/cm.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: none, namespace: apps}\n",
			}),
			rules: []string{"kustomization-dependency-missing"}, left: true,
			output: []string{`conflicts with the edit of kustomization-dependency-missing (set spec.dependsOn[0].namespace to "away")`,
				`conflicts with the edit of kustomization-dependency-missing (set spec.dependsOn[0].namespace to "flux-system")`, "0 findings repaired in 0 files, 2 left alone"},
		},
		"a mistake that a repair reveals is repaired too": {
			files: with(repository("flux-system", "enabled"), map[string]string{
				"clusters/home/db.yaml": strings.Replace(fmt.Sprintf(child, "flux-system"), "./apps/db", "./apps/dbs", 1),
			}),
			changes: map[string][2]string{
				"clusters/home/db.yaml": {"./apps/dbs", "./apps/db"},
				"apps/db/cluster.yaml":  {enabled, "  monitoring: {}\n"},
			},
			output: []string{"2 findings repaired in 2 files, 0 left alone"},
		},
		"a field that a newer release of Flux may have is not renamed": {
			files: withEnd(repository("flux-system", "enablePodMonitor"), "clusters/home/db.yaml", strings.Replace(dependsOn, "dependsOn", "dependOn", 1)),
			rules: []string{"unknown-field"}, output: []string{"0 findings repaired in 0 files, 0 left alone"},
		},
		"a Kustomization of a tenant is not moved": {
			files: withEnd(repository("apps", "enablePodMonitor"), "clusters/home/db.yaml", "  serviceAccountName: db\n"),
			rules: []string{"KS001"}, output: []string{"0 findings repaired in 0 files, 0 left alone"},
		},
		"a Kustomization beside its own source is not moved": {
			files: with(repository("apps", "enablePodMonitor"), map[string]string{
				"clusters/home/db.yaml":     strings.Replace(fmt.Sprintf(child, "apps"), "name: flux-system, namespace: flux-system", "name: team", 1),
				"clusters/home/source.yaml": "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {name: team, namespace: apps}\nspec: {interval: 10m, url: https://example.com/team}\n",
			}),
			rules: []string{"KS001"}, output: []string{"0 findings repaired in 0 files, 0 left alone"},
		},
		"a namespace that the build sets back is left alone": {
			files: with(repository("apps", "enablePodMonitor"), map[string]string{
				"clusters/home/kustomization.yaml":      "resources: [flux-system/gotk-sync.yaml, namespace.yaml, team]\n",
				"clusters/home/team/kustomization.yaml": "namespace: apps\nresources: [db.yaml]\n",
				"clusters/home/team/db.yaml":            fmt.Sprintf(child, "apps"),
				"clusters/home/db.yaml":                 "",
			}),
			rules: []string{"KS001"}, left: true,
			output: []string{"left alone, clusters/home/team/kustomization.yaml:1:1 sets the field back (namespace)", "0 findings repaired in 0 files, 1 left alone"},
		},
		"a field that a patch sets is left alone and its position reported": {
			files: with(repository("flux-system", "enablePodMonitor"), map[string]string{
				"apps/db/kustomization.yaml": "resources: [cluster.yaml]\npatches:\n  - path: patch.yaml\n",
				"apps/db/patch.yaml":         "apiVersion: postgresql.cnpg.io/v1\nkind: Cluster\nmetadata: {name: db, namespace: apps}\n" + "spec:\n" + enabled,
			}),
			left: true,
			output: []string{
				"apps/db/patch.yaml:6:5: cnpg-monitoring-enabled: Cluster apps/db: left alone, field is set in apps/db/patch.yaml:6:5 (patch)",
				"0 findings repaired in 0 files, 1 left alone",
			},
		},
		"a field with a variable is left alone": {
			files: withEnd(func() map[string]string {
				f := repository("flux-system", "enabled")
				f["apps/db/cluster.yaml"] = strings.ReplaceAll(f["apps/db/cluster.yaml"], "enabled: true", "enabled: ${ON}")
				return f
			}(), "clusters/home/db.yaml", "  postBuild: {substitute: {ON: \"true\"}}\n"),
			left:   true,
			output: []string{"left alone, spec.monitoring.enabled contains a variable"},
		},
		"an item that a patch moved is not mistaken for another": {
			files: withEnd(with(repository("flux-system", "enablePodMonitor"), map[string]string{
				"clusters/home/operator.yaml":      strings.ReplaceAll(operator("operator"), "apps/operator", "apps/none"),
				"clusters/home/kustomization.yaml": "resources: [flux-system/gotk-sync.yaml, db.yaml, operator.yaml]\npatches:\n  - target: {kind: Kustomization, name: db}\n    patch: |\n      - {op: add, path: /spec/dependsOn/0, value: {name: flux-system}}\n",
				"apps/none/cm.yaml":                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: none, namespace: apps}\n",
			}), "clusters/home/db.yaml", dependsOn[:len(dependsOn)-2]+", {name: db, namespace: flux-system}]\n"),
			rules: []string{"kustomization-dependency-missing"}, left: true,
			output: []string{
				"has another position in the file than in the applied object", "0 findings repaired in 0 files, 1 left alone",
			},
		},
		"an exempt object is not changed": {
			files: with(repository("flux-system", "enabled"), map[string]string{
				"clusters/home/policy.yaml": "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\nspec:\n  rules: {cnpg-monitoring-enabled: {action: Deny}}\n" +
					"  exemptions: [{rules: [cnpg-monitoring-enabled], reason: ours, match: {kinds: [Cluster], namespaces: [apps], names: [db]}}]\n",
			}),
			output: []string{"0 findings repaired in 0 files, 0 left alone"},
		},
		"plain manifests keep Windows line ends and other documents": {
			files:   map[string]string{"db.yaml": "# first\r\n---\r\n# second\r\n" + strings.ReplaceAll(fmt.Sprintf(cluster, "enabled"), "\n", "\r\n") + "---\r\n# end\r\n"},
			changes: map[string][2]string{"db.yaml": {"  monitoring:\r\n    enabled: true\r\n", "  monitoring: {}\r\n"}},
			output:  []string{"1 finding repaired in 1 file, 0 left alone"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeTree(t, tc.files)
			want := contents(t, dir)
			for file, change := range tc.changes {
				if strings.Count(want[file], change[0]) != 1 {
					t.Fatalf("%s has %q %d times", file, change[0], strings.Count(want[file], change[0]))
				}
				want[file] = strings.Replace(want[file], change[0], change[1], 1)
			}
			o := fixOptions{rules: tc.rules}
			out, _, left := fixed(t, o, dir)
			for _, want := range tc.output {
				if !strings.Contains(out, want) {
					t.Errorf("output\n%s\ndoes not have %q", out, want)
				}
			}
			if left != tc.left {
				t.Errorf("findings are left: %t, want %t", left, tc.left)
			}
			if diff := cmp.Diff(want, contents(t, dir)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			if again, _, _ := fixed(t, o, dir); !strings.Contains(again, "0 findings repaired in 0 files") {
				t.Errorf("output of a second run:\n%s", again)
			}
		})
	}
}

// TestFix_AsCheckCounts compares the number of fixable findings that check reports with what fix repairs.
func TestFix_AsCheckCounts(t *testing.T) {
	patched := repository("flux-system", "enablePodMonitor")
	patched["apps/db/kustomization.yaml"] = "resources: [cluster.yaml]\npatches:\n  - path: patch.yaml\n"
	patched["apps/db/patch.yaml"] = "apiVersion: postgresql.cnpg.io/v1\nkind: Cluster\nmetadata: {name: db, namespace: apps}\nspec: {monitoring: {enabled: true}}\n"
	for name, tc := range map[string]struct {
		files map[string]string
		want  int
	}{
		"a grouped rule is not repaired by default": {repository("apps", "enabled"), 1},
		"two clusters apply the file":               {secondCluster(repository("flux-system", "enabled")), 2},
		"a patch sets the field":                    {patched, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeTree(t, tc.files)
			var out, stderr bytes.Buffer
			if err := runCheckIn(t, checkOptions{reportOptions: reportOptions{output: "json", failOn: "never"}}, dir, nil, &out, &stderr); err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf(`"fixable": %d,`, tc.want); !strings.Contains(out.String(), want) {
				t.Errorf("check reports\n%s\nwithout %s", &out, want)
			}
			if _, summary, _ := fixed(t, fixOptions{dryRun: true}, dir); !strings.HasPrefix(summary[strings.LastIndex(strings.TrimSpace(summary), "\n")+1:], plural(tc.want, "finding")+" to repair") {
				t.Errorf("fix reports %q, want %d findings", summary, tc.want)
			}
		})
	}
}

// TestFix_DryRun applies the diff with git, for a file without a final line end too. Nothing is written, and the
// summary goes to standard error.
func TestFix_DryRun(t *testing.T) {
	files := repository("apps", "enabled")
	files["apps/db/cluster.yaml"] = strings.TrimSuffix(files["apps/db/cluster.yaml"], "\n")
	dir := writeTree(t, files)
	before := contents(t, dir)
	patch, summary, left := fixed(t, fixOptions{dryRun: true}, dir)
	if diff := cmp.Diff(before, contents(t, dir)); diff != "" {
		t.Errorf("the tree has changed (-before +after):\n%s", diff)
	}
	if left || !strings.Contains(summary, "1 finding to repair in 1 file, 0 left alone") || strings.Contains(patch, "to repair") {
		t.Errorf("summary %q, diff %q, findings are left: %t", summary, patch, left)
	}
	git(t, dir, "init", "-q")
	apply := exec.CommandContext(t.Context(), "git", "-C", dir, "apply", "-")
	apply.Stdin = strings.NewReader(patch)
	if out, err := apply.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, patch)
	}
	want := strings.Replace(files["apps/db/cluster.yaml"], ":\n    enabled: true", ": {}", 1)
	if diff := cmp.Diff(want, contents(t, dir)["apps/db/cluster.yaml"]); diff != "" {
		t.Errorf("file after git apply (-want +got):\n%s", diff)
	}
	fixed(t, fixOptions{}, dir)
	if rest, _, _ := fixed(t, fixOptions{dryRun: true}, dir); rest != "" {
		t.Errorf("a diff is left after fix:\n%s", rest)
	}
}

// TestFix_SymbolicLinks repairs a file, which keeps its mode, and writes to no file that only a symbolic link leads to.
func TestFix_SymbolicLinks(t *testing.T) {
	outside := writeTree(t, map[string]string{"cluster.yaml": fmt.Sprintf(cluster, "enabled")})
	dir := writeTree(t, repository("flux-system", "enabled"))
	file := filepath.Join(dir, "apps/db/cluster.yaml")
	if err := os.Chmod(file, 0o666); err != nil { // not a mode that the umask would allow
		t.Fatal(err)
	}
	for _, link := range [][2]string{{filepath.Join(outside, "cluster.yaml"), "apps/db/outside.yaml"}, {outside, "apps/more"}, {"cluster.yaml", "apps/db/twice.yaml"}} {
		if err := os.Symlink(link[0], filepath.Join(dir, link[1])); err != nil {
			t.Fatal(err)
		}
	}
	if out, _, _ := fixed(t, fixOptions{}, dir); !strings.Contains(out, "1 finding repaired in 1 file") {
		t.Errorf("output:\n%s", out)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("the mode is %v (%v)", info.Mode(), err)
	}
	if text := contents(t, outside)["cluster.yaml"]; text != fmt.Sprintf(cluster, "enabled") {
		t.Errorf("the file outside of the tree has changed:\n%s", text)
	}
	if info, err := os.Lstat(filepath.Join(dir, "apps/db/twice.yaml")); err != nil || info.Mode().Type() != os.ModeSymlink {
		t.Errorf("the link is %v (%v)", info.Mode(), err)
	}
}

func TestFix_InvalidOptions(t *testing.T) {
	dir := writeTree(t, repository("flux-system", "enabled"))
	for name, tc := range map[string]struct {
		options    fixOptions
		path, want string
	}{
		"standard input": {path: "-", want: "fix needs files that it can write, not standard input"},
		"a single file":  {path: filepath.Join(dir, "apps/db/cluster.yaml"), want: "is a file; give its directory"},
		"a misspelled rule": {
			options: fixOptions{rules: []string{"source-mising"}}, path: dir,
			want: `there is no rule "source-mising"; did you mean source-missing?`,
		},
		"a missing tree": {path: filepath.Join(dir, "nope"), want: "nope"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			tc.options.Path = tc.path
			err := runFix(t.Context(), tc.options, &out, &out)
			if err == nil || errors.Is(err, errFindings) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}
