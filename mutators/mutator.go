// Package mutators holds the contract of mutations: a Mutator looks at one object and returns JSON Patch edits. It
// decides nothing by itself: without settings from the policy it does nothing.
//
// Mutators are pure, as rules are. They never overwrite a field that is set, and a second run on their own result
// changes nothing.
package mutators

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/validators"
)

// Mutator fills in fields of one object.
type Mutator struct {
	// Name is the key in the policy's mutations, the metric label and the docs anchor.
	Name  string
	Kinds []schema.GroupKind
	Doc   validators.Doc
	// Reads lists the other kinds that Mutate may look up.
	Reads []schema.GroupKind
	// Settings returns a pointer to the zero value of the mutator's typed settings, which are a Selector. Their comments and
	// kubebuilder markers become the mutator's part of the AdmissionPolicy schema.
	Settings func() any
	// Mutate looks at p.Object and calls p.Edit. An error means that it could not run: the object stays as it is.
	Mutate func(ctx context.Context, p *Pass) error
}

// Selection is what the settings of a mutator may change: objects of a kind.
type Selection struct {
	// Mutator is the name of the mutator.
	Mutator string
	Kind    schema.GroupKind
	// Namespaces are the names of their namespaces, in which * matches any characters; empty for all.
	Namespaces []string
}

// Selector returns what settings may change, for the registration of the webhook. The result may have more than Mutate
// changes, but never less.
type Selector interface{ Selections() []Selection }

// Pass is what a mutator sees: one object, and lookups of others.
type Pass struct {
	validators.Request
	Lookup validators.Lookup
	// Settings are those of the policy for this mutator, of the type that Mutator.Settings returns.
	Settings any

	res *Result
}

// Result is what the mutators want done to one object.
type Result struct {
	// Edits are in the order in which they are to be applied.
	Edits []validators.Edit
	// Reasons has the reason of each edit, by the same index.
	Reasons []string
	// Warnings are sentences for the user who made the request.
	Warnings []string
	// Skipped lists the edits that were not made, with the reasons.
	Skipped []string
	Errors  []error
}

// Edit asks for one edit, with the reason for it.
func (p *Pass) Edit(e validators.Edit, reason string, args ...any) {
	p.res.Edits = append(p.res.Edits, e)
	p.res.Reasons = append(p.res.Reasons, fmt.Sprintf(reason, args...))
}

// Warn tells the user something about the object; a sentence without a period.
func (p *Pass) Warn(format string, args ...any) {
	p.res.Warnings = append(p.res.Warnings, fmt.Sprintf(format, args...))
}

// Skip records why no edit was made although the policy's settings match the object.
func (p *Pass) Skip(format string, args ...any) {
	p.res.Skipped = append(p.res.Skipped, fmt.Sprintf(format, args...))
}

// Set is an ordered list of mutators with their settings. It is immutable and safe for concurrent use.
type Set struct {
	mutators []*Mutator
	settings map[string]any
}

// NewSet returns a set of mutators without settings. It fails on a malformed declaration and on a name used twice.
func NewSet(ms ...*Mutator) (*Set, error) {
	seen := map[string]bool{}
	var errs []error
	for _, m := range ms {
		if m.Name == "" || len(m.Kinds) == 0 || m.Mutate == nil || m.Settings == nil || seen[m.Name] {
			errs = append(
				errs,
				fmt.Errorf("mutator %q: name, kinds, Settings and Mutate must be set, and the name used once", m.Name),
			)
		}
		seen[m.Name] = true
	}
	return &Set{mutators: ms}, errors.Join(errs...)
}

// Bind returns the mutators that settings has an entry for, by name, with that entry.
func (s *Set) Bind(settings map[string]any) *Set {
	out := &Set{settings: settings}
	for _, m := range s.mutators {
		if settings[m.Name] != nil {
			out.mutators = append(out.mutators, m)
		}
	}
	return out
}

// Mutators returns the mutators of the set, in order.
func (s *Set) Mutators() []*Mutator { return s.mutators }

// Selections returns what the mutators of the set may change with their settings.
func (s *Set) Selections() []Selection {
	var out []Selection
	for _, m := range s.mutators {
		selector, ok := s.settings[m.Name].(Selector)
		if !ok {
			continue
		}
		for _, one := range selector.Selections() {
			one.Mutator = m.Name
			out = append(out, one)
		}
	}
	return out
}

// Evaluate runs every mutator for the object's kind on the object as the request has it. One that fails or panics is
// recorded in Errors and its edits are dropped.
func (s *Set) Evaluate(ctx context.Context, r validators.Request, l validators.Lookup) Result {
	var res Result
	gk := r.Object.GroupVersionKind().GroupKind()
	for _, m := range s.mutators {
		if slices.Contains(m.Kinds, gk) {
			s.run(ctx, m, r, l, &res)
		}
	}
	return res
}

func (s *Set) run(ctx context.Context, m *Mutator, r validators.Request, l validators.Lookup, res *Result) {
	var own Result
	err := func() (err error) {
		defer func() {
			if v := recover(); v != nil {
				err = validators.Panicked(v)
			}
		}()
		return m.Mutate(ctx, &Pass{Request: r, Lookup: l, Settings: s.settings[m.Name], res: &own})
	}()
	if err != nil {
		res.Errors = append(res.Errors, fmt.Errorf("mutator %s: %w", m.Name, err))
		return
	}
	res.Edits = append(res.Edits, own.Edits...)
	res.Reasons = append(res.Reasons, own.Reasons...)
	res.Warnings = append(res.Warnings, own.Warnings...)
	res.Skipped = append(res.Skipped, own.Skipped...)
}
