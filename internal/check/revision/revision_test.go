package revision_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/internal/check/revision"
)

// repository returns a work tree with one commit, in which deploy/ has a file, a file in a directory and a symbolic
// link.
func repository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "README.md", "hello")
	write(t, dir, "deploy/a.yaml", "a: 1\n")
	write(t, dir, "deploy/web/b.yaml", "b: 1\n")
	if err := os.Symlink("a.yaml", filepath.Join(dir, "deploy", "link.yaml")); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}, {"-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-qm", "one"}} {
		if out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v: %s", args[0], err, out)
		}
	}
	return dir
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	file := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestResolve(t *testing.T) {
	dir := repository(t)
	commit, err := revision.Resolve(t.Context(), dir, "HEAD")
	if err != nil || len(commit) != 40 {
		t.Errorf("commit %q, error %v", commit, err)
	}
	for given, want := range map[string]string{"--help": "is not a revision", "gone": "has no revision gone"} {
		if commit, err := revision.Resolve(t.Context(), dir, given); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: commit %q, error %v, want %q", given, commit, err, want)
		}
	}
	_, err = revision.Resolve(t.Context(), t.TempDir(), "HEAD")
	if err == nil || !strings.Contains(err.Error(), "not a git repository") || strings.Contains(err.Error(), "has no revision") {
		t.Errorf("outside of a work tree: error %v", err)
	}
	t.Setenv("PATH", "")
	if _, err := revision.Resolve(t.Context(), dir, "HEAD"); err == nil || !strings.Contains(err.Error(), "git has to be installed") {
		t.Errorf("without git: error %v", err)
	}
}

func TestChangedFiles(t *testing.T) {
	dir := repository(t)
	write(t, dir, "README.md", "changed")
	write(t, dir, "deploy/a.yaml", "a: 2\n")
	write(t, dir, "deploy/web/new.yaml", "new: 1\n")
	if err := os.Remove(filepath.Join(dir, "deploy", "web", "b.yaml")); err != nil {
		t.Fatal(err)
	}
	got, err := revision.ChangedFiles(t.Context(), filepath.Join(dir, "deploy"), "HEAD")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]bool{"a.yaml": true, "web/new.yaml": true, "web/b.yaml": true}, got); diff != "" {
		t.Errorf("changed files below deploy (-want +got):\n%s", diff)
	}
}

func TestExport(t *testing.T) {
	dir := repository(t)
	write(t, dir, "deploy/a.yaml", "a: 2\n")
	to := t.TempDir()
	if err := revision.Export(t.Context(), filepath.Join(dir, "deploy"), "HEAD", to); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err := filepath.WalkDir(to, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		relative, _ := filepath.Rel(to, name)
		got[filepath.ToSlash(relative)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"a.yaml": "a: 1\n", "web/b.yaml": "b: 1\n"}, got); diff != "" {
		t.Errorf("exported files, symbolic links left out (-want +got):\n%s", diff)
	}
}

func TestMergeBase(t *testing.T) {
	dir := repository(t)
	git := func(args ...string) string {
		t.Helper()
		args = append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.com"}, args...)
		out, err := exec.CommandContext(t.Context(), "git", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("git %s: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("branch", "-M", "main")
	first := git("rev-parse", "HEAD")
	git("checkout", "-qb", "change")
	git("commit", "-q", "--allow-empty", "-m", "two")
	git("branch", "-f", "elsewhere")
	for _, tc := range []struct{ name, checkout, want, branch string }{
		{"a branch", "change", first, "main"}, {"the default branch", "main", first, "main"},
	} {
		git("checkout", "-q", tc.checkout)
		if commit, branch, err := revision.MergeBase(t.Context(), filepath.Join(dir, "deploy")); err != nil || commit != tc.want || branch != tc.branch {
			t.Errorf("%s: %q of %q, %v; want %q of %q", tc.name, commit, branch, err, tc.want, tc.branch)
		}
	}
	git("checkout", "-q", "change")
	git("update-ref", "refs/remotes/origin/trunk", "elsewhere")
	git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/trunk")
	if commit, branch, err := revision.MergeBase(t.Context(), dir); err != nil || commit == first || branch != "origin/trunk" {
		t.Errorf("the remote's default branch: %q of %q, %v", commit, branch, err)
	}
	git("symbolic-ref", "--delete", "refs/remotes/origin/HEAD")
	git("checkout", "-q", "--orphan", "other")
	git("commit", "-qm", "unrelated")
	if _, _, err := revision.MergeBase(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "no common commit") {
		t.Errorf("an unrelated branch: %v", err)
	}
	git("branch", "-D", "main")
	if _, _, err := revision.MergeBase(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "cannot determine the default branch") {
		t.Errorf("no default branch: %v", err)
	}
	if _, _, err := revision.MergeBase(t.Context(), t.TempDir()); err == nil {
		t.Error("no error outside of a work tree")
	}
}
