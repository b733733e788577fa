package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// script runs a script of the action, and returns its exit code and output. Programs in bin come before those of the machine.
func script(t *testing.T, name, bin string, env []string, args ...string) (code int, output string) {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, ".github", "action", name))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + cmd.Dir}, env...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

const released = "#!/bin/sh\necho released\n"

// tarball returns a .tar.gz with a program, as goreleaser writes it.
func tarball(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	compressed := gzip.NewWriter(&b)
	archive := tar.NewWriter(compressed)
	for name, text := range map[string]string{"LICENSE": "text", "flux-admission": released} {
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	if err := compressed.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// zipped returns a .zip with a program, as goreleaser writes it for Windows.
func zipped(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	archive := zip.NewWriter(&b)
	w, err := archive.Create("flux-admission.exe")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, released); err != nil {
		t.Fatal(err)
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// releases serves the release v0.1.0 with these checksums by file name; "right" is that of the file.
func releases(t *testing.T, checksums map[string]string) *httptest.Server {
	t.Helper()
	files := map[string][]byte{
		"flux-admission_0.1.0_linux_amd64.tar.gz":  tarball(t),
		"flux-admission_0.1.0_darwin_arm64.tar.gz": tarball(t),
		"flux-admission_0.1.0_windows_amd64.zip":   zipped(t),
	}
	var sums strings.Builder
	for name, sum := range checksums {
		if sum == "right" {
			sum = fmt.Sprintf("%x", sha256.Sum256(files[name]))
		}
		fmt.Fprintf(&sums, "%s  %s\n", sum, name)
	}
	files["flux-admission_0.1.0_checksums.txt"] = []byte(sums.String())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := files[strings.TrimPrefix(r.URL.Path, "/v0.1.0/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(data)
	}))
	t.Cleanup(server.Close)
	return server
}

// The action installs the archive of a release whose checksum is right, builds where there is none, and never builds in place of a
// file that is wrong.
func TestAction_Install(t *testing.T) {
	const linux, darwin, windows = "flux-admission_0.1.0_linux_amd64.tar.gz", "flux-admission_0.1.0_darwin_arm64.tar.gz", "flux-admission_0.1.0_windows_amd64.zip"
	right := map[string]string{linux: "right", darwin: "right", windows: "right"}
	const builds = "build: install -trimpath -ldflags -s -w "
	for name, c := range map[string]struct {
		version, system, arch, source string
		checksums                     map[string]string
		code                          int
		want                          string
	}{
		"a release for Linux":   {"v0.1.0", "Linux", "X64", ".", right, 0, "Installed " + linux + ", checksum verified"},
		"a release for macOS":   {"v0.1.0", "macOS", "ARM64", ".", right, 0, "Installed " + darwin + ", checksum verified"},
		"a release for Windows": {"v0.1.0", "Windows", "X64", ".", right, 0, "Installed " + windows + ", checksum verified"},
		"another checksum": {
			"v0.1.0", "Linux", "X64", ".", map[string]string{linux: strings.Repeat("0", 64)}, 1,
			linux + " of v0.1.0 has another checksum than flux-admission_0.1.0_checksums.txt: it is not installed",
		},
		"no checksum":                          {"v0.1.0", "Linux", "X64", ".", map[string]string{darwin: "right"}, 1, "flux-admission_0.1.0_checksums.txt has no line for " + linux},
		"the checksum of a file with more":     {"v0.1.0", "Linux", "X64", ".", map[string]string{linux + ".sig": strings.Repeat("0", 64)}, 1, "has no line for " + linux},
		"a release without the platform":       {"v0.1.0", "Linux", "ARM", ".", right, 0, builds + "./cmd/flux-admission"},
		"a release that is not there":          {"v0.2.0", "Linux", "X64", ".", right, 0, builds + "./cmd/flux-admission"},
		"a branch of the action":               {"main", "Linux", "X64", ".", right, 0, builds + "./cmd/flux-admission"},
		"another commit than that of the tree": {"0123abc", "Linux", "X64", "", right, 0, builds + "github.com/flux-admission/flux-admission/cmd/flux-admission@0123abc"},
	} {
		t.Run(name, func(t *testing.T) {
			bin, dir := t.TempDir(), t.TempDir()
			if err := os.WriteFile(filepath.Join(bin, "go"), []byte("#!/bin/sh\necho \"build: $*\"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			code, out := script(t, "install", bin, []string{
				"VERSION=" + c.version, "RELEASES=" + releases(t, c.checksums).URL, "SOURCE=" + c.source, "INSTALL_DIR=" + dir,
				"RUNNER_OS=" + c.system, "RUNNER_ARCH=" + c.arch,
			})
			if code != c.code || !strings.Contains(out, c.want) {
				t.Fatalf("exit code %d, want %d, with %q in\n%s", code, c.code, c.want, out)
			}
			installed, _ := filepath.Glob(filepath.Join(dir, "flux-admission*"))
			if want := strings.HasPrefix(c.want, "Installed"); (len(installed) == 1) != want {
				t.Errorf("installed %q", installed)
			}
			for _, file := range installed {
				if text, err := os.ReadFile(file); err != nil || string(text) != released {
					t.Errorf("%s is %q, %v", file, text, err)
				}
			}
			if code != 0 && strings.Contains(out, "build:") {
				t.Errorf("it was built:\n%s", out)
			}
		})
	}
}

// The step of the action gives the script the version of the action, and only then its source.
func TestAction_InstallStep(t *testing.T) {
	a := readAction(t)
	for _, c := range []struct{ version, want string }{
		{"", "VERSION=v0.1.0 SOURCE=action"}, {"v0.3.0", "VERSION=v0.3.0 SOURCE="},
	} {
		dir := t.TempDir()
		cmd := exec.CommandContext(t.Context(), "bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", a.step(t, "Install flux-admission").Run)
		cmd.Dir = dir
		scripts := filepath.Join(dir, "action", ".github", "action")
		if err := os.MkdirAll(scripts, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(scripts, "install"), []byte("#!/bin/sh\necho VERSION=$VERSION SOURCE=$SOURCE\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd.Env = []string{
			"PATH=" + os.Getenv("PATH"), "RUNNER_TEMP=" + dir, "GITHUB_PATH=" + filepath.Join(dir, "path"),
			"VERSION=" + c.version, "ACTION_REF=v0.1.0", "ACTION_PATH=action", "RELEASES=",
		}
		out, err := cmd.CombinedOutput()
		path, _ := os.ReadFile(filepath.Join(dir, "path"))
		if err != nil || strings.TrimSpace(string(out)) != c.want || string(path) != filepath.Join(dir, "flux-admission")+"\n" {
			t.Errorf("version %q: %q, want %q; path %q; %v", c.version, out, c.want, path, err)
		}
	}
}

// forge is the part of the API of GitHub or GitLab for comments on one pull request.
type forge struct {
	mu       sync.Mutex
	comments []comment
	requests []string
	tokens   map[string]bool
	refuse   int // answered to what writes
}

type comment struct {
	ID   int    `json:"id"`
	Body string `json:"body"`
}

func (f *forge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r.Method+" "+r.URL.RequestURI())
	if token := r.Header.Get("Authorization") + r.Header.Get("PRIVATE-TOKEN"); !f.tokens[token] {
		http.Error(w, "{}", http.StatusUnauthorized)
		return
	}
	if r.Method == http.MethodGet {
		page, _ := strconv.Atoi(r.URL.Query().Get("page"))
		first := min((page-1)*100, len(f.comments))
		_ = json.NewEncoder(w).Encode(f.comments[first:min(first+100, len(f.comments))])
		return
	}
	if f.refuse != 0 {
		http.Error(w, "{}", f.refuse)
		return
	}
	var c comment
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.Method == http.MethodPost {
		c.ID = len(f.comments) + 1
		f.comments = append(f.comments, c)
		w.WriteHeader(http.StatusCreated)
	} else {
		id, _ := strconv.Atoi(r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:])
		f.comments[id-1].Body = c.Body
	}
	_ = json.NewEncoder(w).Encode(c)
}

// The first run writes a comment, the next one updates it, also behind a hundred others, and one with another ID has its own.
func TestAction_Comment(t *testing.T) {
	for name, c := range map[string]struct {
		env                           func(url string) []string
		list, create, update, refused string
	}{
		"GitHub": {
			func(url string) []string {
				return []string{"GITHUB_TOKEN=secret", "GITHUB_REPOSITORY=org/fleet", "GITHUB_API_URL=" + url, "PULL_REQUEST=7"}
			},
			"GET /repos/org/fleet/issues/7/comments?per_page=100&page=", "POST /repos/org/fleet/issues/7/comments", "PATCH /repos/org/fleet/issues/comments/104",
			"No comment: the token may not write comments on 7 (HTTP 403); give the job the permission pull-requests: write",
		},
		"GitLab": {
			func(url string) []string {
				return []string{"GITLAB_TOKEN=secret", "CI_API_V4_URL=" + url, "CI_PROJECT_ID=12", "CI_MERGE_REQUEST_IID=7"}
			},
			"GET /projects/12/merge_requests/7/notes?per_page=100&page=", "POST /projects/12/merge_requests/7/notes", "PUT /projects/12/merge_requests/7/notes/104",
			"No comment: the token may not write comments on 7 (HTTP 403)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &forge{tokens: map[string]bool{"Bearer secret": true, "secret": true}}
			for i := range 103 {
				f.comments = append(f.comments, comment{ID: i + 1, Body: "<!-- flux-admission -->\nquoted by somebody"})
			}
			server := httptest.NewServer(f)
			t.Cleanup(server.Close)
			dir := t.TempDir()
			report := func(text string) string {
				file := filepath.Join(dir, "report.md")
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				return file
			}
			run := func(text string, more ...string) (int, string) {
				code, out := script(t, "comment", "", append(c.env(server.URL), more...), report(text), report(text))
				if strings.Contains(out, "secret") {
					t.Errorf("the output has the token:\n%s", out)
				}
				return code, out
			}
			if code, out := run("first \"quoted\" `text`\n"); code != 0 || out != "Wrote the comment on 7\n" {
				t.Fatalf("exit code %d\n%s", code, out)
			}
			if code, out := run("second\n"); code != 0 || out != "Updated the comment on 7\n" {
				t.Fatalf("exit code %d\n%s", code, out)
			}
			want := []string{c.list + "1", c.list + "2", c.create, c.list + "1", c.list + "2", c.update}
			if diff := cmp.Diff(want, f.requests); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			if got := f.comments[103].Body; len(f.comments) != 104 || got != "<!-- flux-admission comment flux-admission -->\nsecond\nsecond\n" {
				t.Errorf("%d comments, the last is %q", len(f.comments), got)
			}
			if code, out := run("staging\n", "COMMENT_ID=staging --> x"); code != 0 || len(f.comments) != 105 {
				t.Errorf("exit code %d, %d comments\n%s", code, len(f.comments), out)
			}
			if code, _ := run(strings.Repeat("a line of the report\n", 60_000), "COMMENT_ID=long"); code != 0 ||
				!strings.HasSuffix(f.comments[105].Body, "a line of the report\n\n\n_The report is longer than a comment may be: the job has all of it._\n") {
				t.Errorf("exit code %d, a comment of %d bytes", code, len(f.comments[105].Body))
			}
			f.refuse = http.StatusForbidden
			if code, out := run("third\n"); code != 0 || !strings.Contains(out, c.refused) {
				t.Errorf("without permission: exit code %d\n%s", code, out)
			}
			f.refuse = http.StatusUnprocessableEntity
			if code, out := run("third\n"); code != 1 || !strings.Contains(out, "failed with HTTP 422") {
				t.Errorf("a refused comment: exit code %d\n%s", code, out)
			}
			if code, out := run("third\n", "PULL_REQUEST=", "CI_MERGE_REQUEST_IID="); code != 0 || !strings.Contains(out, "belongs to no pull request") {
				t.Errorf("without a pull request: exit code %d\n%s", code, out)
			}
		})
	}
}

// stubs writes programs that print their name and arguments, and returns the directory to put before PATH.
func stubs(t *testing.T, programs map[string]string) string {
	t.Helper()
	bin := t.TempDir()
	for path, more := range programs {
		file := filepath.Join(bin, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("#!/bin/sh\necho \"$(basename \"$0\") $*\" >&2\n"+more+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return bin
}

// lines runs a script, and returns its exit code and the calls of stubs.
func lines(t *testing.T, dir, text string, env []string) (code int, calls []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", text)
	cmd.Dir, cmd.Env = dir, env
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), strings.Split(strings.TrimSpace(out.String()), "\n")
}

// The comment has the diff, with the input, and the report of check, if there is one.
func TestAction_CommentStep(t *testing.T) {
	step := readAction(t).step(t, "Comment").Run
	bin := stubs(t, map[string]string{"git": "echo 0123", "flux-admission": "echo diff", ".github/action/comment": ""})
	for name, c := range map[string]struct {
		diff, base string
		checked    bool
		want       []string
	}{
		"a report":              {"false", "main", true, []string{"comment TMP/flux-admission-check.md"}},
		"no report and no diff": {"false", "main", false, []string{""}},
		"a push has no diff":    {"true", "", true, []string{"comment TMP/flux-admission-check.md"}},
		"a report after its diff": {"true", "main", true, []string{
			"git -C fleet merge-base origin/main HEAD",
			"flux-admission diff --output=markdown --policy=p.yaml --fetch-charts --charts=charts -- 0123 HEAD fleet",
			"comment TMP/flux-admission-diff.md TMP/flux-admission-check.md",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.checked {
				if err := os.WriteFile(filepath.Join(dir, "flux-admission-check.md"), []byte("x"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			code, calls := lines(t, dir, step, []string{
				"PATH=" + bin + ":" + os.Getenv("PATH"), "RUNNER_TEMP=" + dir, "ACTION_PATH=" + bin, "CHECK_PATH=fleet", "POLICY=p.yaml", "FETCH_CHARTS=true",
				"CHARTS=charts", "DIFF=" + c.diff, "GITHUB_BASE_REF=" + c.base,
			})
			for i := range calls {
				calls[i] = strings.ReplaceAll(calls[i], dir, "TMP")
			}
			if diff := cmp.Diff(c.want, calls); diff != "" || code != 0 {
				t.Errorf("exit code %d, calls (-want +got):\n%s", code, diff)
			}
			for _, call := range calls {
				if args, ok := strings.CutPrefix(call, "flux-admission "); ok {
					if err := parses(strings.Fields(args)); err != nil {
						t.Errorf("the program does not accept %q: %v", call, err)
					}
				}
			}
		})
	}
}

// The script of the GitLab template installs, checks, comments, and fails as check does.
func TestGitLab_Template(t *testing.T) {
	_, job, _ := strings.Cut(string(read(t, ".gitlab/flux-admission.yml")), "\n---\n")
	var template map[string]struct{ Script []string }
	if err := yaml.Unmarshal([]byte(job), &template); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(template["flux-admission"].Script, "\n")
	bin := stubs(t, map[string]string{
		"git": "", "jq": "", "flux-admission": "echo report > flux-admission.md; exit 1", ".github/action/install": "", ".github/action/comment": "",
	})
	text = strings.ReplaceAll(text, "/tmp/flux-admission", bin)
	env := []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "FLUX_ADMISSION_VERSION=v0.1.0", "FLUX_ADMISSION_PATH=.", "FLUX_ADMISSION_FLAGS=--fetch-charts --skip KS001",
	}
	code, calls := lines(t, t.TempDir(), text, append(env, "GITLAB_TOKEN=secret", "CI_MERGE_REQUEST_IID=7"))
	check := "flux-admission check --fetch-charts --skip KS001 --report junit=flux-admission.xml --report markdown=flux-admission.md -- ."
	want := []string{
		"git init --quiet " + bin, "git -C " + bin + " fetch --quiet --depth 1 https://github.com/flux-admission/flux-admission v0.1.0",
		"git -C " + bin + " checkout --quiet FETCH_HEAD", "install ", check, "comment flux-admission.md",
	}
	for i := range want {
		want[i] = strings.TrimSpace(want[i])
	}
	for i := range calls {
		calls[i] = strings.TrimSpace(calls[i])
	}
	if diff := cmp.Diff(want, calls); diff != "" || code != 1 {
		t.Errorf("exit code %d, want that of check; calls (-want +got):\n%s", code, diff)
	}
	if err := parses(strings.Fields(strings.TrimPrefix(check, "flux-admission "))); err != nil {
		t.Errorf("the program does not accept %q: %v", check, err)
	}
	if code, calls := lines(t, t.TempDir(), text, env); code != 1 || strings.Contains(strings.Join(calls, "\n"), "comment") {
		t.Errorf("without a merge request: exit code %d, %q", code, calls)
	}
}
