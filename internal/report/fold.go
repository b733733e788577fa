package report

import (
	"github.com/flux-admission/flux-admission/api/v1alpha1"
)

// folded are findings that say the same, the first standing for all.
type folded struct {
	first *Finding
	// rest are the others, in the report's order.
	rest []*Finding
}

// fold joins the findings that keep accepts: those of one rule and action with the same message and fix, or with the same Fold. Findings
// that apart tells apart are not joined; it may be nil.
func fold(findings []Finding, keep func(*Finding) bool, apart func(*Finding) string) []*folded {
	type key struct {
		apart, rule  string
		action       v1alpha1.Action
		message, fix string
	}
	var out []*folded
	seen := map[key]*folded{}
	for i := range findings {
		f := &findings[i]
		if !keep(f) {
			continue
		}
		k := key{"", f.Rule, f.Action, f.Message, f.Fix}
		if apart != nil {
			k.apart = apart(f)
		}
		if f.Fold != "" {
			k.message, k.fix = "\x00"+f.Fold, ""
		}
		if g, ok := seen[k]; ok {
			g.rest = append(g.rest, f)
			continue
		}
		g := &folded{first: f}
		seen[k] = g
		out = append(out, g)
	}
	return out
}

// notEvaluated are things that were skipped for the same reason.
type notEvaluated struct {
	Skipped
	count int
}

// foldSkipped joins what was skipped by the same rule for the same reason.
func foldSkipped(list []Skipped) []*notEvaluated {
	type key struct{ rule, reason string }
	var out []*notEvaluated
	seen := map[key]*notEvaluated{}
	for _, s := range list {
		k := key{s.Rule, s.Reason}
		if g, ok := seen[k]; ok {
			g.count++
			continue
		}
		g := &notEvaluated{Skipped: s, count: 1}
		seen[k] = g
		out = append(out, g)
	}
	return out
}
