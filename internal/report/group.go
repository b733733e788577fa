package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// findingGroup has the findings of one cause, which are written as one entry.
type findingGroup struct {
	first *Finding
	// rest are the other findings, in the report's order.
	rest []*Finding
}

// groupFindings groups the findings that keep accepts by their cause.
func groupFindings(findings []Finding, keep func(*Finding) bool) []*findingGroup {
	var out []*findingGroup
	seen := map[string]*findingGroup{}
	for i := range findings {
		f := &findings[i]
		if !keep(f) {
			continue
		}
		key := fmt.Sprint(f.Counts(), f.Action, f.Rule, f.Cause)
		if g, ok := seen[key]; ok {
			g.rest = append(g.rest, f)
			continue
		}
		g := &findingGroup{first: f}
		seen[key] = g
		out = append(out, g)
	}
	return out
}

// others describes the further findings of a group by their number and the first few places; it is empty if there are
// none.
func (g *findingGroup) others(o Options) string {
	if len(g.rest) == 0 {
		return ""
	}
	var positions, objects []string
	first := g.first.Position().String()
	for _, f := range g.rest {
		position := f.Position().String()
		if object := f.Object.String(); object != g.first.Object.String() && !slices.Contains(objects, object) {
			objects = append(objects, object)
		}
		if position != "" && position != first && !slices.Contains(positions, position) {
			positions = append(positions, position)
		}
	}
	text := count(len(g.rest), "similar finding", "similar findings")
	switch {
	case len(positions) > 0:
		for i, position := range positions {
			positions[i] = withPrefix(o, position)
		}
		return text + ": " + listed(positions)
	case g.first.File == "":
		return text + ": " + listed(objects)
	case len(objects) > 0:
		return text + " at the same position: " + listed(objects)
	}
	return text + " at the same position"
}

// skippedGroup has skipped evaluations of one cause: their reasons differ in names only.
type skippedGroup struct {
	Skipped
	count int
	rules []string
	// differ means that the reasons do.
	differ bool
}

// groupSkipped groups skipped evaluations by their reasons, the most frequent ones first. Where many differ in names only,
// they are one group.
func groupSkipped(list []Skipped) []*skippedGroup {
	type key struct {
		unknown bool
		reason  string
	}
	reasons := map[key]map[string]bool{}
	keyOf := func(s *Skipped) key { return key{s.Unknown, withoutNames(s.Reason)} }
	for i := range list {
		k := keyOf(&list[i])
		if reasons[k] == nil {
			reasons[k] = map[string]bool{}
		}
		reasons[k][list[i].Reason] = true
	}
	var out []*skippedGroup
	seen := map[key]*skippedGroup{}
	for i := range list {
		s := &list[i]
		k := keyOf(s)
		if len(reasons[k]) <= maxNamed {
			k.reason = s.Reason
		}
		g, ok := seen[k]
		if !ok {
			g = &skippedGroup{Skipped: *s}
			seen[k] = g
			out = append(out, g)
		}
		g.count++
		g.differ = g.differ || s.Reason != g.Reason
		if s.Rule != "" && !slices.Contains(g.rules, s.Rule) {
			g.rules = append(g.rules, s.Rule)
		}
	}
	slices.SortStableFunc(out, func(a, b *skippedGroup) int {
		return cmp.Or(compareBools(b.Leading, a.Leading), cmp.Compare(b.count, a.count))
	})
	return out
}

// Times describes the number of skipped evaluations; it is empty for one.
func (g *skippedGroup) Times() string {
	switch {
	case g.differ:
		return fmt.Sprintf("and %d more", g.count-1)
	case g.count > 1:
		return fmt.Sprintf("%d times", g.count)
	}
	return ""
}

// Text returns the rules and the reason.
func (g *skippedGroup) Text() string {
	return strings.TrimPrefix(listed(g.rules)+": "+g.Reason, ": ")
}
