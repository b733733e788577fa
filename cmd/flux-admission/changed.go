package main

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
	"slices"
	"strings"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/report"
)

// limitToChange drops the findings that have nothing to do with what has changed since a revision: those in files that are as they were, and that the tree of
// that revision had already. A file that is removed shows elsewhere, so the tree of the revision is checked as well.
func limitToChange(ctx context.Context, o treeOptions, path, revision string, r *report.Report) error {
	if strings.HasPrefix(revision, "-") {
		return fmt.Errorf("%q is no revision", revision)
	}
	commit, err := git(ctx, path, "rev-parse", "--verify", "--quiet", revision+"^{commit}")
	if err != nil {
		return fmt.Errorf("%s has no revision %s: fetch it, or name one that is there: %w", path, revision, err)
	}
	rev := strings.TrimSpace(string(commit))
	changed := map[string]bool{}
	for _, args := range [][]string{
		{"diff", "--name-only", "--relative", "-z", "--no-renames", rev, "--", "."}, {"ls-files", "--others", "--exclude-standard", "-z", "--", "."},
	} {
		out, err := git(ctx, path, args...)
		if err != nil {
			return err
		}
		for name := range strings.SplitSeq(string(out), "\x00") {
			changed[name] = true
		}
	}
	before, err := checkRevision(ctx, o, path, rev)
	if err != nil {
		return err
	}
	had := map[report.Identity]bool{}
	for i := range before.Findings {
		had[before.Findings[i].Identity()] = true
	}
	r.Findings = slices.DeleteFunc(r.Findings, func(f report.Finding) bool {
		touched := changed[f.File] || slices.ContainsFunc(f.Related, func(p report.Position) bool { return changed[p.File] })
		return !touched && had[f.Identity()]
	})
	r.Normalize()
	return nil
}

// checkRevision checks the tree as it was, by the same options.
func checkRevision(ctx context.Context, o treeOptions, path, commit string) (_ *report.Report, err error) {
	dir, err := os.MkdirTemp("", "flux-admission-")
	if err != nil {
		return nil, fmt.Errorf("making room for the tree of %s: %w", commit, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	prefix, err := git(ctx, path, "rev-parse", "--show-prefix")
	if err != nil {
		return nil, err
	}
	text, err := git(ctx, path, "archive", "--format=tar", commit+":"+strings.TrimSuffix(strings.TrimSpace(string(prefix)), "/"))
	if err != nil {
		return nil, err
	}
	if err := unpack(text, dir); err != nil {
		return nil, fmt.Errorf("unpacking the tree of %s: %w", commit, err)
	}
	t, err := openTree(ctx, o, dir, nil)
	if err != nil {
		return nil, fmt.Errorf("the tree of %s: %w", commit, err)
	}
	defer t.close()
	return t.check(ctx, check.Options{})
}

// unpack writes the regular files of a tar archive below dir. Flux leaves out symbolic links as well.
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

// git runs Git in the directory and returns what it prints.
func git(ctx context.Context, dir string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, "git", append([]string{"-C", dir}, args...)...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
