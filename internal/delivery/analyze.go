package delivery

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/flux-admission/flux-admission/validators/flux"
)

// Analyze returns what is not ready, and why.
func Analyze(in *Input) *Report {
	g := newGraph(in)
	all := g.sorted()
	for _, n := range all {
		if n.state == "" {
			n.finding = stateOf(n.object)
		}
	}
	for _, n := range all {
		if n.state != Ready && !ownedPart(n) && (n.state != Suspended || n.cond != nil) {
			g.queue = append(g.queue, n)
		}
	}
	g.expandBackups()
	for len(g.queue) > 0 {
		n := g.queue[0]
		g.queue = g.queue[1:]
		if !n.expanded {
			g.expand(n)
		}
	}
	return g.report()
}

// expandBackups has the backups and schedules of Velero wait for a location that is not available.
func (g *graph) expandBackups() {
	for _, l := range g.instances[backupLocationKind] {
		if l.state == Ready {
			continue
		}
		for _, n := range g.instances[backupKind] {
			if phase := stringAt(n.object.Object, "status", "phase"); phase == "" || phase == "New" || phase == "FailedValidation" {
				g.expandBackup(n, l, stringAt(n.object.Object, "spec", "storageLocation"))
			}
		}
		for _, n := range g.instances[scheduleKind] {
			g.expandBackup(n, l, stringAt(n.object.Object, "spec", "template", "storageLocation"))
		}
	}
}

// expandBackup has a backup or schedule wait for the location if that is its own, or the default one.
func (g *graph) expandBackup(n, location *node, name string) {
	if n.ref.Namespace != location.ref.Namespace || name != location.ref.Name && (name != "" || !boolAt(location.object.Object, "spec", "default")) {
		return
	}
	if n.state == Ready {
		n.finding = finding{state: Failed, cause: CauseDependency, evidence: "the storage location"}
		g.queue = append(g.queue, n)
	}
	g.wait(n, location, Reference, "the storage location")
}

// component is a set of nodes that wait for each other; most have one node.
type component []*node

// components returns the strongly connected components of the nodes that are not ready, those that are waited for first.
func components(all []*node) []component {
	type state struct {
		index, low int
		on         bool
	}
	states := make(map[*node]*state, len(all))
	var stack []*node
	var out []component
	var visit func(n *node) *state
	visit = func(n *node) *state {
		s := &state{index: len(states), low: len(states), on: true}
		states[n] = s
		stack = append(stack, n)
		for _, e := range n.edges {
			if next := states[e.to]; next == nil {
				s.low = min(s.low, visit(e.to).low)
			} else if next.on {
				s.low = min(s.low, next.index)
			}
		}
		if s.low != s.index {
			return s
		}
		var c component
		for {
			last := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			states[last].on = false
			c = append(c, last)
			if last == n {
				break
			}
		}
		slices.SortFunc(c, compareNodes)
		out = append(out, c)
		return s
	}
	for _, n := range all {
		if n.state != Ready && n.expanded && states[n] == nil {
			visit(n)
		}
	}
	return out
}

// report finds the roots.
func (g *graph) report() *Report {
	all := g.sorted()
	for _, n := range all {
		slices.SortFunc(n.edges, func(a, b edge) int { return compareNodes(a.to, b.to) })
		if n.state == InProgress && n.hung != "" && len(n.edges) == 0 {
			n.state, n.evidence = Hung, n.evidence+"; "+n.hung
		}
		if n.state == Terminating && len(n.edges) == 0 && n.object != nil && g.deletedNow(n) {
			n.state = InProgress
		}
	}
	r := &Report{Roots: []*Root{}, Objects: []*Object{}, NotRead: g.in.NotRead}
	if r.NotRead == nil {
		r.NotRead = []NotRead{}
	}
	rootsOf := map[*node][]*node{}
	cycles := map[*node][]Ref{}
	for _, c := range components(all) {
		set := map[*node]bool{}
		inside := map[*node]bool{}
		for _, n := range c {
			inside[n] = true
		}
		cycle := len(c) > 1
		for _, n := range c {
			for _, e := range n.edges {
				cycle = cycle || e.to == n
				if !inside[e.to] {
					for _, root := range rootsOf[e.to] {
						set[root] = true
					}
				}
			}
			if n.own || len(n.edges) == 0 {
				set[n] = true
			}
		}
		if cycle {
			first := c[0]
			first.state, first.cause = Failed, CauseCycle
			set[first] = true
			for _, n := range c {
				cycles[first] = append(cycles[first], n.ref)
			}
		}
		for _, n := range c {
			for root := range set {
				rootsOf[n] = append(rootsOf[n], root)
			}
			slices.SortFunc(rootsOf[n], compareNodes)
		}
	}
	waiting := map[*node][]*node{}
	blocked := map[*node][]Ref{}
	for _, n := range all {
		if n.object != nil {
			r.Summary.Objects++
		}
		for _, e := range n.edges {
			waiting[e.to] = append(waiting[e.to], n)
		}
		for _, root := range rootsOf[n] {
			if root != n && n.object != nil && !slices.Contains(cycles[root], n.ref) {
				blocked[root] = append(blocked[root], n.ref)
			}
		}
	}
	for _, n := range all {
		if len(rootsOf[n]) == 0 {
			continue
		}
		if n.object != nil {
			r.Objects = append(r.Objects, describeObject(n, rootsOf[n]))
		}
		if slices.Contains(rootsOf[n], n) {
			r.Roots = append(r.Roots, g.describeRoot(n, blocked[n], cycles[n], waiting[n]))
		}
	}
	slices.SortStableFunc(r.Roots, func(a, b *Root) int {
		return cmp.Or(rank(a.State)-rank(b.State), len(b.Blocked)-len(a.Blocked), a.Object.Compare(b.Object))
	})
	r.count()
	return r
}

// rank orders roots: those that somebody has to repair come first.
func rank(s State) int {
	switch {
	case s.Certain():
		return 0
	case s == Unknown:
		return 1
	}
	return 2
}

// deletionTime is how long a deletion may take before it is called stuck. That alone does not show that a controller is
// gone: see ControllerState.
const deletionTime = 2 * time.Minute

// deletedNow reports whether a deletion began a moment ago, and nothing shows that it cannot end.
func (g *graph) deletedNow(n *node) bool {
	gone := slices.ContainsFunc(n.finalizers, func(f Finalizer) bool { return f.Controller == Gone })
	since := n.object.GetDeletionTimestamp()
	return !gone && !g.in.Now.IsZero() && since != nil && !g.passed(since.Time, deletionTime)
}

func describeObject(n *node, roots []*node) *Object {
	o := &Object{Object: n.ref, State: n.state, Cause: n.cause, Message: text(n.message), WaitsFor: []Edge{}}
	seen := map[*node]bool{}
	var add func(edges []edge)
	add = func(edges []edge) {
		for _, e := range edges {
			if seen[e.to] {
				continue
			}
			seen[e.to] = true
			o.WaitsFor = append(o.WaitsFor, Edge{To: e.to.ref, Type: e.kind, Evidence: e.evidence})
			if e.to.object == nil { // it is not in the report itself
				add(e.to.edges)
			}
		}
	}
	add(n.edges)
	for _, root := range roots {
		o.Roots = append(o.Roots, root.ref)
	}
	return o
}

func (g *graph) describeRoot(n *node, blocked, cycle []Ref, waiting []*node) *Root {
	r := &Root{
		Object: n.ref, State: n.state, Cause: n.cause, Message: text(n.message), Evidence: n.evidence,
		Finalizers: n.finalizers, Cycle: cycle, Blocked: blocked, Notes: n.notes,
	}
	if r.Blocked == nil {
		r.Blocked = []Ref{}
	}
	if n.cond != nil && !n.cond.Since.IsZero() {
		since := n.cond.Since
		r.Since = &since
	} else if n.object != nil && n.object.GetDeletionTimestamp() != nil {
		since := n.object.GetDeletionTimestamp().UTC()
		r.Since = &since
	}
	if owner := g.owner(n, waiting); owner != nil {
		r.Owner = &owner.ref
		if owner != n && owner.object != nil && boolAt(owner.object.Object, "spec", "suspend") && n.state != Suspended {
			r.Notes = append(slices.Clone(r.Notes), fmt.Sprintf("%s is suspended: a repair in Git does not arrive", owner.ref))
		}
	}
	r.Fix = fix(n, r)
	return r
}

// owner returns the Flux object that applies the object, or that waits for it; nil if there is none.
func (g *graph) owner(n *node, waiting []*node) *node {
	if by := g.appliedBy[n.ref]; len(by) > 0 {
		return by[0]
	}
	if n.object != nil {
		labels := mapAt(n.object.Object, "metadata", "labels")
		for _, gk := range []string{flux.Kustomization.Group, flux.HelmRelease.Group} {
			kind := flux.Kustomization
			if gk == flux.HelmRelease.Group {
				kind = flux.HelmRelease
			}
			if k := g.existing(to(kind, stringAt(labels, gk+"/namespace"), stringAt(labels, gk+"/name"))); k != nil {
				return k
			}
		}
	}
	for _, w := range waiting {
		if isFlux(w.ref.GroupKind()) && w != n && (n.refused || !isFlux(n.ref.GroupKind()) || n.ref.GroupKind() == flux.HelmChart) {
			return w
		}
	}
	if isFlux(n.ref.GroupKind()) && n.object != nil {
		return n
	}
	return nil
}

// maxText is the number of characters of a message in a report.
const maxText = 1000

// text returns a message on one line, without control characters and of a limited length.
func text(message string) string {
	message = strings.Join(strings.FieldsFunc(message, func(r rune) bool { return unicode.IsControl(r) }), " ")
	if r := []rune(message); len(r) > maxText {
		return string(r[:maxText]) + "…"
	}
	return message
}
