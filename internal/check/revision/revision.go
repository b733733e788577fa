// Package revision reads revisions of a Git work tree by calling git.
package revision

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Resolve returns the commit of a revision in the work tree that dir is in.
func Resolve(ctx context.Context, dir, revision string) (commit string, err error) {
	if strings.HasPrefix(revision, "-") {
		return "", fmt.Errorf("%q is not a revision", revision)
	}
	out, err := git(ctx, dir, "rev-parse", "--verify", "--quiet", revision+"^{commit}")
	if err == nil {
		return strings.TrimSpace(string(out)), nil
	}
	// With --quiet, git prints nothing about a revision that is not there: any text has another cause, such as a directory without a repository.
	if gitErr, ok := errors.AsType[*gitError](err); ok && gitErr.stderr == "" {
		return "", fmt.Errorf("%s has no revision %s; fetch it, or name an existing one", dir, revision)
	}
	return "", err
}

// CommonCommit returns the commit at which the current commit's history left that of another one: what a branch is to be compared with, without
// what happened on the other one since.
func CommonCommit(ctx context.Context, dir, commit string) (string, error) {
	out, err := git(ctx, dir, "merge-base", commit, "HEAD")
	if err == nil {
		return strings.TrimSpace(string(out)), nil
	}
	if shallow, shallowErr := git(ctx, dir, "rev-parse", "--is-shallow-repository"); shallowErr == nil && strings.TrimSpace(string(shallow)) == "true" {
		return "", fmt.Errorf("the clone is shallow and has no common commit of HEAD and %s: fetch more of the history, such as with fetch-depth: 0 or git fetch --unshallow", commit)
	}
	return "", fmt.Errorf("HEAD and %s have no common commit: %w", commit, err)
}

// ChangedFiles returns the files below dir, relative to it and with slashes, that differ from a commit, untracked ones
// included.
func ChangedFiles(ctx context.Context, dir, commit string) (map[string]bool, error) {
	changed := map[string]bool{}
	for _, args := range [][]string{
		{"diff", "--name-only", "--relative", "-z", "--no-renames", commit, "--", "."},
		{"ls-files", "--others", "--exclude-standard", "-z", "--", "."},
	} {
		out, err := git(ctx, dir, args...)
		if err != nil {
			return nil, err
		}
		for name := range strings.SplitSeq(string(out), "\x00") {
			if name != "" {
				changed[name] = true
			}
		}
	}
	return changed, nil
}

// Export writes the regular files that a commit has below dir to the directory to, which must exist. Symbolic links are
// left out, as Flux does.
func Export(ctx context.Context, dir, commit, to string) error {
	// In a directory below the root, git archives that directory with relative names, and fails if the name of a tree is
	// given.
	archive, err := git(ctx, dir, "archive", "--format=tar", commit)
	if err != nil {
		return err
	}
	if err := unpack(archive, to); err != nil {
		return fmt.Errorf("unpacking the tree of %s: %w", commit, err)
	}
	return nil
}

func unpack(data []byte, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		name := filepath.FromSlash(h.Name)
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		f, err := root.Create(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
}

// gitError is the failure of a git command that ran.
type gitError struct {
	command, stderr string
	err             error
}

// Error implements error: the text of git, or how it ended if there is none.
func (e *gitError) Error() string {
	if e.stderr == "" {
		return fmt.Sprintf("git %s: %v", e.command, e.err)
	}
	return fmt.Sprintf("git %s: %s", e.command, strings.TrimPrefix(e.stderr, "fatal: "))
}

func (e *gitError) Unwrap() error { return e.err }

// git returns the standard output of a git command that runs in the directory.
func git(ctx context.Context, dir string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, "git", append([]string{"-C", dir}, args...)...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if _, ran := errors.AsType[*exec.ExitError](err); ran {
		return nil, &gitError{args[0], strings.TrimSpace(stderr.String()), err}
	}
	if err != nil {
		return nil, fmt.Errorf("git has to be installed for revisions: %w", err)
	}
	return out, nil
}
