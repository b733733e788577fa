// Package check evaluates a Git tree before it reaches a cluster: it builds the tree as Flux would, evaluates every
// object with the same rules and the same policy as the admission webhook, and reports findings with their file and
// line.
package check

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flux-admission/flux-admission/internal/check/baseline"
	"github.com/flux-admission/flux-admission/internal/report"
)

// Options are those of a whole run.
type Options struct {
	Input
	// ChangedSince is a Git revision: only findings in files that changed since then, and new ones, are reported. Empty
	// for all findings.
	ChangedSince string
	// Baseline is the file with findings that do not count; empty for none.
	Baseline string
	// WriteBaseline is a file to write the findings to as a baseline; empty for none. The report then has all findings.
	WriteBaseline string
	// Progress is called from several goroutines while objects are evaluated; nil for nobody.
	Progress func(done, all int)
}

// Run loads a tree and evaluates it. An error means that the check could not run; a tree that Flux could not apply is
// part of the report.
func Run(ctx context.Context, o Options) (*report.Report, error) {
	if o.ChangedSince != "" && o.Path == StandardInput {
		return nil, errors.New("--changed-since needs a Git work tree, not standard input")
	}
	var old *baseline.Baseline
	if o.Baseline != "" {
		var err error
		if old, err = baseline.ReadFile(o.Baseline); err != nil {
			return nil, fmt.Errorf("--baseline: %w", err)
		}
	}
	t, err := Load(ctx, o.Input)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	result, _, err := t.PlanFixes(ctx, EvaluateOptions{Progress: o.Progress}, nil)
	if err != nil {
		return nil, err
	}
	if o.ChangedSince != "" {
		if err := limitToChange(ctx, o.Input, o.ChangedSince, result); err != nil {
			return nil, fmt.Errorf("--changed-since: %w", err)
		}
	}
	if o.WriteBaseline != "" {
		if err := baseline.WriteFile(o.WriteBaseline, old, result); err != nil {
			return nil, fmt.Errorf("--write-baseline: %w", err)
		}
		return result, nil
	}
	if old != nil {
		stale, expired := old.Apply(result.Findings, time.Now())
		result.Baseline = &report.Baseline{Expired: namesOfEntries(expired)}
		// Of a part of the findings, nothing is known about the other entries.
		if o.ChangedSince == "" && o.Cluster == "" && len(o.Only)+len(o.Skip) == 0 {
			result.Baseline.Stale, result.Summary.StaleBaseline = namesOfEntries(stale), len(stale)
		}
		result.Normalize()
	}
	return result, nil
}

func namesOfEntries(entries []baseline.Entry) []string {
	var out []string
	for i := range entries {
		out = append(out, entries[i].String())
	}
	return out
}
