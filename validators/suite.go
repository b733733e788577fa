package validators

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Suite is an ordered list of rules with their parameters. It is immutable and safe for concurrent use.
type Suite struct {
	rules  []*Rule
	params map[string]any // by rule name
	// stages are the rules of each set of stages.
	stages [StageAll + 1]index
	// supersededBy are the names of the rules whose findings replace those of a rule, by its name.
	supersededBy map[string][]string
}

// index has the rules of one set of stages, each list in the suite's order.
type index struct {
	byKind           map[schema.GroupKind][]*Rule // those for any kind included
	anyKind          []*Rule                      // for the kinds that are not in byKind
	files, unapplied []*Rule
}

// Result is the result of evaluating one object. The order is stable: rules in the suite's order, their findings by
// path.
type Result struct {
	// Object is the object that was evaluated, or File the file; the other is nil.
	Object   *unstructured.Unstructured
	File     *File
	Findings []*Finding
	Skipped  []Skipped
	Errors   []RuleError
	// Next is when a rule may find something else although nothing changes; zero for never.
	Next time.Time
}

// NewSuite returns a suite of the rules, each with its default parameters. It fails on a malformed declaration and on a
// duplicate ID or name.
func NewSuite(rules ...*Rule) (*Suite, error) {
	var errs []error
	ids, names := map[string]bool{}, map[string]bool{}
	s := &Suite{params: map[string]any{}}
	for _, r := range rules {
		if err := r.Validate(); err != nil {
			errs = append(errs, err)
		}
		if r.Check == nil {
			errs = append(errs, fmt.Errorf("rule %s %s: Check is nil", r.ID, r.Name))
		}
		if ids[r.ID] || names[r.Name] {
			errs = append(errs, fmt.Errorf("rule %s %s: ID or name is used twice", r.ID, r.Name))
		}
		ids[r.ID], names[r.Name] = true, true
		if r.Params != nil {
			s.params[r.Name] = r.Params()
		}
		s.rules = append(s.rules, r)
	}
	s.index()
	return s, errors.Join(errs...)
}

func (s *Suite) index() {
	s.supersededBy = map[string][]string{}
	for _, r := range s.rules {
		for _, name := range r.Supersedes {
			s.supersededBy[name] = append(s.supersededBy[name], r.Name)
		}
	}
	for stage := range s.stages {
		s.stages[stage] = s.indexOf(Stage(stage))
	}
}

// indexOf returns the rules that are evaluated at one of the stages; all for no stage.
func (s *Suite) indexOf(stages Stage) index {
	if stages == 0 {
		stages = StageAll
	}
	x := index{byKind: map[schema.GroupKind][]*Rule{}}
	for _, r := range s.rules {
		for _, gk := range r.KindsAt(stages) {
			x.byKind[gk] = nil
		}
	}
	for _, r := range s.rules {
		for _, gk := range r.KindsAt(stages) {
			x.byKind[gk] = append(x.byKind[gk], r)
		}
		if r.Stages&stages == 0 {
			continue
		}
		switch {
		case r.Scope.AnyKind:
			x.anyKind = append(x.anyKind, r)
			for gk := range x.byKind {
				x.byKind[gk] = append(x.byKind[gk], r)
			}
		case r.Scope.File:
			x.files = append(x.files, r)
		case r.Scope.Unapplied:
			x.unapplied = append(x.unapplied, r)
		}
	}
	return x
}

// rulesFor returns the rules that are evaluated for the request, in the suite's order.
func (s *Suite) rulesFor(r Request) []*Rule {
	x := &s.stages[r.Stage&StageAll]
	switch {
	case r.File != nil:
		return x.files
	case r.Provenance != nil && r.Provenance.Unapplied:
		return x.unapplied
	}
	rules, ok := x.byKind[r.Object.GroupVersionKind().GroupKind()]
	if !ok {
		rules = x.anyKind
	}
	deleted := r.Object.GetDeletionTimestamp() != nil
	other := func(rule *Rule) bool { return rule.Deletion != deleted && (rule.Deletion || r.Stage == StageAudit) }
	if slices.ContainsFunc(rules, other) {
		return slices.DeleteFunc(slices.Clone(rules), other)
	}
	return rules
}

// Bind returns a suite of the rules that keep accepts, with the given typed parameters by rule name. Rules without an
// entry keep their parameters.
func (s *Suite) Bind(params map[string]any, keep func(*Meta) bool) *Suite {
	out := &Suite{params: map[string]any{}}
	for _, r := range s.rules {
		if !keep(&r.Meta) {
			continue
		}
		out.rules = append(out.rules, r)
		if v, ok := params[r.Name]; ok {
			out.params[r.Name] = v
		} else if v, ok := s.params[r.Name]; ok {
			out.params[r.Name] = v
		}
	}
	out.index()
	return out
}

// Rules returns the declarations of the suite's rules, in order.
func (s *Suite) Rules() []*Meta {
	out := make([]*Meta, 0, len(s.rules))
	for _, r := range s.rules {
		out = append(out, &r.Meta)
	}
	return out
}

// Handles reports whether any rule of the suite is evaluated for the kind at admission.
func (s *Suite) Handles(gk schema.GroupKind) bool {
	return len(s.stages[StageAdmission].byKind[gk]) > 0
}

// Evaluate runs every rule of the request's stage for the object's kind. A rule that fails or panics is recorded in
// Errors and the others still run. A finding at the path and position of one by a rule that supersedes its rule is
// dropped.
//
// On an update the same rules evaluate the stored object too: a finding that it has already is marked Preexisting. An
// object that did not change can therefore have no new finding, which is what lets the API server skip it.
//
// With a deadline, rules that read only the object run first, and each of the others has half of the time that is left,
// the last one all of it. When ctx ends, the result has the findings that are known, and the rules that have not finished
// as Skipped; a rule that ignores ctx keeps running and its findings are dropped.
func (s *Suite) Evaluate(ctx context.Context, r Request, l Lookup) Result {
	rules := s.rulesFor(r)
	e := &evaluation{outcomes: make([]*outcome, len(rules))}
	var slow []int
	for i, rule := range rules {
		switch {
		case rule.ObjectOnly():
			e.outcomes[i] = s.evaluateRule(ctx, rule, r, l)
		case r.Incomplete != nil:
			e.outcomes[i] = &outcome{err: r.Incomplete}
		default:
			slow = append(slow, i)
		}
	}
	_, hasDeadline := ctx.Deadline()
	switch {
	case len(slow) == 0:
	case !hasDeadline:
		for _, i := range slow {
			e.outcomes[i] = s.evaluateRule(ctx, rules[i], r, l)
		}
	default:
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.evaluateSlow(ctx, e, rules, slow, r, l)
		}()
		select {
		case <-done:
		case <-ctx.Done():
			if overrun, ok := ctx.Value(overrunKey{}).(func(<-chan struct{})); ok {
				overrun(done)
			}
		}
	}
	return s.result(e, rules, r)
}

type overrunKey struct{}

// WithOverrun returns a context with which Suite.Evaluate calls f if it returns before all of its rules have ended, because
// one of them ignores ctx. The channel is closed when they have. Until then they use the request's memory.
func WithOverrun(ctx context.Context, f func(ended <-chan struct{})) context.Context {
	return context.WithValue(ctx, overrunKey{}, f)
}

// evaluation is the state of an evaluation, by index of the rule. Only rules that read other objects are evaluated while it is
// read.
type evaluation struct {
	mu       sync.Mutex
	outcomes []*outcome // nil for a rule that has not finished
}

// outcome is the result of one rule.
type outcome struct {
	findings []*Finding
	skipped  []Skipped
	err      error
	next     time.Time
}

// evaluateSlow evaluates rules that read other objects until ctx ends.
func (s *Suite) evaluateSlow(ctx context.Context, e *evaluation, rules []*Rule, slow []int, r Request, l Lookup) {
	for n, i := range slow {
		if ctx.Err() != nil {
			return
		}
		share, cancel := context.WithCancel(ctx)
		if deadline, ok := ctx.Deadline(); ok && n < len(slow)-1 {
			cancel()
			share, cancel = context.WithDeadline(ctx, deadline.Add(-time.Until(deadline)/2))
		}
		o := s.evaluateRule(share, rules[i], r, l)
		cancel()
		e.mu.Lock()
		e.outcomes[i] = o
		e.mu.Unlock()
	}
}

// ErrDeadline is the cause of a Skipped rule that had not finished when the time for a request was over.
var ErrDeadline = errors.New("not evaluated before the deadline of the request")

func (s *Suite) result(e *evaluation, rules []*Rule, r Request) Result {
	res := Result{Object: r.Object, File: r.File}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, rule := range rules {
		o := e.outcomes[i]
		if o == nil {
			o = &outcome{skipped: []Skipped{{Rule: &rule.Meta, Reason: ErrDeadline.Error(), Unknown: true, Cause: ErrDeadline}}}
		}
		if o.err != nil {
			res.Errors = append(res.Errors, RuleError{Rule: &rule.Meta, Err: o.err})
		}
		res.Findings = append(res.Findings, o.findings...)
		res.Skipped = append(res.Skipped, o.skipped...)
		if !o.next.IsZero() && (res.Next.IsZero() || o.next.Before(res.Next)) {
			res.Next = o.next
		}
	}
	res.Findings = s.withoutSuperseded(res.Findings)
	return res
}

// evaluateRule runs one rule on an object, and on the stored one.
func (s *Suite) evaluateRule(ctx context.Context, rule *Rule, r Request, l Lookup) *outcome {
	findings, skipped, next, err := s.run(ctx, rule, r, l)
	if r.Incomplete != nil {
		findings = slices.DeleteFunc(findings, func(f *Finding) bool {
			return slices.ContainsFunc(r.Unresolved, func(p Path) bool { return f.Path.HasPrefix(p) })
		})
	}
	if len(findings) > 0 && r.Operation == Update && r.Old != nil {
		if err := s.markPreexisting(ctx, rule, r, l, findings); err != nil {
			findings = nil
			skipped = append(skipped, Skipped{Rule: &rule.Meta, Reason: err.Error(), Unknown: true, Cause: err})
		}
	}
	if len(findings) > 1 {
		keys := make(map[*Finding]string, len(findings))
		for _, f := range findings {
			keys[f] = f.Path.String()
		}
		slices.SortStableFunc(findings, func(a, b *Finding) int { return strings.Compare(keys[a], keys[b]) })
	}
	return &outcome{findings, skipped, err, next}
}

func (s *Suite) withoutSuperseded(findings []*Finding) []*Finding {
	if len(findings) < 2 || len(s.supersededBy) == 0 {
		return findings
	}
	var out []*Finding
	for _, f := range findings {
		by := s.supersededBy[f.Rule.Name]
		if len(by) > 0 && slices.ContainsFunc(findings, func(other *Finding) bool {
			return slices.Contains(by, other.Rule.Name) && other.Position == f.Position && slices.Equal(other.Path, f.Path)
		}) {
			continue
		}
		out = append(out, f)
	}
	return out
}

// markPreexisting marks the findings that the stored object has, too. It fails if that could not be determined before ctx
// ended: a finding that may be preexisting is none to deny for.
func (s *Suite) markPreexisting(ctx context.Context, rule *Rule, r Request, l Lookup, findings []*Finding) error {
	if !slices.ContainsFunc(findings, func(f *Finding) bool { return !isAdded(f.Path, r) }) {
		return nil
	}
	// The stored object is evaluated as an update that changes nothing, so that a rule about transitions stays silent on it.
	before, skipped, _, err := s.run(ctx, rule, Request{Operation: Update, Object: r.Old, Old: r.Old, User: r.User}, l)
	if ctx.Err() != nil && !rule.ObjectOnly() && (err != nil || len(skipped) > 0) {
		return ErrDeadline
	}
	if err != nil {
		return nil
	}
	type problem struct{ key, path string }
	known := make(map[problem]bool, len(before))
	for _, b := range before {
		known[problem{b.Key, b.Path.String()}] = true
	}
	for _, f := range findings {
		f.Preexisting = known[problem{f.Key, f.Path.String()}] && !isAdded(f.Path, r)
	}
	return nil
}

// isAdded reports whether a path leads to a value that the stored object lacks. A finding there is not preexisting.
func isAdded(p Path, r Request) bool {
	return p.Lookup(r.Old.Object) == nil && p.Lookup(r.Object.Object) != nil
}

func (s *Suite) run(
	ctx context.Context,
	rule *Rule,
	r Request,
	l Lookup,
) (findings []*Finding, skipped []Skipped, next time.Time, err error) {
	r.Confined = r.Confined || r.Stage == StageAdmission
	r.Stage = 0 // A rule does not know which driver runs it.
	p := &Pass{Request: r, Lookup: l, Params: s.params[rule.Name], rule: &rule.Meta}
	defer func() {
		if v := recover(); v != nil {
			// Findings from before the panic may be wrong.
			findings, skipped, next = nil, nil, time.Time{}
			err = Panicked(v)
		}
	}()
	if err := rule.Check(ctx, p); err != nil {
		return nil, p.skipped, p.next, err
	}
	for _, f := range p.findings {
		if f.Key == "" {
			f.Key = f.Message
		}
	}
	return p.findings, p.skipped, p.next, nil
}

// Panicked returns a recovered panic as an error with the stack. It contains the value only if that is a Go runtime
// error: others may quote a secret.
func Panicked(v any) error {
	text := fmt.Sprintf("a value of type %T", v)
	if e, ok := v.(runtime.Error); ok {
		text = e.Error()
	}
	return fmt.Errorf("panic: %s\n%s", text, debug.Stack())
}
