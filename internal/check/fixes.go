package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/flux-admission/flux-admission/internal/fix"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/validators"
)

// PlanFixes evaluates the tree and plans the edits of its findings: those of the rules with the given IDs; without IDs, those of all rules but the
// grouped ones. An edit is in the plan only if the tree that it leads to builds the object without the finding. Findings of the report are fixable
// if the plan repairs them. Nothing is written.
func (t *Tree) PlanFixes(ctx context.Context, o EvaluateOptions, rules []string) (*report.Report, *fix.Plan, error) {
	type found struct {
		object  *kustomization.Object
		finding *validators.Finding
	}
	var all []found
	next := o.Found
	o.Found = func(object *kustomization.Object, f *validators.Finding) {
		all = append(all, found{object, f})
		if next != nil {
			next(object, f)
		}
	}
	r, err := t.Evaluate(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	// A finding that the report has not, or does not count, stays.
	repaired := map[*validators.Finding]bool{}
	for i := range r.Findings {
		f := &r.Findings[i]
		repaired[f.Of] = f.Counts() && (len(rules) == 0 && f.Group == "" || slices.Contains(rules, f.ID))
	}
	plan := fix.NewPlan(t.input.Path, t.Built)
	if info, err := os.Stat(t.input.Path); err == nil && info.IsDir() { // else nothing can be written
		for _, f := range all {
			if repaired[f.finding] {
				plan.Add(f.object, f.finding)
			}
		}
	}
	plan.Decide()
	if err := t.confirm(ctx, plan); err != nil {
		return nil, nil, fmt.Errorf("building the tree with the edits: %w", err)
	}
	fixable := map[*validators.Finding]bool{}
	for _, c := range plan.Applied {
		for _, f := range c.Findings {
			fixable[f] = true
		}
	}
	replacements := plan.Replacements()
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Fixable = fixable[f.Of]; f.Fixable {
			if to := replacements[f.Of]; to != nil {
				f.Edit = &report.Edit{From: to.From, To: to.To, Text: to.Text}
			}
		}
	}
	r.Normalize()
	return r, plan, nil
}

// confirm builds the tree with the planned edits, and takes those out of the plan that do not repair their findings: a kustomization may set the
// field back, or the tree may not build any more.
func (t *Tree) confirm(ctx context.Context, plan *fix.Plan) error {
	edited := plan.Edited()
	if len(edited) == 0 {
		return nil
	}
	after := *t
	after.close = func() {}
	if err := after.load(ctx, edited); err != nil {
		return err
	}
	type found struct {
		fix.Document
		rule, path, message string
	}
	left := map[found]kustomization.Location{} // where the value is written that the finding is about
	built := map[fix.Document]bool{}
	_, err := after.Evaluate(ctx, EvaluateOptions{
		only: func(o *kustomization.Object) bool {
			if _, changed := edited[o.Origin.File]; !changed {
				return false
			}
			built[fix.DocumentOf(o)] = true
			return true
		},
		Found: func(o *kustomization.Object, f *validators.Finding) {
			left[found{fix.DocumentOf(o), f.Rule.ID, f.Path.String(), f.Message}] = o.Locate(f.Path).Location
		},
	})
	if err != nil {
		return err
	}
	plan.Confirm(func(c fix.Change, objects []*kustomization.Object) error {
		for i, o := range objects {
			f, d := c.Findings[i], fix.DocumentOf(o)
			at, again := left[found{d, f.Rule.ID, f.Path.String(), f.Message}]
			switch {
			case !built[d]:
				return errors.New("the tree does not build with the edit")
			case again && at.Role != kustomization.RoleField:
				return fmt.Errorf("%s sets the field back (%s)", at.Position, at.Role)
			case again:
				return errors.New("the build sets the field back")
			}
		}
		return nil
	})
	return nil
}
