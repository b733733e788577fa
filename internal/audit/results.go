package audit

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/delivery"
	"github.com/flux-admission/flux-admission/internal/report"
)

const (
	// maxFindings limits the findings that are kept; maxMessage limits the bytes of each message and fix.
	maxFindings = 50_000
	maxMessage  = 1024
)

// Count is a number of findings by action.
type Count struct{ Deny, Warn, Audit int }

func (c *Count) add(a v1alpha1.Action, n int) {
	switch a {
	case v1alpha1.ActionDeny:
		c.Deny += n
	case v1alpha1.ActionWarn:
		c.Warn += n
	case v1alpha1.ActionAudit, v1alpha1.ActionOff:
		c.Audit += n
	}
}

// Summary is the state of a background audit.
type Summary struct {
	// Active means that this replica audits.
	Active bool
	// Objects is the number of evaluated objects, Inconclusive that of those of which a rule could not be evaluated, Omitted that of
	// findings that are neither kept nor among Rules and Namespaces, because there are too many.
	Objects, Inconclusive, Omitted int
	// Findings are the numbers of findings by rule and by namespace; the namespace of cluster-scoped objects is empty.
	Rules, Namespaces map[string]Count
	// Complete is when the evaluations of all changes were last done; zero if they never were.
	Complete time.Time
	// Pending means that something was left to evaluate since, or that the roots of what is not ready are not known yet.
	Pending bool
	// Delivery has the numbers of what is not ready, and Roots what somebody has to repair for it, those with the most objects behind
	// them first, at most maxRoots.
	Delivery delivery.Summary
	Roots    []*delivery.Root
}

// total returns the number of findings, those omitted included.
func (s Summary) total() int {
	n := s.Omitted
	for _, c := range s.Rules {
		n += c.Deny + c.Warn + c.Audit
	}
	return n
}

// Results are the findings of a background audit. It is safe for concurrent use.
type Results struct {
	mu           sync.Mutex
	objects      map[object][]report.Finding // with no finding for objects without any
	inconclusive map[object]struct{}
	kept         int
	// omitted is the number of findings of each object that are counted only, because there are too many.
	omitted map[object]Count
	active  bool
	// builds are the findings on what Flux is about to apply, by source. Terms counts how often all objects began to be evaluated.
	builds map[object][]report.Finding
	terms  uint64
	// complete is when all was evaluated, pending that there is more to evaluate since.
	complete time.Time
	pending  bool
	// dirty are the shards of the reports to write again, since when the first of them is; zero if it is not known.
	dirty [shards]bool
	since time.Time
	// roots are why objects are not ready. With expectRoots no report is written before they are known.
	roots       rootState
	expectRoots bool
}

func newResults() *Results {
	return &Results{objects: map[object][]report.Finding{}, inconclusive: map[object]struct{}{}, omitted: map[object]Count{}, builds: map[object][]report.Finding{}}
}

// term identifies the current evaluation of all objects; 0 while this replica does not audit.
func (r *Results) term() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.active {
		return 0
	}
	return r.terms
}

// putBuild replaces the findings on what Flux is about to apply from a source, unless another term has begun.
func (r *Results) putBuild(term uint64, source object, list []report.Finding) {
	list = prepared(list)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.active || r.terms != term {
		return
	}
	before := r.builds[source]
	r.kept -= len(before)
	list = slices.Clone(list[:min(len(list), max(maxFindings-r.kept, 0))])
	r.kept += len(list)
	delete(r.builds, source)
	if len(list) > 0 {
		r.builds[source] = list
	}
	if !slices.EqualFunc(before, list, equal) {
		r.dirty[shardOf(source)] = true
	}
}

// BuildFindings returns the numbers of findings on what Flux is about to apply, by rule.
func (r *Results) BuildFindings() map[string]Count {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]Count{}
	for _, list := range r.builds {
		for i := range list {
			c := out[list[i].Rule]
			c.add(list[i].Action, 1)
			out[list[i].Rule] = c
		}
	}
	return out
}

// prepared returns the findings that count, sorted, without what they refer to.
func prepared(list []report.Finding) []report.Finding {
	list = slices.DeleteFunc(list, func(f report.Finding) bool { return !f.Counts() })
	for i := range list {
		list[i].Of = nil // it refers to the object
		list[i].Message, list[i].Fix = cut(list[i].Message), cut(list[i].Fix)
	}
	slices.SortFunc(list, func(a, b report.Finding) int {
		return cmp.Or(
			cmp.Compare(a.ID, b.ID), cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message),
		)
	})
	return list
}

// put replaces the findings of an object.
func (r *Results) put(id object, list []report.Finding, inconclusive bool) {
	list = prepared(list)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = true
	before := r.objects[id]
	r.kept -= len(before)
	delete(r.omitted, id)
	delete(r.inconclusive, id)
	if inconclusive {
		r.inconclusive[id] = struct{}{}
	}
	if n := max(maxFindings-r.kept, 0); len(list) > n {
		var c Count
		for _, f := range list[n:] {
			c.add(f.Action, 1)
		}
		r.omitted[id] = c
		list = slices.Clone(list[:n])
	}
	if len(list) == 0 {
		list = nil
	}
	r.objects[id] = list
	r.kept += len(list)
	if !slices.EqualFunc(before, list, equal) {
		r.dirty[shardOf(id)] = true
	}
}

// equal reports whether two findings of one object are the same.
func equal(a, b report.Finding) bool {
	return a.ID == b.ID && a.Path == b.Path && a.Message == b.Message && a.Fix == b.Fix && a.Action == b.Action &&
		a.Kustomization == b.Kustomization && a.File == b.File && a.Line == b.Line
}

// remove removes an object.
func (r *Results) remove(id object) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = true
	if len(r.objects[id]) > 0 {
		r.dirty[shardOf(id)] = true
	}
	r.kept -= len(r.objects[id])
	delete(r.objects, id)
	delete(r.omitted, id)
	delete(r.inconclusive, id)
}

// has reports whether an object has findings.
func (r *Results) has(id object) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, omitted := r.omitted[id]
	return omitted || len(r.objects[id]) > 0
}

// clear removes everything, because another replica leads.
func (r *Results) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.objects, r.inconclusive, r.omitted, r.kept = map[object][]report.Finding{}, map[object]struct{}{}, map[object]Count{}, 0
	r.builds = map[object][]report.Finding{}
	r.active, r.complete, r.dirty, r.roots = false, time.Time{}, [shards]bool{}, rootState{}
}

// began marks that all objects are evaluated again.
func (r *Results) began() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.active, r.pending = true, true
	r.terms++
}

// completed marks that nothing is left to evaluate, and reports whether that is so for the first time since this replica leads.
func (r *Results) completed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.pending {
		return false
	}
	first := r.complete.IsZero()
	if first {
		// What an earlier leader has written is compared with what was found.
		for i := range r.dirty {
			r.dirty[i] = true
		}
	}
	r.pending, r.complete = false, time.Now()
	return first
}

// Summary returns the numbers.
func (r *Results) Summary() Summary {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Summary{
		Active: r.active, Objects: len(r.objects), Inconclusive: len(r.inconclusive), Complete: r.complete,
		Pending: r.pending || r.expectRoots && !r.roots.known,
		Rules:   map[string]Count{}, Namespaces: map[string]Count{}, Delivery: r.roots.summary, Roots: r.roots.roots,
	}
	add := func(m map[string]Count, name string, a v1alpha1.Action, n int) {
		c := m[name]
		c.add(a, n)
		m[name] = c
	}
	for _, c := range r.omitted {
		s.Omitted += c.Deny + c.Warn + c.Audit
	}
	for _, list := range r.objects {
		for i := range list {
			add(s.Rules, list[i].Rule, list[i].Action, 1)
			add(s.Namespaces, list[i].Object.Namespace, list[i].Action, 1)
		}
	}
	return s
}

// cut shortens a text to maxMessage.
func cut(text string) string {
	if len(text) <= maxMessage {
		return text
	}
	end := maxMessage - len("…")
	for end > 0 && text[end]&0xC0 == 0x80 {
		end--
	}
	return text[:end] + "…"
}
