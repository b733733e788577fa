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
	"github.com/flux-admission/flux-admission/internal/fix"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// maxRounds bounds how often the tree is checked anew: a repair may show a mistake that was hidden behind the one repaired.
const maxRounds = 5

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
			"root of the tree or a directory of plain manifests (default: .). --dry-run shows the difference and writes nothing;\n" +
			"what a repair brings to light comes with the next run then.\n\n" +
			"Exit code 0: everything that carries an edit is repaired. 1: something is left that needs a person. 2: it could not run.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path := "."
			if len(args) == 1 {
				path = args[0]
			}
			silenceKustomize()
			return runFix(c.Context(), o, path, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	o.addTo(c)
	c.Flags().StringArrayVar(&o.rules, "rule", nil, "repair findings of this rule only, by name or ID; may be repeated (default: all)")
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "show what would change as a unified diff, and write nothing")
	return c
}

func runFix(ctx context.Context, o fixOptions, path string, stdout, stderr io.Writer) error {
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
	if o.dryRun {
		plan, err := planFix(ctx, o, path, only)
		if err != nil {
			return err
		}
		if err := showDiff(stdout, plan); err != nil {
			return err
		}
		// What goes to standard output can be given to git apply.
		return sayFixed(stderr, plan.Left, fmt.Sprintf("%d to repair in %d files", len(plan.Changed), len(plan.Files())))
	}
	changed, files := 0, map[string]bool{}
	for round := 1; ; round++ {
		plan, err := planFix(ctx, o, path, only)
		if err != nil {
			return err
		}
		if len(plan.Files()) == 0 || round > maxRounds {
			return sayFixed(stdout, append(plan.Left, plan.Changed...), fmt.Sprintf("%d repaired in %d files", changed, len(files)))
		}
		if err := plan.Write(); err != nil {
			return err
		}
		changed += len(plan.Changed)
		for _, name := range plan.Files() {
			files[name] = true
		}
		for _, c := range plan.Changed {
			if _, err := fmt.Fprintf(stdout, "%s: %s: %s: %s\n", c.Position, c.Rule, c.Object, c.What); err != nil {
				return fmt.Errorf("writing the report: %w", err)
			}
		}
	}
}

// sayFixed says what is left and sums up.
func sayFixed(to io.Writer, left []fix.Change, sum string) error {
	for _, c := range left {
		reason := c.Reason
		if reason == "" {
			reason = "each repair makes another one necessary"
		}
		if _, err := fmt.Fprintf(to, "%s: %s: %s: left alone, %s (%s)\n", c.Position, c.Rule, c.Object, reason, c.What); err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
	}
	if _, err := fmt.Fprintf(to, "%s, %d left alone\n", sum, len(left)); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if len(left) > 0 {
		return runError{errFindings}
	}
	return nil
}

// planFix checks the tree and plans the repair of what it finds, by the rules with the IDs only; of all when there are none.
func planFix(ctx context.Context, o fixOptions, path string, only []string) (*fix.Plan, error) {
	t, err := openTree(ctx, o.treeOptions, path, nil)
	if err != nil {
		return nil, err
	}
	defer t.close()
	type found struct {
		object  *kustomization.Object
		finding *validators.Finding
	}
	var all []found
	checked, err := t.check(ctx, check.Options{Found: func(object *kustomization.Object, f *validators.Finding) {
		// What only warns because most repositories are laid out otherwise on purpose is not changed unasked.
		if len(only) == 0 && f.Rule.Name != t.fold || slices.Contains(only, f.Rule.ID) {
			all = append(all, found{object, f})
		}
	}})
	if err != nil {
		return nil, err
	}
	type key struct {
		id, path, message string
		object            report.Object
	}
	excepted := map[key]bool{}
	for i := range checked.Findings {
		if f := &checked.Findings[i]; f.Suppressed != nil {
			excepted[key{f.ID, f.Path, f.Message, f.Object}] = true
		}
	}
	plan := fix.NewPlan(path, t.rendered)
	for _, f := range all {
		about := f.object
		name := report.Object{APIVersion: about.GetAPIVersion(), Kind: about.GetKind(), Namespace: about.GetNamespace(), Name: about.GetName()}
		if !excepted[key{f.finding.Rule.ID, f.finding.Path.String(), f.finding.Message, name}] {
			plan.Add(about, f.finding)
		}
	}
	plan.Decide()
	return plan, nil
}

func showDiff(to io.Writer, plan *fix.Plan) error {
	for _, name := range plan.Files() {
		before, after := plan.Texts(name)
		err := difflib.WriteUnifiedDiff(to, difflib.UnifiedDiff{
			A: diffLines(before), B: diffLines(after), FromFile: "a/" + name, ToFile: "b/" + name, Context: 3,
		})
		if err != nil {
			return fmt.Errorf("writing the difference of %s: %w", name, err)
		}
	}
	return nil
}

// diffLines returns lines with their ends. Of a last one without an end it says so, as git reads it; difflib's own function makes one up.
func diffLines(text string) []string {
	out := slices.Collect(strings.Lines(text))
	if last := len(out) - 1; last >= 0 && !strings.HasSuffix(out[last], "\n") {
		out[last] += "\n\\ No newline at end of file\n"
	}
	return out
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
			if near := suggest.Nearest(strings.ToLower(g), names); near != "" {
				err = fmt.Errorf("there is no rule %q; did you mean %s?", g, near)
			}
			return nil, err
		}
		out = append(out, id)
	}
	return out, nil
}
