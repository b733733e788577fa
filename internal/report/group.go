package report

import (
	"github.com/flux-admission/flux-admission/api/v1alpha1"
)

// findingGroup is a group of similar findings, which are written as one.
type findingGroup struct {
	first *Finding
	// rest are the other findings, in the report's order.
	rest []*Finding
}

// groupFindings groups the findings that keep accepts. A group has the findings of one rule, action and partition with the same message and
// fix, or with the same Group. A nil partition puts all findings into one partition.
func groupFindings(findings []Finding, keep func(*Finding) bool, partition func(*Finding) string) []*findingGroup {
	type key struct {
		part, rule   string
		action       v1alpha1.Action
		message, fix string
	}
	var out []*findingGroup
	seen := map[key]*findingGroup{}
	for i := range findings {
		f := &findings[i]
		if !keep(f) {
			continue
		}
		k := key{"", f.Rule, f.Action, f.Message, f.Fix}
		if partition != nil {
			k.part = partition(f)
		}
		if f.Group != "" {
			k.message, k.fix = "\x00"+f.Group, ""
		}
		if g, ok := seen[k]; ok {
			g.rest = append(g.rest, f)
			continue
		}
		g := &findingGroup{first: f}
		seen[k] = g
		out = append(out, g)
	}
	return out
}

// skippedGroup is a group of skipped evaluations with the same rule and reason.
type skippedGroup struct {
	Skipped
	count int
}

// groupSkipped groups skipped evaluations by rule and reason.
func groupSkipped(list []Skipped) []*skippedGroup {
	type key struct{ rule, reason string }
	var out []*skippedGroup
	seen := map[key]*skippedGroup{}
	for _, s := range list {
		k := key{s.Rule, s.Reason}
		if g, ok := seen[k]; ok {
			g.count++
			continue
		}
		g := &skippedGroup{Skipped: s, count: 1}
		seen[k] = g
		out = append(out, g)
	}
	return out
}
