package main

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/internal/check"
)

// executed runs the command line and returns its standard output and error, and the error of the command.
func executed(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errOut bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&errOut)
	err = root.ExecuteContext(t.Context())
	return out.String(), errOut.String(), err
}

func TestConfig(t *testing.T) {
	with := func(config string) string {
		files := repository("flux-system", "enabled")
		files["settings/policy.yaml"] = "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\nspec: {rules: {cnpg-monitoring-enabled: {action: Warn}}}\n"
		files[configFile] = config
		dir := writeTree(t, files)
		git(t, dir, "init", "-q")
		return dir
	}
	t.Run("it applies to a directory below, with paths relative to it", func(t *testing.T) {
		dir := with("policy: settings/policy.yaml\nskip: [KS001, namespace-missing]\nfail-on: deny\n")
		out, stderr, err := executed(t, "check", "--no-progress", "-o", "json", filepath.Join(dir, "clusters", ".."))
		if err != nil || !strings.Contains(out, `"action": "Warn"`) || !strings.Contains(stderr, "using the settings of "+filepath.Join(dir, configFile)) {
			t.Errorf("error %v, standard error %q, output\n%s", err, stderr, out)
		}
	})
	t.Run("a flag wins", func(t *testing.T) {
		dir := with("skip: [cnpg-monitoring-enabled]\noutput: json\n")
		if out, _, err := executed(t, "check", "--no-progress", dir); err != nil || !strings.HasPrefix(out, "{") {
			t.Errorf("error %v, output\n%s", err, out)
		}
		if _, _, err := executed(t, "check", "--no-progress", "--skip", "KS001", dir); err == nil {
			t.Error("the rule of the file is skipped although the flag names another one")
		}
	})
	t.Run("--no-config ignores it", func(t *testing.T) {
		if _, _, err := executed(t, "check", "--no-progress", "--no-config", with("skip: [cnpg-monitoring-enabled]\n")); err == nil {
			t.Error("the rule is skipped")
		}
	})
	t.Run("fix takes what it has flags for", func(t *testing.T) {
		if out, _, err := executed(t, "fix", "--dry-run", with("fail-on: warn\nentrypoint: clusters/home\n")); err != nil {
			t.Errorf("error %v, output\n%s", err, out)
		}
	})
	for name, tc := range map[string]struct{ config, want string }{
		"an unknown key":           {"skip: [KS001]\nfail-om: warn\n", ":2: fail-om: no such key; the keys are flags of check; did you mean fail-on?"},
		"a key twice":              {"skip: KS001\n\nskip: KS002\n", ":3: skip: duplicate key, first defined at line 1"},
		"a list for one value":     {"fail-on: [warn]\n", ":1: fail-on: must be one value, not a list"},
		"a map":                    {"skip: {KS001: true}\n", ":1: skip: line 1: must be a value or a list of values"},
		"a wrong value":            {"fetch-charts: maybe\n", ":1: fetch-charts: line 1: "},
		"a file that it may write": {"report: html=../../page.html\n", ":1: report: can be set on the command line only"},
		"a list":                   {"- skip\n", ":1: must be a map"},
		"no YAML":                  {"skip: [\n", configFile + ": line "},
		"a value of check":         {"fail-on: sometimes\n", `--fail-on "sometimes"`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := executed(t, "check", "--no-progress", with(tc.config)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func TestFindConfig(t *testing.T) {
	dir := writeTree(t, map[string]string{configFile: "", "repo/.git/HEAD": "", "repo/a/b/x.yaml": "", "repo/own/" + configFile: "", "repo/own/c/x.yaml": ""})
	for path, want := range map[string]string{
		"repo/a/b": "", "repo/own/c": "repo/own/" + configFile, "repo/own/c/x.yaml": "repo/own/" + configFile, ".": configFile,
	} {
		got, err := findConfig(filepath.Join(dir, path))
		if want != "" {
			want = filepath.Join(dir, want)
		}
		if err != nil || got != want {
			t.Errorf("%s: %q, error %v, want %q", path, got, err, want)
		}
	}
}

func TestCheck_UnusedVariable(t *testing.T) {
	files := repository("flux-system", "enablePodMonitor")
	files["apps/db/cm.yaml"] = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: apps}\ndata: {a: \"${DOMAIN}\", b: \"${TIER:=small}\"}\n"
	plain := map[string]string{"cm.yaml": files["apps/db/cm.yaml"]}
	for name, dir := range map[string]string{"with Flux": writeTree(t, files), "without": writeTree(t, plain)} {
		for value, want := range map[string]string{"DOMAIN=x": "", "TIER=x": "", "DOMIAN=x": "variable DOMIAN: no file of the tree contains ${DOMIAN}; did you mean DOMAIN?"} {
			var out bytes.Buffer
			err := runCheckIn(t, checkOptions{Options: input(check.Input{Variables: []string{value}}), reportOptions: reportOptions{output: "text", failOn: "never"}}, dir, nil, &out, &out)
			if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %s: error %v, want %q", name, value, err, want)
			}
		}
	}
}

// TestCheck_ChangedSinceMergeBase has a branch that is behind main: what main has changed since is not the branch's.
func TestCheck_ChangedSinceMergeBase(t *testing.T) {
	dir := writeTree(t, repository("flux-system", "enablePodMonitor"))
	commit := func(dir, message string) {
		git(t, dir, "add", "-A")
		git(t, dir, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-q", "-m", message)
	}
	write := func(dir string, files map[string]string) {
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(name)), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	git(t, dir, "init", "-q", "-b", "main")
	bad := repository("flux-system", "enabled")["apps/db/cluster.yaml"]
	old := maps.Clone(map[string]string{"apps/db/old.yaml": strings.ReplaceAll(bad, "name: db", "name: old")})
	write(dir, old)
	commit(dir, "one")
	git(t, dir, "checkout", "-q", "-b", "branch")
	write(dir, map[string]string{"apps/db/new.yaml": strings.ReplaceAll(bad, "name: db", "name: new")})
	commit(dir, "two")
	git(t, dir, "checkout", "-q", "main")
	write(dir, map[string]string{"apps/db/old.yaml": strings.ReplaceAll(old["apps/db/old.yaml"], "enabled", "enablePodMonitor")})
	commit(dir, "three")
	git(t, dir, "checkout", "-q", "branch")

	want := []string{"cnpg-monitoring-enabled apps/db/new.yaml:11"}
	since := checkOptions{Options: check.Options{ChangedSince: "main"}}
	if got := checked(t, since, dir); !slices.Equal(got, want) {
		t.Errorf("on the branch: %q, want %q", got, want)
	}
	worktree := filepath.Join(t.TempDir(), "tree")
	git(t, dir, "worktree", "add", "-q", "--detach", worktree, "branch")
	write(worktree, map[string]string{"apps/db/more.yaml": strings.ReplaceAll(bad, "name: db", "name: more")})
	if got := checked(t, since, worktree); !slices.Equal(got, append([]string{"cnpg-monitoring-enabled apps/db/more.yaml:11"}, want...)) {
		t.Errorf("in a work tree with an uncommitted file: %q", got)
	}
	shallow := filepath.Join(t.TempDir(), "clone")
	git(t, dir, "clone", "-q", "--depth", "1", "--no-single-branch", "file://"+dir, shallow)
	since.ChangedSince = "origin/main"
	since.output, since.failOn = "text", "never"
	var out bytes.Buffer
	if err := runCheckIn(t, since, shallow, nil, &out, &out); err == nil || !strings.Contains(err.Error(), "the clone is shallow") {
		t.Errorf("error %v in a shallow clone", err)
	}
}
