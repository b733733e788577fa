package validators

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sort"

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
	if rules, ok := x.byKind[r.Object.GroupVersionKind().GroupKind()]; ok {
		return rules
	}
	return x.anyKind
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
func (s *Suite) Evaluate(ctx context.Context, r Request, l Lookup) Result {
	res := Result{Object: r.Object, File: r.File}
	for _, rule := range s.rulesFor(r) {
		findings, skipped, err := s.run(ctx, rule, r, l)
		if err != nil {
			res.Errors = append(res.Errors, RuleError{Rule: &rule.Meta, Err: err})
		}
		if len(findings) > 0 && r.Operation == Update && r.Old != nil {
			s.markPreexisting(ctx, rule, r, l, findings)
		}
		sort.SliceStable(findings, func(i, j int) bool { return findings[i].Path.String() < findings[j].Path.String() })
		res.Findings = append(res.Findings, findings...)
		res.Skipped = append(res.Skipped, skipped...)
	}
	res.Findings = s.withoutSuperseded(res.Findings)
	return res
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

func (s *Suite) markPreexisting(ctx context.Context, rule *Rule, r Request, l Lookup, findings []*Finding) {
	// The stored object is evaluated as an update without a change, so that rules on transitions report nothing.
	before, _, err := s.run(ctx, rule, Request{Operation: Update, Object: r.Old, Old: r.Old, User: r.User}, l)
	if err != nil {
		return
	}
	for _, f := range findings {
		f.Preexisting = slices.ContainsFunc(before, func(b *Finding) bool {
			return b.Key == f.Key && b.Path.String() == f.Path.String()
		})
	}
}

func (s *Suite) run(
	ctx context.Context,
	rule *Rule,
	r Request,
	l Lookup,
) (findings []*Finding, skipped []Skipped, err error) {
	r.Stage = 0 // A rule does not know which driver runs it.
	p := &Pass{Request: r, Lookup: l, Params: s.params[rule.Name], rule: &rule.Meta}
	defer func() {
		if v := recover(); v != nil {
			// Findings from before the panic may be wrong.
			findings, skipped = nil, nil
			err = Panicked(v)
		}
	}()
	if err := rule.Check(ctx, p); err != nil {
		return nil, p.skipped, err
	}
	for _, f := range p.findings {
		if f.Key == "" {
			f.Key = f.Message
		}
	}
	return p.findings, p.skipped, nil
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
