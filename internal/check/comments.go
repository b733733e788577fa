package check

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/check/ignore"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/file"
)

// comments are the comments of the tree that ignore findings.
type comments struct {
	byFile map[string][]*ignore.Comment
	// used has the rules of a comment that it has ignored a finding of.
	used map[*ignore.Comment]map[string]bool
}

func readComments(built *kustomization.Result) *comments {
	c := &comments{byFile: map[string][]*ignore.Comment{}, used: map[*ignore.Comment]map[string]bool{}}
	rules := allRules()
	for _, f := range built.Commented {
		c.byFile[f.Name()] = ignore.Parse(f.File, rules)
	}
	return c
}

// suppression returns the first comment that covers a finding of a rule at one of the positions, as the reason to
// suppress it; nil if none does. All that cover it are in use.
func (c *comments) suppression(rule *validators.Meta, positions ...validators.Position) *report.Suppression {
	if rule.ID == file.CommentInvalid.ID || rule.ID == file.CommentUnused.ID {
		return nil
	}
	var out *report.Suppression
	for _, at := range positions {
		for _, comment := range c.byFile[at.File] {
			if !comment.Covers(rule.ID, at.Line) {
				continue
			}
			if c.used[comment] == nil {
				c.used[comment] = map[string]bool{}
			}
			c.used[comment][rule.ID] = true
			if out == nil {
				out = &report.Suppression{By: report.ByComment, Reason: comment.Reason, Position: &comment.Position}
			}
		}
	}
	return out
}

// invalid returns a problem for each comment that ignores nothing.
func (c *comments) invalid(built *kustomization.Result) []*validators.Problem {
	var out []*validators.Problem
	for _, f := range built.Commented {
		for _, comment := range c.byFile[f.Name()] {
			if comment.Invalid != "" && !comment.InText {
				out = append(out, commentProblem(validators.ProblemCommentInvalid, comment,
					"the comment ignores nothing: %s; write %q", comment.Invalid, ignore.Syntax))
			}
		}
	}
	return out
}

// unused returns a problem for each comment with rules that ignored no finding, of those that were evaluated for its
// file.
func (c *comments) unused(built *kustomization.Result, evaluated func(f *kustomization.Commented, id string) bool) []*validators.Problem {
	var out []*validators.Problem
	for _, f := range built.Commented {
		for _, comment := range c.byFile[f.Name()] {
			if comment.Invalid != "" || comment.InText {
				continue
			}
			ids := slices.DeleteFunc(slices.Clone(comment.Rules), func(id string) bool {
				return c.used[comment][id] || !evaluated(f, id)
			})
			if len(ids) == 0 {
				continue
			}
			reports := "reports"
			if len(ids) > 1 {
				reports = "report"
			}
			out = append(out, commentProblem(validators.ProblemCommentUnused, comment,
				"the comment ignores %s, which %s nothing here", strings.Join(ids, " and "), reports))
		}
	}
	return out
}

func commentProblem(kind validators.ProblemKind, c *ignore.Comment, format string, args ...any) *validators.Problem {
	return &validators.Problem{Kind: kind, Diagnostic: validators.Diagnostic{
		Position: c.Position, Message: fmt.Sprintf(format, args...),
	}}
}

// addUnusedComments reports the comments that ignore nothing any more.
func (e *evaluation) addUnusedComments(ctx context.Context, all []task) {
	if len(e.tree.Built.Commented) == 0 {
		return
	}
	files, active := map[string]bool{}, map[string]bool{}
	for _, t := range all {
		files[t.file] = true
	}
	built := e.tree.isBuilt()
	var rules []v1alpha1.ActiveRule
	for _, p := range e.tree.policiesOf(e.tree.Clusters()) {
		active, _ := p.Rules()
		rules = append(rules, active...)
	}
	for _, m := range e.report.Rules {
		active[m.ID] = slices.ContainsFunc(rules, func(r v1alpha1.ActiveRule) bool { return r.Name == m.Name })
	}
	unused := e.comments.unused(e.tree.Built, func(f *kustomization.Commented, id string) bool {
		switch name := f.Name(); {
		case !active[id]:
			return false
		case files[name]:
			return !e.inconclusive[id][name]
		default:
			// The file configures a build of objects in other files.
			return f.Used && built && len(e.inconclusive[id]) == 0
		}
	})
	e.addProblems(ctx, unused)
}

// addProblems evaluates the rules on problems of files that are known only after all objects were evaluated.
func (e *evaluation) addProblems(ctx context.Context, problems []*validators.Problem) {
	for _, problem := range problems {
		if t, ok := e.tree.fileTask(problem); ok {
			e.add(t.subject, e.tree.decide(ctx, t, e.exemptions))
		}
	}
}

// isBuilt reports whether every Kustomization of the tree could be built.
func (t *Tree) isBuilt() bool {
	return !slices.ContainsFunc(t.Built.Clusters, func(c *kustomization.Cluster) bool {
		return slices.ContainsFunc(c.Kustomizations, (*kustomization.Kustomization).Failed)
	})
}
