package policy

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/validators"
)

// Judged is a rule without a verdict, and what is done about that.
type Judged struct {
	Rule   *validators.Meta
	Reason string
	Action Action
	// Cause is the error that Reason quotes; nil when it quotes none.
	Cause error
}

// Exempted is a finding that an exemption takes out. It is among the findings to audit as well.
type Exempted struct {
	Finding *validators.Finding
	Reason  string
}

// Decision is what is done about one object. Every finding is in exactly one of Deny, Warn and Audit; the order is that of the suite.
type Decision struct {
	Deny, Warn, Audit []*validators.Finding
	// Unknown are rules that could not tell, Errors rules that could not run, Skipped rules that the object asks not to judge it by.
	Unknown, Errors, Skipped []Judged
	Exempted                 []Exempted
	// AuditOnly tells that the policy's mode took the edge off everything.
	AuditOnly bool
}

// Allowed tells whether the object is let through.
func (d Decision) Allowed() bool {
	denies := func(j Judged) bool { return j.Action == Deny }
	return len(d.Deny) == 0 && !slices.ContainsFunc(d.Unknown, denies) && !slices.ContainsFunc(d.Errors, denies)
}

// Review evaluates one object and decides.
func (p *Policy) Review(ctx context.Context, r validators.Request, l validators.Lookup) Decision {
	l = lookup.NewMemo(l) // several rules ask for the same chart and the same objects
	result := p.suite.Evaluate(ctx, r, l)
	if len(p.overrides) == 0 || len(result.Findings)+len(result.Skipped)+len(result.Errors) == 0 {
		return p.Decide(result, nil)
	}
	namespace := ""
	if r.Object != nil {
		namespace = r.Object.GetNamespace()
	}
	ns, presence, err := l.Namespace(ctx, namespace)
	if presence != validators.Present {
		d := p.decide(result, nil, false)
		if err == nil {
			err = fmt.Errorf("namespace %s is %s", namespace, presence)
		}
		for _, f := range result.Findings {
			d.Unknown = append(d.Unknown, Judged{f.Rule, fmt.Sprintf("the labels of the namespace are not known, so the mildest action counts: %v", err), Audit, err})
			break
		}
		return d
	}
	labels := ns.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	return p.Decide(result, labels)
}

// Decide turns a result into a decision. NamespaceLabels are those of the object's namespace; nil means that there is none.
func (p *Policy) Decide(r validators.Result, namespaceLabels map[string]string) Decision {
	return p.decide(r, namespaceLabels, true)
}

func (p *Policy) decide(r validators.Result, namespaceLabels map[string]string, labelsKnown bool) Decision {
	d := Decision{AuditOnly: p.auditOnly}
	for _, f := range r.Findings {
		action := p.action(f.Rule.Name, namespaceLabels, labelsKnown)
		if p.ratchet && f.Preexisting {
			action = atMost(action, Warn)
		}
		if e := p.exemption(f.Rule.Name, r); e != nil {
			d.Exempted = append(d.Exempted, Exempted{f, e.reason})
			action = atMost(action, Audit)
		}
		switch p.cap(action) {
		case Deny:
			d.Deny = append(d.Deny, f)
		case Warn:
			d.Warn = append(d.Warn, f)
		case Audit:
			d.Audit = append(d.Audit, f)
		case Off:
		}
	}
	for _, s := range r.Skipped {
		action := p.action(s.Rule.Name, namespaceLabels, labelsKnown)
		if action == Off {
			continue
		}
		if !s.Unknown {
			d.Skipped = append(d.Skipped, Judged{s.Rule, s.Reason, Audit, s.Cause})
			continue
		}
		// A rule that only warns about what it finds does not refuse what it cannot tell.
		d.Unknown = append(d.Unknown, Judged{s.Rule, s.Reason, p.judge(atMost(p.rules[s.Rule.Name].onUnknown, action), s.Rule.Name, r), s.Cause})
	}
	for _, e := range r.Errors {
		action := p.action(e.Rule.Name, namespaceLabels, labelsKnown)
		if action == Off {
			continue
		}
		d.Errors = append(d.Errors, Judged{e.Rule, e.Err.Error(), p.judge(atMost(p.onError, action), e.Rule.Name, r), e.Err})
	}
	return d
}

// action is what the policy says for a rule in a namespace. With labels that are not known, it is the mildest of what could apply.
func (p *Policy) action(rule string, namespaceLabels map[string]string, labelsKnown bool) Action {
	action := p.rules[rule].action
	for _, o := range p.overrides {
		switch {
		case !o.rules[rule]:
		case !labelsKnown:
			action = atMost(action, o.action)
		case namespaceLabels != nil && o.selector.Matches(labels.Set(namespaceLabels)):
			action = o.action
		}
	}
	return action
}

func (p *Policy) judge(action Action, rule string, r validators.Result) Action {
	if p.exemption(rule, r) != nil {
		action = atMost(action, Audit)
	}
	return p.cap(action)
}

// cap is what audit-only mode is: nothing goes beyond a record.
func (p *Policy) cap(action Action) Action {
	if p.auditOnly {
		return atMost(action, Audit)
	}
	return action
}

// exemption returns the first exemption in force that takes the object or file out of the rule; nil when there is none.
func (p *Policy) exemption(rule string, r validators.Result) *exemption {
	for i := range p.exemptions {
		e := &p.exemptions[i]
		if e.rules[rule] && e.matches(r) && (e.expires.IsZero() || p.clock().Before(e.expires)) {
			return e
		}
	}
	return nil
}

// FileKind is the kind by which exemptions and reports name a file of a Git tree.
const FileKind = "File"

func (e *exemption) matches(r validators.Result) bool {
	in := func(list []string, s string) bool { return len(list) == 0 || slices.Contains(list, s) }
	if r.File != nil {
		return in(e.kinds, FileKind) && in(e.namespaces, "") && in(e.names, r.File.Name) && (e.selector == nil || e.selector.Matches(labels.Set{}))
	}
	o := r.Object
	return in(e.kinds, o.GetKind()) && in(e.namespaces, o.GetNamespace()) && in(e.names, o.GetName()) &&
		(e.selector == nil || e.selector.Matches(labels.Set(o.GetLabels())))
}

// Mutate returns what the policy's mutators want done to one object. In audit-only mode that is nothing, and what would have been done is
// recorded as skipped.
func (p *Policy) Mutate(ctx context.Context, r validators.Request, l validators.Lookup) mutators.Result {
	res := p.mutators.Evaluate(ctx, r, l)
	if !p.auditOnly {
		return res
	}
	for i, e := range res.Edits {
		res.Skipped = append(res.Skipped, fmt.Sprintf("AuditOnly: would %s %s: %s", e.Op, e.Path, res.Reasons[i]))
	}
	for _, w := range res.Warnings {
		res.Skipped = append(res.Skipped, "AuditOnly: would warn: "+w)
	}
	res.Edits, res.Reasons, res.Warnings = nil, nil, nil
	return res
}
