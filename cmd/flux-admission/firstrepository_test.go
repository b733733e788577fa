package main

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var updateTranscript = flag.Bool("update-transcript", false, "write what the commands of docs/first-repository.md print")

const transcriptPage = "docs/first-repository.md"

var fencedBlock = regexp.MustCompile("(?ms)^```(console|yaml)\n(.*?)^```$")

// TestFirstRepository_Transcript follows docs/first-repository.md in an empty directory: it writes the files of the page, runs its
// commands, and compares what they print.
func TestFirstRepository_Transcript(t *testing.T) {
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	bin, home := t.TempDir(), t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "flux-admission")); err != nil {
		t.Fatal(err)
	}
	f := &follower{dir: home, home: home, env: []string{
		asBinary + "=1", "HOME=" + home, "PATH=" + bin + ":" + os.Getenv("PATH"), "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
		"GIT_AUTHOR_DATE=2026-11-26T00:00:00Z", "GIT_COMMITTER_DATE=2026-11-26T00:00:00Z",
	}}
	page := string(read(t, transcriptPage))
	got := fencedBlock.ReplaceAllStringFunc(page, func(block string) string {
		m := fencedBlock.FindStringSubmatch(block)
		if m[1] == "yaml" {
			f.write(t, m[2])
			return block
		}
		return "```console\n" + f.run(t, m[2]) + "```"
	})
	if f.commands < 15 || f.files < 9 {
		t.Errorf("the page has %d commands and %d files", f.commands, f.files)
	}
	if *updateTranscript {
		if err := os.WriteFile(filepath.Join(root, transcriptPage), []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(page, got); diff != "" {
		t.Errorf("the commands print something else (-page +run); go test ./cmd/flux-admission -run FirstRepository -update-transcript writes it:\n%s", diff)
	}
}

// follower does what a page tells its reader to do.
type follower struct {
	dir, home       string
	env             []string
	code            int // exit code of the last command
	commands, files int
}

// write writes a file whose first line is its path in a comment.
func (f *follower) write(t *testing.T, text string) {
	t.Helper()
	first, _, _ := strings.Cut(text, "\n")
	path, ok := strings.CutPrefix(first, "# ")
	if !ok {
		t.Fatalf("a file without its path:\n%s", text)
	}
	file := filepath.Join(f.dir, path)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	f.files++
}

// run runs the commands of a block, and returns the block with what they print.
func (f *follower) run(t *testing.T, block string) string {
	t.Helper()
	var out strings.Builder
	for line := range strings.Lines(block) {
		command, ok := strings.CutPrefix(strings.TrimSpace(line), "$ ")
		if !ok {
			continue
		}
		f.commands++
		out.WriteString(line)
		if dir, ok := strings.CutPrefix(command, "cd "); ok {
			f.dir = filepath.Join(f.dir, dir)
			continue
		}
		if command == "echo $?" {
			out.WriteString(strconv.Itoa(f.code) + "\n")
			continue
		}
		cmd := exec.CommandContext(t.Context(), "bash", "-c", command)
		cmd.Dir, cmd.Env = f.dir, f.env
		printed, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		f.code = cmd.ProcessState.ExitCode()
		out.WriteString(strings.ReplaceAll(string(printed), f.home, "/home/me"))
	}
	return out.String()
}
