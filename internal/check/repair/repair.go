// Package repair applies the edits of a check's findings to the files of the tree.
package repair

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/fix"
)

// maxRounds bounds how often the tree is checked again: a repair may reveal a mistake that was hidden by the repaired
// one.
const maxRounds = 5

// Options say what is repaired.
type Options struct {
	check.Input
	// Rules are the IDs of the rules whose findings are repaired; default: all rules, except for those whose findings are
	// grouped.
	Rules []string
}

// Result is what Repair did.
type Result struct {
	// Repaired is the number of findings repaired.
	Repaired int
	// Files are the changed files, sorted.
	Files []string
	// Left are findings whose edits were not made, with the reason. Without a reason, each repair requires another one.
	Left []fix.Change
}

// Plan checks the tree and plans the edits of its findings. Nothing is written.
func Plan(ctx context.Context, o Options) (*fix.Plan, error) {
	if o.Path == check.StandardInput {
		return nil, errors.New("fix needs files that it can write, not standard input")
	}
	if info, err := os.Stat(o.Path); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("%s is a file; give its directory", o.Path)
	}
	t, err := check.Load(ctx, o.Input)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	_, plan, err := t.PlanFixes(ctx, check.EvaluateOptions{}, o.Rules)
	return plan, err
}

// Repair checks the tree and applies the edits of its findings until none is left that can be applied. It calls
// repaired after each edit.
func Repair(ctx context.Context, o Options, repaired func(fix.Change) error) (*Result, error) {
	out := &Result{}
	files := map[string]bool{}
	for round := 1; ; round++ {
		plan, err := Plan(ctx, o)
		if err != nil {
			return nil, err
		}
		if len(plan.Files()) == 0 || round > maxRounds {
			out.Left = append(plan.Rejected, plan.Applied...)
			out.Files = slices.Sorted(maps.Keys(files))
			return out, nil
		}
		if err := plan.Write(); err != nil {
			return nil, err
		}
		out.Repaired += plan.Repaired()
		for _, name := range plan.Files() {
			files[name] = true
		}
		for _, c := range plan.Applied {
			if err := repaired(c); err != nil {
				return nil, err
			}
		}
	}
}
