package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"github.com/spf13/cobra"

	"github.com/flux-admission/flux-admission/internal/check/progress"
	"github.com/flux-admission/flux-admission/internal/check/repair"
	"github.com/flux-admission/flux-admission/internal/fix"
	"github.com/flux-admission/flux-admission/internal/rulecatalog"
)

type fixOptions struct {
	repair.Options
	rules  []string
	dryRun bool
}

func newFix() *cobra.Command {
	var o fixOptions
	c := &cobra.Command{
		Use:   "fix [PATH]",
		Short: "Repair findings of check that have a definite fix",
		Long: "Check a Git tree and apply the edits of its findings to the YAML files.\n" +
			"Comments, order, indentation and quotes are kept. PATH is the root of the tree\n" +
			"or a directory of plain manifests (default: .).\n\n" +
			"With --dry-run, the edits are printed as a unified diff and nothing is written.\n" +
			"Findings that only a repair reveals then appear in the next run.\n\n" +
			"Exit code 0: every finding with an edit is repaired. 1: some are left for a\n" +
			"person to decide. 2: fix could not run.",
		Example: "  flux-admission fix --dry-run        # show the edits as a diff\n" +
			"  flux-admission fix --rule KS005     # only those of one rule",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			o.Path = pathOf(args)
			if err := applyConfig(c, o.Path); err != nil {
				return err
			}
			return withoutWarnings(func() error { return runFix(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr()) })
		},
	}
	addInputFlags(c, &o.Input)
	addConfigFlag(c)
	c.Flags().StringArrayVar(
		&o.rules, "rule", nil, "name or ID of a rule whose findings are repaired; may be repeated (default: all rules)",
	)
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "print a unified diff and write nothing (default false)")
	return c
}

func runFix(ctx context.Context, o fixOptions, stdout, stderr io.Writer) error {
	var err error
	if o.Rules, err = rulecatalog.IDs(o.rules); err != nil {
		return err
	}
	bar := progress.New(stderr, false)
	defer bar.End()
	o.Built, o.Warning = bar.Built, warnTo(stderr)
	if o.dryRun {
		plan, err := repair.Plan(ctx, o.Options)
		if err != nil {
			return err
		}
		bar.End()
		if err := writeDiff(stdout, plan); err != nil {
			return err
		}
		// Standard output has the diff only, for git apply.
		return writeLeft(stderr, plan.Rejected, plural(plan.Repaired(), "finding")+" to repair in "+plural(len(plan.Files()), "file"))
	}
	result, err := repair.Repair(ctx, o.Options, func(c fix.Change) error {
		bar.End()
		if _, err := fmt.Fprintf(stdout, "%s: %s: %s: %s\n", c.Position, c.Rule, c.Object, c.Edit); err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	bar.End()
	return writeLeft(stdout, result.Left, plural(result.Repaired, "finding")+" repaired in "+plural(len(result.Files), "file"))
}

// writeLeft writes the findings that were left alone and the summary.
func writeLeft(to io.Writer, left []fix.Change, summary string) error {
	for _, c := range left {
		reason := c.Reason
		if reason == "" {
			reason = "each repair requires another one"
		}
		if _, err := fmt.Fprintf(to, "%s: %s: %s: left alone, %s (%s)\n", c.Position, c.Rule, c.Object, reason, c.Edit); err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
	}
	if _, err := fmt.Fprintf(to, "%s, %d left alone\n", summary, len(left)); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if len(left) > 0 {
		return runError{errFindings}
	}
	return nil
}

// plural returns a number of things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func writeDiff(to io.Writer, plan *fix.Plan) error {
	for _, name := range plan.Files() {
		before, after := plan.Texts(name)
		err := difflib.WriteUnifiedDiff(to, difflib.UnifiedDiff{
			A: diffLines(before), B: diffLines(after), FromFile: "a/" + name, ToFile: "b/" + name, Context: 3,
		})
		if err != nil {
			return fmt.Errorf("writing the diff of %s: %w", name, err)
		}
	}
	return nil
}

// diffLines returns lines with their line ends. A last line without one is marked as git expects it; difflib.SplitLines
// would add a line end.
func diffLines(text string) []string {
	out := slices.Collect(strings.Lines(text))
	if last := len(out) - 1; last >= 0 && !strings.HasSuffix(out[last], "\n") {
		out[last] += "\n\\ No newline at end of file\n"
	}
	return out
}
