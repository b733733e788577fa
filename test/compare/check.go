package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/flux-admission/flux-admission/internal/report"
)

// checkTimeout bounds the check of one tree.
const checkTimeout = 5 * time.Minute

// outcome is what a binary reports about a tree.
type outcome struct {
	exit int
	// lines are the findings, the skipped evaluations and the errors without their texts.
	lines []string
	// failure is the text of a check that could not run.
	failure string
}

// check runs a binary over a tree. Trees with fields that were renamed since are translated for the first binary.
func check(ctx context.Context, binary string, t tree, old bool) (_ *outcome, err error) {
	dir := t.dir
	if old {
		translated, err := translate(dir)
		if err != nil {
			return nil, err
		}
		if translated != "" {
			defer func() { err = errors.Join(err, os.RemoveAll(translated)) }()
			dir = translated
		}
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	c := exec.CommandContext(ctx, binary, append([]string{"check", "--output", "json", "--no-progress"}, t.args...)...)
	c.Dir = dir
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	out := &outcome{}
	if err := c.Run(); err != nil {
		var failed *exec.ExitError
		if !errors.As(err, &failed) || ctx.Err() != nil {
			return nil, fmt.Errorf("running %s: %w", binary, errors.Join(err, ctx.Err()))
		}
		out.exit = failed.ExitCode()
	}
	if stdout.Len() == 0 {
		out.failure = strings.TrimSpace(stderr.String())
		return out, nil
	}
	var r report.Report
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		return nil, fmt.Errorf("reading the report of %s: %w", binary, err)
	}
	out.lines = linesOf(&r)
	return out, nil
}

// linesOf writes a report without its texts, a line for each thing that is reported, in a stable order.
func linesOf(r *report.Report) []string {
	var out []string
	for i := range r.Findings {
		f := &r.Findings[i]
		var line strings.Builder
		fmt.Fprintf(&line, "finding %s %s, %s, %s:%d, path %q", f.ID, f.Action, f.Object, f.File, f.Line, f.Path)
		for _, p := range f.Related {
			fmt.Fprintf(&line, ", related %s:%d", p.File, p.Line)
		}
		if f.Fixable {
			line.WriteString(", fixable")
		}
		if f.Suppressed != nil {
			line.WriteString(", suppressed")
		}
		out = append(out, line.String())
	}
	about := func(o *report.Object) string {
		if o == nil {
			return "no object"
		}
		return o.String()
	}
	for i := range r.Skipped {
		s := &r.Skipped[i]
		out = append(out, fmt.Sprintf("skipped %s, %s, %s:%d, unknown %t", s.ID, about(s.Object), s.File, s.Line, s.Unknown))
	}
	for i := range r.Errors {
		e := &r.Errors[i]
		out = append(out, fmt.Sprintf("error %s, %s, %s:%d", e.ID, about(e.Object), e.File, e.Line))
	}
	s := &r.Summary
	out = append(out,
		fmt.Sprintf("summary: %d files, %d kustomizations, %d objects", s.Files, s.Kustomizations, s.Objects))
	slices.Sort(out)
	return out
}

// comparison is in what two outcomes differ.
type comparison struct {
	// lines is how many lines the second outcome has.
	lines          int
	removed, added []string
}

func (c comparison) equal() bool { return len(c.removed)+len(c.added) == 0 }

func compare(before, after *outcome) comparison {
	c := comparison{
		lines:   len(after.lines),
		removed: without(before.lines, after.lines),
		added:   without(after.lines, before.lines),
	}
	if before.exit != after.exit {
		c.removed = append(c.removed, fmt.Sprintf("exit code %d", before.exit))
		c.added = append(c.added, fmt.Sprintf("exit code %d", after.exit))
	}
	if (before.failure == "") != (after.failure == "") {
		c.removed = append(c.removed, "failure: "+before.failure)
		c.added = append(c.added, "failure: "+after.failure)
	}
	return c
}

// without returns the lines of a list that another lacks, each as often as it is there more often.
func without(list, other []string) []string {
	left := slices.Clone(other)
	var out []string
	for _, line := range list {
		if i := slices.Index(left, line); i >= 0 {
			left = slices.Delete(left, i, i+1)
			continue
		}
		out = append(out, line)
	}
	return out
}

// renamed are fields of the AdmissionPolicy that had another name.
var renamed = []struct {
	now *regexp.Regexp
	was string
}{
	{regexp.MustCompile(`(?m)^(\s*)exemptions:`), "${1}exceptions:"},
}

// translate copies a tree whose AdmissionPolicy has renamed fields, with the names that they had before; "" when it has
// none.
func translate(dir string) (string, error) {
	changed := map[string][]byte{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(name)) {
			return err
		}
		data, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(data, []byte("kind: AdmissionPolicy")) {
			return err
		}
		text := data
		for _, r := range renamed {
			text = r.now.ReplaceAll(text, []byte(r.was))
		}
		if !bytes.Equal(text, data) {
			relative, err := filepath.Rel(dir, name)
			if err != nil {
				return err
			}
			changed[relative] = text
		}
		return nil
	})
	if err != nil || len(changed) == 0 {
		return "", err
	}
	copied, err := os.MkdirTemp("", "compare-")
	if err != nil {
		return "", fmt.Errorf("creating a directory for the translated tree: %w", err)
	}
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		return "", fmt.Errorf("copying the tree: %w", err)
	}
	for name, text := range changed {
		if err := os.WriteFile(filepath.Join(copied, name), text, 0o600); err != nil {
			return "", fmt.Errorf("writing the translated policy: %w", err)
		}
	}
	return copied, nil
}
