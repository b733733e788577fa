package revision

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// MergeBase returns the commit at which HEAD of the work tree that dir is in left the default branch, and the name of
// that branch. On the default branch itself it is HEAD.
func MergeBase(ctx context.Context, dir string) (commit, branch string, err error) {
	if branch, err = defaultBranch(ctx, dir); err != nil {
		return "", "", err
	}
	if commit, err = CommonCommit(ctx, dir, branch); err != nil {
		return "", "", fmt.Errorf("%w; or name a revision", err)
	}
	return commit, branch, nil
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
	return "", errors.New("cannot determine the default branch: there is no origin/HEAD, main or master; name a revision")
}
