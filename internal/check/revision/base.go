package revision

import (
	"context"
	"errors"
	"strings"
)

// MergeBase returns the commit at which HEAD of the work tree that dir is in left the default branch, and the name of
// that branch. On the default branch itself it is HEAD.
func MergeBase(ctx context.Context, dir string) (commit, branch string, err error) {
	if branch, err = defaultBranch(ctx, dir); err != nil {
		return "", "", err
	}
	out, err := git(ctx, dir, "merge-base", branch, "HEAD")
	if err != nil {
		return "", "", errors.New("HEAD and " + branch + " have no common commit here; name a revision, or fetch more of the history")
	}
	return strings.TrimSpace(string(out)), branch, nil
}

// defaultBranch returns the branch that the remote named origin checks out, or else one of the usual names.
func defaultBranch(ctx context.Context, dir string) (string, error) {
	if out, err := git(ctx, dir, "symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD"); err == nil {
		return strings.TrimSpace(string(out)), nil
	}
	for _, branch := range []string{"origin/main", "origin/master", "main", "master"} {
		if _, err := Resolve(ctx, dir, branch); err == nil {
			return branch, nil
		}
	}
	if _, err := Resolve(ctx, dir, "HEAD"); err != nil {
		return "", err
	}
	return "", errors.New("the default branch is not known: there is no origin/HEAD, main or master; name a revision")
}
