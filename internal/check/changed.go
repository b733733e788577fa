package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/flux-admission/flux-admission/internal/check/revision"
	"github.com/flux-admission/flux-admission/internal/report"
)

// limitToChange removes the findings that were there already where the work tree's history left that of a revision, and have no position in a
// file that changed since then. The removal of a file can break another one, so it compares with a check of the revision's tree.
func limitToChange(ctx context.Context, in Input, since string, r *report.Report) error {
	commit, err := revision.Resolve(ctx, in.Path, since)
	if err != nil {
		return err
	}
	if commit, err = revision.CommonCommit(ctx, in.Path, commit); err != nil {
		return err
	}
	changed, err := revision.ChangedFiles(ctx, in.Path, commit)
	if err != nil {
		return err
	}
	before, err := checkRevision(ctx, in, commit)
	if err != nil {
		return fmt.Errorf("checking the tree of %s: %w", commit, err)
	}
	known := map[report.Identity]bool{}
	for i := range before.Findings {
		known[before.Findings[i].Identity()] = true
	}
	r.Findings = slices.DeleteFunc(r.Findings, func(f report.Finding) bool {
		touched := changed[f.File] || slices.ContainsFunc(f.Related, func(p report.Position) bool { return changed[p.File] })
		return !touched && known[f.Identity()]
	})
	r.Normalize()
	return nil
}

// checkRevision evaluates the tree of a commit with the same input otherwise.
func checkRevision(ctx context.Context, in Input, commit string) (_ *report.Report, err error) {
	dir, err := os.MkdirTemp("", "flux-admission-")
	if err != nil {
		return nil, fmt.Errorf("creating a directory for it: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := revision.Export(ctx, in.Path, commit, dir); err != nil {
		return nil, err
	}
	in.Path = dir
	t, err := Load(ctx, in)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	return t.Evaluate(ctx, EvaluateOptions{})
}
