package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/report"
)

// gitTree returns a Git work tree whose default branch has the files.
func gitTree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := writeTree(t, files)
	git(t, dir, "init", "-q", "-b", "main")
	git(t, dir, "config", "user.name", "a")
	git(t, dir, "config", "user.email", "a@example.com")
	commit(t, dir)
	return dir
}

func commit(t *testing.T, dir string) {
	t.Helper()
	git(t, dir, "add", "-A")
	git(t, dir, "commit", "-qm", "change")
}

func edit(t *testing.T, dir, file, from, to string) {
	t.Helper()
	name := filepath.Join(dir, filepath.FromSlash(file))
	data, err := os.ReadFile(name)
	if err != nil || !strings.Contains(string(data), from) {
		t.Fatalf("%s has no %q: %v", file, from, err)
	}
	if err := os.WriteFile(name, []byte(strings.ReplaceAll(string(data), from, to)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// runDiffIn returns what diff writes with the arguments before the path.
func runDiffIn(t *testing.T, dir string, o diffOptions, args ...string) (string, error) {
	t.Helper()
	if err := o.parse(t.Context(), append(args, dir)); err != nil {
		return "", err
	}
	if o.output == "" {
		o.output = "text"
	}
	var out bytes.Buffer
	err := runDiff(t.Context(), o, &out, io.Discard)
	return out.String(), err
}

func TestDiff_Revisions(t *testing.T) {
	dir := gitTree(t, fleet())
	git(t, dir, "checkout", "-qb", "change")
	edit(t, dir, "apps/web.yaml", "web:1", "web:2")
	commit(t, dir)
	edit(t, dir, "apps/web.yaml", "port: 80", "port: 81")
	for name, tc := range map[string]struct {
		args      []string
		want, not []string
	}{
		"the merge base and what is not committed": {nil, []string{"- web:1", "+ web:2", "- 80", "+ 81", "the merge base with main"}, nil},
		"a base and what is not committed":         {[]string{"change"}, []string{"- 80"}, []string{"web:2"}},
		"a base and a head":                        {[]string{"main", "change"}, []string{"- web:1"}, []string{"- 80"}},
		"the other direction":                      {[]string{"change", "main"}, []string{"- web:2", "+ web:1"}, nil},
		"equal revisions":                          {[]string{"main", "main"}, []string{"No difference"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := runDiffIn(t, dir, diffOptions{}, tc.args...)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range tc.want {
				if !strings.Contains(out, text) {
					t.Errorf("no %q in\n%s", text, out)
				}
			}
			for _, text := range tc.not {
				if strings.Contains(out, text) {
					t.Errorf("%q in\n%s", text, out)
				}
			}
		})
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "flux-admission-*", "clusters", "home")); err != nil || len(left) > 0 {
		t.Logf("directories of other processes, or left: %v %v", left, err)
	}
}

// A cluster that only one of the revisions has is compared with nothing.
func TestDiff_NewCluster(t *testing.T) {
	dir := gitTree(t, exemptTree(""))
	git(t, dir, "checkout", "-qb", "change")
	git(t, dir, "mv", "clusters/prod", "clusters/new")
	edit(t, dir, "clusters/new/gotk-sync.yaml", "./clusters/prod", "./clusters/new")
	commit(t, dir)
	for cluster, want := range map[string]string{
		"new":  "+ Deployment default/web",
		"prod": "- Deployment default/web",
	} {
		out, err := runDiffIn(t, dir, diffOptions{Input: check.Input{Cluster: cluster}})
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("--cluster %s: %v; no %q in\n%s", cluster, err, want, out)
		}
	}
	_, err := runDiffIn(t, dir, diffOptions{Input: check.Input{Cluster: "nope"}})
	if want := "working tree: --cluster nope: there is no such cluster; the clusters are clusters/home, clusters/new"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestDiff_ExitCode(t *testing.T) {
	dir := gitTree(t, fleet())
	if _, err := runDiffIn(t, dir, diffOptions{exitCode: true}); err != nil {
		t.Errorf("no difference: %v", err)
	}
	edit(t, dir, "apps/web.yaml", "web:1", "web:2")
	if _, err := runDiffIn(t, dir, diffOptions{exitCode: true}); !errors.Is(err, errFindings) {
		t.Errorf("a difference with --exit-code: %v", err)
	}
	if _, err := runDiffIn(t, dir, diffOptions{}); err != nil {
		t.Errorf("a difference without --exit-code: %v", err)
	}
}

func TestDiff_Errors(t *testing.T) {
	dir := gitTree(t, fleet())
	for name, tc := range map[string]struct {
		dir  string
		o    diffOptions
		args []string
		want string
	}{
		"a revision that is not there": {dir, diffOptions{}, []string{"gone"}, "has no revision gone"},
		"no work tree":                 {writeTree(t, fleet()), diffOptions{}, nil, "the base"},
		"an unknown format":            {dir, diffOptions{output: "csv"}, nil, "--output"},
		"a path that is no directory":  {filepath.Join(dir, "gone"), diffOptions{}, []string{"main", "main"}, "is not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := runDiffIn(t, tc.dir, tc.o, tc.args...); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

// TestDiff_Secrets: the values of a Secret are in no format, whatever changes, and that they change is.
func TestDiff_Secrets(t *testing.T) {
	dir := gitTree(t, fleet())
	edit(t, dir, "apps/web.yaml", "hunter2", "hunter3")
	edit(t, dir, "charts/shop/templates/all.yaml", "hunter2", "hunter3")
	for _, format := range report.DiffFormats() {
		out, err := runDiffIn(t, dir, diffOptions{output: string(format), helm: true, Input: check.Input{Charts: []string{filepath.Join(dir, "charts")}}})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out, "hunter") || !strings.Contains(out, "stringData.password") {
			t.Errorf("%s: %s", format, out)
		}
	}
}

func TestDiff_Charts(t *testing.T) {
	dir := gitTree(t, fleet())
	edit(t, dir, "apps/release.yaml", `tag: "2"`, `tag: "3"`)
	out, err := runDiffIn(t, dir, diffOptions{helm: true, Input: check.Input{Charts: []string{filepath.Join(dir, "charts")}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"HelmRelease apps/shop\n  ~ Deployment apps/shop", "- mirror/shop:2", "+ mirror/shop:3"} {
		if !strings.Contains(out, text) {
			t.Errorf("no %q in\n%s", text, out)
		}
	}
}

// TestDiff_Hostile: what a hostile tree has in names and values is text in every format.
func TestDiff_Hostile(t *testing.T) {
	dir := gitTree(t, fleet())
	edit(t, dir, "apps/web.yaml", "web:1", `web:<script>alert(1)</script>\e[2K|@team`)
	html, err := runDiffIn(t, dir, diffOptions{output: "html"})
	if err != nil || strings.Contains(html, "<script") || !strings.Contains(html, "default-src &#39;none&#39;") && !strings.Contains(html, "default-src 'none'") {
		t.Errorf("%v: %s", err, html)
	}
	text, err := runDiffIn(t, dir, diffOptions{})
	if err != nil || strings.Contains(text, "\x1b") {
		t.Errorf("%v: %q", err, text)
	}
	markdown, err := runDiffIn(t, dir, diffOptions{output: "markdown"})
	if err != nil || strings.Contains(strings.ReplaceAll(markdown, "```", ""), "\n- image <script>") || strings.Contains(markdown, " @team") {
		t.Errorf("%v: %s", err, markdown)
	}
}

// TestDiff_Large: a comment stays under the limit, and tells how much is left out.
func TestDiff_Large(t *testing.T) {
	files := fleet()
	dir := gitTree(t, files)
	var b strings.Builder
	for i := range 2000 {
		b.WriteString("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: cm-" + strings.Repeat("x", i%7) + "-" + string(rune('a'+i%26)) + "-" + strings.Repeat("y", i/26%40) + "}\ndata: {a: b}\n")
	}
	if err := os.WriteFile(filepath.Join(dir, "apps", "many.yaml"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	markdown, err := runDiffIn(t, dir, diffOptions{output: "markdown"})
	if err != nil || len(markdown) > 60_000 || !strings.Contains(markdown, "omitted") {
		t.Errorf("%v: %d bytes", err, len(markdown))
	}
	data, err := runDiffIn(t, dir, diffOptions{output: "json"})
	if err != nil {
		t.Fatal(err)
	}
	var d report.Diff
	if err := json.Unmarshal([]byte(data), &d); err != nil || d.Summary.Added < 1000 {
		t.Errorf("%v: %+v", err, d.Summary)
	}
}

// With many workloads that restart, a comment still has what would be denied before the rest, and one line for all restarts of one reason.
func TestDiff_ManyRestarts(t *testing.T) {
	files := fleet()
	var b strings.Builder
	for i := range 600 {
		fmt.Fprintf(&b, "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: many-%d, namespace: apps}\nspec:\n  replicas: 1\n"+
			"  selector: {matchLabels: {app: a}}\n  template: {metadata: {labels: {app: a}}, spec: {containers: [{name: a, image: 'many:1.%d'}]}}\n", i, i)
	}
	files["apps/many.yaml"] = b.String()
	dir := gitTree(t, files)
	edit(t, dir, "apps/many.yaml", "many:1", "many:2")
	edit(t, dir, "apps/many.yaml", "replicas: 1", "replicaz: 1")
	for format, after := range map[string]string{"markdown": "<summary>Further effects</summary>", "html": "further effects</h2>"} {
		out, err := runDiffIn(t, dir, diffOptions{output: format})
		if err != nil {
			t.Fatal(err)
		}
		findings, further := strings.Index(out, "New findings"), strings.Index(out, after)
		if findings < 0 || further < findings || strings.Count(out, "600 workloads replace their Pods: the Pod template changes") != 1 {
			t.Errorf("%s: new findings at %d, further effects at %d, %d lines on restarts", format, findings, further, strings.Count(out, "replace their Pods"))
		}
	}
}
