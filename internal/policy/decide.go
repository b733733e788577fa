package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/validators"
)

// NotEvaluated is a rule without a result for the object, and the action that follows.
type NotEvaluated struct {
	Rule   *validators.Meta
	Reason string
	Action v1alpha1.Action
	// Cause is the error that Reason quotes; nil if it quotes none.
	Cause error
}

// Exempted is a finding on an exempt object. Decision.Audit contains the finding, too.
type Exempted struct {
	Finding *validators.Finding
	Reason  string
}

// Decision is the result of evaluating one object. Every finding is in exactly one of Deny, Warn and Audit, in the order of the suite.
type Decision struct {
	Deny, Warn, Audit []*validators.Finding
	// Unknown are inconclusive rules, Errors rules that failed, Skipped rules that do not apply to the object's state.
	Unknown, Errors, Skipped []NotEvaluated
	Exempted                 []Exempted
	// AuditOnly reports whether the mode AuditOnly downgraded every action.
	AuditOnly bool
}

// Allowed reports whether the request for the object is allowed.
func (d Decision) Allowed() bool {
	denies := func(n NotEvaluated) bool { return n.Action == v1alpha1.ActionDeny }
	return len(d.Deny) == 0 && !slices.ContainsFunc(d.Unknown, denies) && !slices.ContainsFunc(d.Errors, denies)
}

// maxLookups limits the reads from the API server for one request: an object may name thousands of others.
const maxLookups = 200

// evaluationTime leaves a tenth of the time of a request for the decision and the response.
func evaluationTime(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, deadline.Add(-time.Until(deadline)/10))
}

// Evaluate runs the active rules on one object and decides.
func (p *Policy) Evaluate(ctx context.Context, r validators.Request, l validators.Lookup) Decision {
	memo := lookup.NewMemo(l) // several rules look up the same chart and the same objects
	if r.Stage == validators.StageAdmission {
		memo.Limit = maxLookups
	}
	l = memo
	evaluation, cancel := evaluationTime(ctx)
	result := p.suite.Evaluate(evaluation, r, l)
	cancel()
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
			d.Unknown = append(d.Unknown, NotEvaluated{
				f.Rule, fmt.Sprintf("cannot determine the labels of the namespace, so the mildest action applies: %v", err), v1alpha1.ActionAudit, err,
			})
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

// Decide turns a result into a decision. The labels are those of the object's namespace; nil for a cluster-scoped object.
func (p *Policy) Decide(r validators.Result, namespaceLabels map[string]string) Decision {
	return p.decide(r, namespaceLabels, true)
}

func (p *Policy) decide(r validators.Result, namespaceLabels map[string]string, labelsKnown bool) Decision {
	d := Decision{AuditOnly: p.auditOnly}
	for _, f := range r.Findings {
		action := p.action(f.Rule.Name, namespaceLabels, labelsKnown)
		if p.ratchet && f.Preexisting {
			action = atMost(action, v1alpha1.ActionWarn)
		}
		if f.Uncertain {
			action = atMost(action, v1alpha1.ActionWarn)
		}
		if e := p.exemption(f.Rule.Name, r); e != nil {
			d.Exempted = append(d.Exempted, Exempted{f, e.reason})
			action = atMost(action, v1alpha1.ActionAudit)
		}
		switch p.capped(action) {
		case v1alpha1.ActionDeny:
			d.Deny = append(d.Deny, f)
		case v1alpha1.ActionWarn:
			d.Warn = append(d.Warn, f)
		case v1alpha1.ActionAudit:
			d.Audit = append(d.Audit, f)
		case v1alpha1.ActionOff:
		}
	}
	for _, s := range r.Skipped {
		action := p.action(s.Rule.Name, namespaceLabels, labelsKnown)
		if action == v1alpha1.ActionOff {
			continue
		}
		if !s.Unknown {
			d.Skipped = append(d.Skipped, NotEvaluated{s.Rule, s.Reason, v1alpha1.ActionAudit, s.Cause})
			continue
		}
		onUnknown := p.rules[s.Rule.Name].onUnknown
		if errors.Is(s.Cause, validators.ErrDeadline) && strictness(p.onError) > strictness(onUnknown) {
			onUnknown = p.onError // the rule could not be evaluated
		}
		// An inconclusive rule is never stricter than a finding of it.
		onUnknown = atMost(onUnknown, action)
		d.Unknown = append(d.Unknown, NotEvaluated{s.Rule, s.Reason, p.limit(onUnknown, s.Rule.Name, r), s.Cause})
	}
	for _, e := range r.Errors {
		action := p.action(e.Rule.Name, namespaceLabels, labelsKnown)
		if action == v1alpha1.ActionOff {
			continue
		}
		d.Errors = append(d.Errors, NotEvaluated{e.Rule, e.Err.Error(), p.limit(atMost(p.onError, action), e.Rule.Name, r), e.Err})
	}
	return d
}

// action returns the action of a rule in a namespace. If the labels are unknown, it is the mildest action that could apply.
func (p *Policy) action(rule string, namespaceLabels map[string]string, labelsKnown bool) v1alpha1.Action {
	action := p.rules[rule].action
	for _, o := range p.overrides {
		switch {
		case !o.rules[rule]:
		case !labelsKnown || o.selector == nil:
			action = atMost(action, o.action)
		case namespaceLabels != nil && o.selector.Matches(labels.Set(namespaceLabels)):
			action = o.action
		}
	}
	return action
}

// limit limits the action to Audit if the object is exempt from the rule or the mode is AuditOnly.
func (p *Policy) limit(action v1alpha1.Action, rule string, r validators.Result) v1alpha1.Action {
	if p.exemption(rule, r) != nil {
		action = atMost(action, v1alpha1.ActionAudit)
	}
	return p.capped(action)
}

// capped limits the action to Audit if the mode is AuditOnly.
func (p *Policy) capped(action v1alpha1.Action) v1alpha1.Action {
	if p.auditOnly {
		return atMost(action, v1alpha1.ActionAudit)
	}
	return action
}

// exemption returns the first exemption that applies to the rule and the object or file and has not expired; nil if there is none.
func (p *Policy) exemption(rule string, r validators.Result) *exemption {
	for i := range p.exemptions {
		e := &p.exemptions[i]
		if e.rules[rule] && e.matches(r) && (e.expires.IsZero() || p.clock().Before(e.expires)) {
			return e
		}
	}
	return nil
}

// FileKind is the kind of a file of a Git tree in exemptions and reports.
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

// Mutate returns the edits of the enabled mutators for one object. If the mode is AuditOnly, it returns no edits and records each of them as
// skipped.
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
