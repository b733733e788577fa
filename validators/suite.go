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
	params map[string]any               // by rule name
	byKind map[schema.GroupKind][]*Rule // those for any kind included
	any    []*Rule                      // for the kinds that are not in byKind
	// admitted are those of byKind that are asked at admission; files and orphans are asked about nothing else.
	admitted       map[schema.GroupKind][]*Rule
	files, orphans []*Rule
}

// Result is what a suite found out about one object. The order is stable: rules in the suite's order, findings by path.
type Result struct {
	// Object is the object that was evaluated.
	Object   *unstructured.Unstructured
	Findings []*Finding
	Skipped  []Skipped
	Errors   []RuleError
}

// NewSuite returns a suite of the rules, each with the zero value of its parameters. It fails on a malformed declaration and on
// an ID or name used twice.
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
	s.byKind, s.admitted = map[schema.GroupKind][]*Rule{}, map[schema.GroupKind][]*Rule{}
	for _, r := range s.rules {
		for _, gk := range r.Kinds {
			s.byKind[gk] = nil
		}
	}
	for _, r := range s.rules {
		switch {
		case r.AnyKind:
			s.any = append(s.any, r)
			for gk := range s.byKind {
				s.byKind[gk] = append(s.byKind[gk], r)
			}
		case r.Files:
			s.files = append(s.files, r)
		case r.Unapplied:
			s.orphans = append(s.orphans, r)
		}
		for _, gk := range r.Kinds {
			s.byKind[gk] = append(s.byKind[gk], r)
			if r.AtAdmission() {
				s.admitted[gk] = append(s.admitted[gk], r)
			}
		}
	}
}

// rulesFor returns the rules that are asked about the object, in the suite's order.
func (s *Suite) rulesFor(r Request) []*Rule {
	gvk := r.Object.GroupVersionKind()
	switch {
	case r.Provenance != nil && r.Provenance.Unapplied:
		return s.orphans
	case gvk == FileKind:
		return s.files
	case r.Admission:
		return s.admitted[gvk.GroupKind()]
	}
	if rules, ok := s.byKind[gvk.GroupKind()]; ok {
		return rules
	}
	return s.any
}

// Bind returns a suite of those rules that keep accepts, with the given typed parameters by rule name. Rules without an entry
// keep the parameters they have.
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

// Handles tells whether any rule of the suite is asked about the kind at admission.
func (s *Suite) Handles(gk schema.GroupKind) bool { return len(s.admitted[gk]) > 0 }

// Evaluate runs every rule for the object's kind. A rule that fails or panics is recorded in Errors and the others still run.
//
// On an update each finding is compared with what the same rules say of the stored object: one that was there already is marked
// Preexisting. An object that did not change can therefore have no new finding, which is what lets the API server skip it.
func (s *Suite) Evaluate(ctx context.Context, r Request, l Lookup) Result {
	res := Result{Object: r.Object}
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
	return res
}

func (s *Suite) markPreexisting(ctx context.Context, rule *Rule, r Request, l Lookup, findings []*Finding) {
	// The stored object is evaluated as an update that changes nothing, so that a rule about transitions stays silent on it.
	before, _, err := s.run(ctx, rule, Request{Operation: Update, Object: r.Old, Old: r.Old, User: r.User, Admission: r.Admission}, l)
	if err != nil {
		return
	}
	for _, f := range findings {
		f.Preexisting = slices.ContainsFunc(before, func(b *Finding) bool {
			return b.Key == f.Key && b.Path.String() == f.Path.String()
		})
	}
}

func (s *Suite) run(ctx context.Context, rule *Rule, r Request, l Lookup) (findings []*Finding, skipped []Skipped, err error) {
	p := &Pass{Request: r, Lookup: l, Params: s.params[rule.Name], rule: &rule.Meta}
	defer func() {
		if v := recover(); v != nil {
			// What was reported before the panic is not to be trusted.
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

// Panicked makes an error of a recovered panic, with the stack. The value is printed only where the Go runtime made it: any other may quote a secret.
func Panicked(v any) error {
	text := fmt.Sprintf("a value of type %T", v)
	if e, ok := v.(runtime.Error); ok {
		text = e.Error()
	}
	return fmt.Errorf("panic: %s\n%s", text, debug.Stack())
}
