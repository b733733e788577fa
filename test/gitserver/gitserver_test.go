package gitserver_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/test/gitserver"
)

func start(t *testing.T) *gitserver.Server {
	t.Helper()
	s, err := gitserver.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// clone returns the files of a fresh clone, path to content, and its HEAD.
func clone(t *testing.T, url string) (files map[string]string, head string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "clone")
	if out, err := exec.CommandContext(t.Context(), "git", "clone", "--quiet", "--branch="+gitserver.Branch, url, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), "git", "-C", dir, "rev-parse", "HEAD").Output()
	if err != nil {
		t.Fatal(err)
	}
	files = map[string]string{}
	listed, err := exec.CommandContext(t.Context(), "git", "-C", dir, "ls-files").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.Lines(string(listed)) {
		name = strings.TrimSpace(name)
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(content)
	}
	return files, strings.TrimSpace(string(out))
}

func TestCommit_Clone(t *testing.T) {
	s := start(t)
	if _, err := s.Commit(t.Context(), map[string]string{"a.yaml": "a: 1\n", "dir/b.yaml": "b: 1\n"}, "first"); err != nil {
		t.Fatal(err)
	}
	second, err := s.Commit(t.Context(), map[string]string{"a.yaml": "a: 2\n"}, "second")
	if err != nil {
		t.Fatal(err)
	}
	files, head := clone(t, s.URL())
	if head != second {
		t.Errorf("HEAD is %s, Commit returned %s", head, second)
	}
	if len(files) != 2 || files["a.yaml"] != "a: 2\n" || files["dir/b.yaml"] != "b: 1\n" {
		t.Errorf("files: %v", files)
	}

	if _, err := s.Remove(t.Context(), "third", "dir"); err != nil {
		t.Fatal(err)
	}
	if files, _ := clone(t, s.URL()); len(files) != 1 || files["a.yaml"] != "a: 2\n" {
		t.Errorf("files after the removal: %v", files)
	}
}

func TestCommit_Errors(t *testing.T) {
	s := start(t)
	if _, err := s.Commit(t.Context(), map[string]string{"a": "1"}, "first"); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		commit func() (string, error)
		want   string
	}{
		{
			name:   "a path outside the repository",
			commit: func() (string, error) { return s.Commit(t.Context(), map[string]string{"../x": "1"}, "x") },
			want:   `committing "../x": the path must be inside the repository`,
		},
		{
			name:   "a commit without a change",
			commit: func() (string, error) { return s.Commit(t.Context(), map[string]string{"a": "1"}, "x") },
			want:   "nothing to commit",
		},
		{
			name:   "the removal of what is not there",
			commit: func() (string, error) { return s.Remove(t.Context(), "x", "no-such-file") },
			want:   "removing no-such-file: ",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := test.commit(); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestClose(t *testing.T) {
	s := start(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL()+"/info/refs", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err == nil {
		t.Errorf("answered %s", response.Status)
		if err := response.Body.Close(); err != nil {
			t.Error(err)
		}
	}
}
