package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fixed runs fix and returns what it says: on standard output, and beside it.
func fixed(t *testing.T, o fixOptions, dir string) (out, said string, left bool) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	err := runFix(t.Context(), o, dir, &stdout, &stderr)
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

// secondCluster makes a repository of two clusters that apply the same directory.
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
		return strings.NewReplacer("name: db", "name: "+name, "apps/db", "apps/"+name).Replace(fmt.Sprintf(child, "flux-system"))
	}
	for name, tc := range map[string]struct {
		files   map[string]string
		rules   []string
		changes map[string][2]string // by file: what becomes what
		says    []string
		left    bool
	}{
		"a clean tree stays as it is": {files: repository("flux-system", "enablePodMonitor"), says: []string{"0 repaired in 0 files, 0 left alone"}},
		"a field that does not exist is removed, and a namespace that only warns is not touched": {
			files:   repository("apps", "enabled"),
			changes: map[string][2]string{"apps/db/cluster.yaml": {enabled, "  monitoring: {}\n"}},
			says:    []string{"apps/db/cluster.yaml:11:5: cnpg-monitoring-enabled: Cluster apps/db: remove spec.monitoring.enabled", "1 repaired in 1 files, 0 left alone"},
		},
		"a rule that is asked for is repaired although it only warns, by its ID too": {
			files: repository("apps", "enabled"), rules: []string{"ks001"},
			changes: map[string][2]string{"clusters/home/db.yaml": {"namespace: apps", "namespace: flux-system"}},
			says:    []string{"1 repaired in 1 files, 0 left alone"},
		},
		"a file that two clusters apply is repaired once": {
			files:   secondCluster(repository("flux-system", "enabled")),
			changes: map[string][2]string{"apps/db/cluster.yaml": {enabled, "  monitoring: {}\n"}},
			says:    []string{"1 repaired in 1 files, 0 left alone"},
		},
		"what is right for one of two clusters is left alone": {
			// The away cluster has what the other one lacks.
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
			says: []string{"left alone, the file is also applied by Kustomization flux-system/flux-system of clusters/away/flux-system/gotk-sync.yaml, where this is not found",
				"0 repaired in 0 files, 1 left alone"},
		},
		"two clusters that want different things leave a file alone": {
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
			says: []string{`kustomization-dependency-missing wants something else in the same place (set spec.dependsOn[0].namespace to "away")`,
				`kustomization-dependency-missing wants something else in the same place (set spec.dependsOn[0].namespace to "flux-system")`, "0 repaired in 0 files, 2 left alone"},
		},
		"what a repair brings to light is repaired too": {
			files: withEnd(with(repository("flux-system", "enablePodMonitor"), map[string]string{
				"clusters/home/operator.yaml": strings.ReplaceAll(operator("operator"), "apps/operator", "apps/none"),
				"apps/none/cm.yaml":           "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: none, namespace: apps}\n",
			}), "clusters/home/db.yaml", strings.Replace(dependsOn, "dependsOn", "dependOn", 1)),
			rules:   []string{"kustomization-dependency-missing", "unknown-field"},
			changes: map[string][2]string{"clusters/home/db.yaml": {"dependOn: [{name: operator, namespace: elsewhere}]", "dependsOn: [{name: operator, namespace: flux-system}]"}},
			says:    []string{"2 repaired in 1 files, 0 left alone"},
		},
		"what a patch sets is left alone, with the patch's place": {
			files: with(repository("flux-system", "enablePodMonitor"), map[string]string{
				"apps/db/kustomization.yaml": "resources: [cluster.yaml]\npatches:\n  - path: patch.yaml\n",
				"apps/db/patch.yaml":         "apiVersion: postgresql.cnpg.io/v1\nkind: Cluster\nmetadata: {name: db, namespace: apps}\n" + "spec:\n" + enabled,
			}),
			left: true,
			says: []string{"apps/db/patch.yaml:6:5: cnpg-monitoring-enabled: Cluster apps/db: left alone, it is set in apps/db/patch.yaml:6:5 (patch)", "0 repaired in 0 files, 1 left alone"},
		},
		"a field that holds a variable is left alone": {
			files: withEnd(func() map[string]string {
				f := repository("flux-system", "enabled")
				f["apps/db/cluster.yaml"] = strings.ReplaceAll(f["apps/db/cluster.yaml"], "enabled: true", "enabled: ${ON}")
				return f
			}(), "clusters/home/db.yaml", "  postBuild: {substitute: {ON: \"true\"}}\n"),
			left: true,
			says: []string{"left alone, spec.monitoring.enabled holds a variable"},
		},
		"an item that a patch has moved down is not taken for another": {
			files: withEnd(with(repository("flux-system", "enablePodMonitor"), map[string]string{
				"clusters/home/operator.yaml":      strings.ReplaceAll(operator("operator"), "apps/operator", "apps/none"),
				"clusters/home/kustomization.yaml": "resources: [flux-system/gotk-sync.yaml, db.yaml, operator.yaml]\npatches:\n  - target: {kind: Kustomization, name: db}\n    patch: |\n      - {op: add, path: /spec/dependsOn/0, value: {name: flux-system}}\n",
				"apps/none/cm.yaml":                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: none, namespace: apps}\n",
			}), "clusters/home/db.yaml", dependsOn[:len(dependsOn)-2]+", {name: db, namespace: flux-system}]\n"),
			rules: []string{"kustomization-dependency-missing"}, left: true,
			says: []string{"is in another place of the file than of what is applied", "0 repaired in 0 files, 1 left alone"},
		},
		"what an exemption accepts is left as it is": {
			files: with(repository("flux-system", "enabled"), map[string]string{
				"clusters/home/policy.yaml": "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\nspec:\n  rules: {cnpg-monitoring-enabled: {action: Deny}}\n" +
					"  exemptions: [{rules: [cnpg-monitoring-enabled], reason: ours, match: {kinds: [Cluster], namespaces: [apps], names: [db]}}]\n",
			}),
			says: []string{"0 repaired in 0 files, 0 left alone"},
		},
		"plain manifests, Windows line ends and other documents included": {
			files:   map[string]string{"db.yaml": "# first\r\n---\r\n# second\r\n" + strings.ReplaceAll(fmt.Sprintf(cluster, "enabled"), "\n", "\r\n") + "---\r\n# end\r\n"},
			changes: map[string][2]string{"db.yaml": {"  monitoring:\r\n    enabled: true\r\n", "  monitoring: {}\r\n"}},
			says:    []string{"1 repaired in 1 files, 0 left alone"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := gitTree(t, tc.files)
			want := contents(t, dir)
			for file, change := range tc.changes {
				if strings.Count(want[file], change[0]) != 1 {
					t.Fatalf("%s has %q %d times", file, change[0], strings.Count(want[file], change[0]))
				}
				want[file] = strings.Replace(want[file], change[0], change[1], 1)
			}
			o := fixOptions{rules: tc.rules}
			out, _, left := fixed(t, o, dir)
			for _, says := range tc.says {
				if !strings.Contains(out, says) {
					t.Errorf("it says\n%s\nand not %q", out, says)
				}
			}
			if left != tc.left {
				t.Errorf("something is left: %t, want %t", left, tc.left)
			}
			got := contents(t, dir)
			for file := range got {
				if got[file] != want[file] {
					t.Errorf("%s is\n%s\nwant\n%s", file, got[file], want[file])
				}
			}
			if len(got) != len(want) {
				t.Errorf("%d files have become %d", len(want), len(got))
			}
			if again, _, _ := fixed(t, o, dir); !strings.Contains(again, "0 repaired in 0 files") {
				t.Errorf("a second time it says\n%s", again)
			}
		})
	}
}

// The difference is one that git applies, also where the last line has no end; nothing is written, and what is left is said beside it.
func TestFixShowsADifferenceThatGitApplies(t *testing.T) {
	files := repository("apps", "enabled")
	files["apps/db/cluster.yaml"] = strings.TrimSuffix(files["apps/db/cluster.yaml"], "\n")
	dir := gitTree(t, files)
	before := contents(t, dir)
	patch, said, left := fixed(t, fixOptions{dryRun: true}, dir)
	if after := contents(t, dir); !slices.Equal(sortedValues(before), sortedValues(after)) {
		t.Errorf("the tree has changed: %q", after)
	}
	if left || !strings.Contains(said, "1 to repair in 1 files, 0 left alone") || strings.Contains(patch, "to repair") {
		t.Errorf("said %q, shown %q, left %t", said, patch, left)
	}
	if _, err := git(t.Context(), dir, "init", "-q"); err != nil {
		t.Fatal(err)
	}
	apply := exec.CommandContext(t.Context(), "git", "-C", dir, "apply", "-")
	apply.Stdin = strings.NewReader(patch)
	if out, err := apply.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, patch)
	}
	if got, want := contents(t, dir)["apps/db/cluster.yaml"], strings.Replace(files["apps/db/cluster.yaml"], ":\n    enabled: true", ": {}", 1); got != want {
		t.Errorf("git makes of it %q, want %q", got, want)
	}
	fixed(t, fixOptions{}, dir)
	if rest, _, _ := fixed(t, fixOptions{dryRun: true}, dir); rest != "" {
		t.Errorf("there is still a difference:\n%s", rest)
	}
}

func sortedValues(files map[string]string) []string {
	var out []string
	for name, text := range files {
		if !strings.HasPrefix(name, ".git/") {
			out = append(out, name+"\x00"+text)
		}
	}
	slices.Sort(out)
	return out
}

// A file keeps its mode, and one that is reached through a symbolic link only, in the tree or out of it, is not written.
func TestFixWritesInTheTreeOnly(t *testing.T) {
	outside := gitTree(t, map[string]string{"cluster.yaml": fmt.Sprintf(cluster, "enabled")})
	dir := gitTree(t, repository("flux-system", "enabled"))
	file := filepath.Join(dir, "apps/db/cluster.yaml")
	if err := os.Chmod(file, 0o666); err != nil { // a mode that the umask would not leave
		t.Fatal(err)
	}
	for _, link := range [][2]string{{filepath.Join(outside, "cluster.yaml"), "apps/db/outside.yaml"}, {outside, "apps/more"}, {"cluster.yaml", "apps/db/twice.yaml"}} {
		if err := os.Symlink(link[0], filepath.Join(dir, link[1])); err != nil {
			t.Fatal(err)
		}
	}
	if out, _, _ := fixed(t, fixOptions{}, dir); !strings.Contains(out, "1 repaired in 1 files") {
		t.Errorf("it says\n%s", out)
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

func TestFixWithMistakenOptions(t *testing.T) {
	dir := gitTree(t, repository("flux-system", "enabled"))
	for name, tc := range map[string]struct {
		options    fixOptions
		path, want string
	}{
		"standard input":           {path: "-", want: "fix needs files that it can write, not standard input"},
		"a single file":            {path: filepath.Join(dir, "apps/db/cluster.yaml"), want: "is a file: give the directory that it is in"},
		"a rule that is misspelt":  {options: fixOptions{rules: []string{"source-mising"}}, path: dir, want: `there is no rule "source-mising"; did you mean source-missing?`},
		"a tree that is not there": {path: filepath.Join(dir, "nope"), want: "nope"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := runFix(t.Context(), tc.options, tc.path, &out, &out)
			if err == nil || errors.Is(err, errFindings) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}
