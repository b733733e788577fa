package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"github.com/spf13/cobra"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/didyoumean"
	"github.com/flux-admission/flux-admission/internal/fix"
	"github.com/flux-admission/flux-admission/internal/render"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

type fixOptions struct {
	treeOptions
	rules  []string
	dryRun bool
}

func newFix() *cobra.Command {
	var o fixOptions
	c := &cobra.Command{
		Use:   "fix [PATH]",
		Short: "Repair what check finds, where that needs no decision",
		Long: "Check a Git tree and apply the edits that findings carry to its YAML files. Comments, order, indentation and quotes stay as they are. PATH is the\n" +
			"root of the tree or a directory of plain manifests (default: .). --dry-run shows the difference and writes nothing.\n\n" +
			"Exit code 0: everything that carries an edit is repaired. 1: something is left that needs a person. 2: it could not run.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path := "."
			if len(args) == 1 {
				path = args[0]
			}
			silenceKustomize()
			return runFix(c.Context(), o, path, c.OutOrStdout())
		},
	}
	o.addTo(c)
	c.Flags().StringArrayVar(&o.rules, "rule", nil, "repair findings of this rule only, by name or ID; may be repeated (default: all)")
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "show what would change as a unified diff, and write nothing")
	return c
}

func runFix(ctx context.Context, o fixOptions, path string, stdout io.Writer) error {
	if path == "-" {
		return errors.New("fix needs files that it can write, not standard input")
	}
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return fmt.Errorf("%s is a file: give the directory that it is in", path)
	}
	only, err := ruleIDs(o.rules)
	if err != nil {
		return err
	}
	t, err := openTree(ctx, o.treeOptions, path, nil)
	if err != nil {
		return err
	}
	defer t.close()
	plan := fix.NewPlan(path)
	_, err = t.check(ctx, check.Options{Found: func(object *render.Object, f *validators.Finding) {
		// What only warns because most repositories are laid out otherwise on purpose is not changed unasked.
		if len(only) == 0 && f.Rule.Name != t.fold || slices.Contains(only, f.Rule.ID) {
			plan.Add(object, f)
		}
	}})
	if err != nil {
		return err
	}
	plan.Sort()
	if o.dryRun {
		err = showDiff(stdout, plan)
	} else if err = plan.Write(); err == nil {
		for _, c := range plan.Changed {
			if _, err = fmt.Fprintf(stdout, "%s: %s: %s: %s\n", c.Place, c.Rule, c.Object, c.What); err != nil {
				break
			}
		}
	}
	if err != nil {
		return err
	}
	for _, c := range plan.Left {
		if _, err := fmt.Fprintf(stdout, "%s: %s: %s: left alone, %s (%s)\n", c.Place, c.Rule, c.Object, c.Reason, c.What); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(stdout, "%d repaired in %d files, %d left alone\n", len(plan.Changed), len(plan.Files()), len(plan.Left)); err != nil {
		return err
	}
	if len(plan.Left) > 0 {
		return runError{errFindings}
	}
	return nil
}

func showDiff(to io.Writer, plan *fix.Plan) error {
	for _, name := range plan.Files() {
		before, after := plan.Texts(name)
		err := difflib.WriteUnifiedDiff(to, difflib.UnifiedDiff{
			A: difflib.SplitLines(before), B: difflib.SplitLines(after), FromFile: "a/" + name, ToFile: "b/" + name, Context: 3,
		})
		if err != nil {
			return fmt.Errorf("writing the difference of %s: %w", name, err)
		}
	}
	return nil
}

// ruleIDs returns the IDs of rules that are given by name or ID.
func ruleIDs(given []string) ([]string, error) {
	var out, names []string
	ids := map[string]string{}
	for _, r := range allvalidators.Rules() {
		ids[strings.ToLower(r.ID)], ids[r.Name] = r.ID, r.ID
		names = append(names, r.Name)
	}
	for _, g := range given {
		id, ok := ids[strings.ToLower(g)]
		if !ok {
			err := fmt.Errorf("there is no rule %q; `flux-admission rules` lists them", g)
			if near := didyoumean.Nearest(strings.ToLower(g), names); near != "" {
				err = fmt.Errorf("there is no rule %q; did you mean %s?", g, near)
			}
			return nil, err
		}
		out = append(out, id)
	}
	return out, nil
}
