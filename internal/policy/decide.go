package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/match"
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
	// At is the exemption in the policy: spec.exemptions[0].
	At string
}

// Limited is one limitation of a finding's action.
type Limited struct {
	Finding *validators.Finding
	// Action is the action without this limitation, Taken the one with it.
	Action, Taken v1alpha1.Action
	// Reason is what limited the action: ratchet, uncertain, exempt or AuditOnly.
	Reason string
}

// Decision is the result of evaluating one object. Every finding is in exactly one of Deny, Warn and Audit, in the order of the suite.
type Decision struct {
	Deny, Warn, Audit []*validators.Finding
	// Unknown are inconclusive rules, Errors rules that failed, Skipped rules that do not apply to the object's state.
	Unknown, Errors, Skipped []NotEvaluated
	Exempted                 []Exempted
	// Exempting are the indexes of all exemptions in the policy that apply to a finding, or to a rule without a result.
	Exempting []int
	// Limited are what made the actions of findings milder than the policy's for their rule in the namespace, in the order in which it
	// applied. The findings are in Deny, Warn or Audit, too.
	Limited []Limited
	// AuditOnly reports whether the mode AuditOnly downgraded every action.
	AuditOnly bool
	// WouldDeny reports whether the mode Enforce would deny what AuditOnly allows: for a finding, or for a rule that was inconclusive or
	// failed.
	WouldDeny bool
	// Next is when a rule may find something else although nothing changes; zero for never.
	Next time.Time
}

// Decided is a finding with its action.
type Decided struct {
	*validators.Finding
	Action v1alpha1.Action
	// Exemption is the exemption of the object from the rule; nil if there is none.
	Exemption *Exempted
}

// Findings returns all findings, the strictest action first.
func (d Decision) Findings() []Decided {
	exempted := map[*validators.Finding]*Exempted{}
	for i := range d.Exempted {
		exempted[d.Exempted[i].Finding] = &d.Exempted[i]
	}
	out := make([]Decided, 0, len(d.Deny)+len(d.Warn)+len(d.Audit))
	for _, list := range []struct {
		action   v1alpha1.Action
		findings []*validators.Finding
	}{{v1alpha1.ActionDeny, d.Deny}, {v1alpha1.ActionWarn, d.Warn}, {v1alpha1.ActionAudit, d.Audit}} {
		for _, f := range list.findings {
			out = append(out, Decided{f, list.action, exempted[f]})
		}
	}
	return out
}

// Enforced returns the findings as the mode Enforce decides on them.
func (d Decision) Enforced() []Decided {
	out := d.Findings()
	for i := range out {
		for _, l := range d.Limited {
			if l.Finding == out[i].Finding && l.Reason == string(v1alpha1.ModeAuditOnly) {
				out[i].Action = l.Action
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Decided) int { return strictness(b.Action) - strictness(a.Action) })
	return out
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

// Origin is where an object or file comes from in a Git tree.
type Origin struct {
	// Cluster is the name of the only cluster that it belongs to; empty for several, or none.
	Cluster string
	// Files returns the files that a finding on it is about. The finding is nil for the object itself.
	Files func(*validators.Finding) []string
}

// Evaluate runs the active rules on one object and decides. It is EvaluateFrom for an object that is in no Git tree.
func (p *Policy) Evaluate(ctx context.Context, r validators.Request, l validators.Lookup) Decision {
	return p.EvaluateFrom(ctx, r, l, Origin{})
}

// EvaluateFrom runs the active rules on one object of a Git tree and decides.
func (p *Policy) EvaluateFrom(ctx context.Context, r validators.Request, l validators.Lookup, from Origin) Decision {
	namespaces := l
	memo := lookup.NewMemo(l) // several rules look up the same chart and the same objects
	if r.Stage == validators.StageAdmission {
		memo.Limit = maxLookups
	}
	l = memo
	evaluation, cancel := evaluationTime(ctx)
	result := p.suite.Evaluate(evaluation, r, l)
	cancel()
	if !p.byLabel || len(result.Findings)+len(result.Skipped)+len(result.Errors) == 0 {
		return p.decide(result, namespace{name: namespaceOf(r.Object), known: true}, from)
	}
	ns, err := namespaceLabels(ctx, namespaces, namespaceOf(r.Object))
	d := p.decide(result, ns, from)
	if !ns.known && len(result.Findings) > 0 {
		applies := "mildest"
		if p.closed() {
			applies = "strictest"
		}
		d.Unknown = append(d.Unknown, NotEvaluated{
			result.Findings[0].Rule, fmt.Sprintf("cannot determine the labels of the namespace, so the %s action applies: %v", applies, err), v1alpha1.ActionAudit, err,
		})
	}
	return d
}

// namespace is the namespace of an object; it has no name for a cluster-scoped object.
type namespace struct {
	name   string
	labels labels.Set
	// known is false if the labels cannot be read.
	known bool
}

func namespaceOf(o *unstructured.Unstructured) string {
	if o == nil {
		return ""
	}
	return o.GetNamespace()
}

// namespaceLabels reads the labels of a namespace. A namespace in memory is found whatever time is left.
func namespaceLabels(ctx context.Context, l validators.Lookup, name string) (namespace, error) {
	if name == "" {
		return namespace{known: true}, nil
	}
	ns, presence, err := l.Namespace(ctx, name)
	if presence != validators.Present {
		if err == nil {
			err = fmt.Errorf("namespace %s is %s", name, presence)
		}
		return namespace{name: name}, err
	}
	set := labels.Set(ns.GetLabels())
	if set == nil {
		set = labels.Set{}
	}
	return namespace{name, set, true}, nil
}

// Decide turns a result into a decision. The labels are those of the object's namespace.
func (p *Policy) Decide(r validators.Result, namespaceLabels map[string]string) Decision {
	return p.decide(r, namespace{namespaceOf(r.Object), namespaceLabels, true}, Origin{})
}

func (p *Policy) decide(r validators.Result, ns namespace, from Origin) Decision {
	d := Decision{AuditOnly: p.auditOnly, Next: r.Next}
	// exemption returns what Policy.exemption does, and records all that apply.
	exemption := func(rule string, f *validators.Finding) *exemption {
		first, all := p.exemption(rule, exemptible{r, f, ns, from})
		for _, i := range all {
			if !slices.Contains(d.Exempting, i) {
				d.Exempting = append(d.Exempting, i)
			}
		}
		return first
	}
	// exempted limits the action to Audit if the object is exempt from the rule.
	exempted := func(action v1alpha1.Action, rule string) v1alpha1.Action {
		if exemption(rule, nil) != nil {
			action = atMost(action, v1alpha1.ActionAudit)
		}
		return action
	}
	for _, f := range r.Findings {
		action := p.action(f.Rule.Name, ns)
		limit := func(to v1alpha1.Action, reason string) {
			if strictness(action) > strictness(to) {
				d.Limited = append(d.Limited, Limited{f, action, to, reason})
				action = to
			}
		}
		if p.ratchet && f.Preexisting {
			limit(v1alpha1.ActionWarn, "ratchet")
		}
		if f.Uncertain {
			limit(v1alpha1.ActionWarn, "uncertain")
		}
		if e := exemption(f.Rule.Name, f); e != nil {
			d.Exempted = append(d.Exempted, Exempted{f, e.reason, e.at})
			limit(v1alpha1.ActionAudit, "exempt")
		}
		if p.auditOnly {
			d.WouldDeny = d.WouldDeny || action == v1alpha1.ActionDeny
			limit(v1alpha1.ActionAudit, string(v1alpha1.ModeAuditOnly))
		}
		switch action {
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
		action := p.action(s.Rule.Name, ns)
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
		onUnknown = exempted(onUnknown, s.Rule.Name)
		d.WouldDeny = d.WouldDeny || p.auditOnly && onUnknown == v1alpha1.ActionDeny
		d.Unknown = append(d.Unknown, NotEvaluated{s.Rule, s.Reason, p.capped(onUnknown), s.Cause})
	}
	for _, e := range r.Errors {
		action := p.action(e.Rule.Name, ns)
		if action == v1alpha1.ActionOff {
			continue
		}
		action = exempted(atMost(p.onError, action), e.Rule.Name)
		d.WouldDeny = d.WouldDeny || p.auditOnly && action == v1alpha1.ActionDeny
		d.Errors = append(d.Errors, NotEvaluated{e.Rule, e.Err.Error(), p.capped(action), e.Err})
	}
	return d
}

// closed reports whether what cannot be evaluated is denied. Labels that cannot be read relax nothing then: a slow API server would otherwise weaken
// the policy.
func (p *Policy) closed() bool { return p.onError == v1alpha1.ActionDeny }

// action returns the action of a rule in a namespace. If it cannot be determined whether an override applies, it is the mildest action that could,
// or the strictest with onError: Deny.
func (p *Policy) action(rule string, ns namespace) v1alpha1.Action {
	action := p.rules[rule].action
	for i := range p.overrides {
		o := &p.overrides[i]
		switch {
		case !o.rules[rule] || len(o.namespaces) > 0 && !match.Name(o.namespaces, ns.name):
		case o.selector == nil:
			action = atMost(action, o.action)
		case !ns.known && !o.selector.Empty() && p.closed():
			action = atLeast(action, o.action)
		case !ns.known && !o.selector.Empty():
			action = atMost(action, o.action)
		case ns.name != "" && o.selector.Matches(ns.labels):
			action = o.action
		}
	}
	return action
}

// capped limits the action to Audit if the mode is AuditOnly.
func (p *Policy) capped(action v1alpha1.Action) v1alpha1.Action {
	if p.auditOnly {
		return atMost(action, v1alpha1.ActionAudit)
	}
	return action
}

// exemptible is what an exemption may apply to.
type exemptible struct {
	result validators.Result
	// finding is nil for a rule without a result.
	finding *validators.Finding
	ns      namespace
	from    Origin
}

// exemption returns the first exemption that applies to the rule and the object or file and has not expired, nil if there is none, and the
// indexes of all.
func (p *Policy) exemption(rule string, x exemptible) (first *exemption, all []int) {
	for i := range p.exemptions {
		e := &p.exemptions[i]
		if e.rules[rule] && e.matches(x.result, x.ns, p.closed()) && e.matchesOrigin(x) && !e.expired(p.clock()) {
			if all = append(all, i); first == nil {
				first = e
			}
		}
	}
	return first, all
}

func (e *exemption) expired(now time.Time) bool { return !e.expires.IsZero() && !now.Before(e.expires) }

// matchesOrigin reports whether the exemption selects the cluster and a file of what it may apply to. What comes from no Git tree has neither.
func (e *exemption) matchesOrigin(x exemptible) bool {
	if len(e.clusters) > 0 && !slices.ContainsFunc(endsOf(x.from.Cluster), func(end string) bool { return match.Name(e.clusters, end) }) {
		return false
	}
	if len(e.paths) == 0 {
		return true
	}
	return x.from.Files != nil && slices.ContainsFunc(x.from.Files(x.finding), func(file string) bool {
		return file != "" && match.Name(e.paths, file)
	})
}

// endsOf returns a directory and its ends: for a/b/c also b/c and c. The empty directory has none.
func endsOf(dir string) []string {
	if dir == "" {
		return nil
	}
	out := []string{dir}
	for i, c := range dir {
		if c == '/' {
			out = append(out, dir[i+1:])
		}
	}
	return out
}

// Exemption is an exemption of a policy.
type Exemption struct {
	Reason string
	// Rules are those that it is for and that the program has.
	Rules []*validators.Meta
	// Expires is when it ends to apply; zero for never.
	Expires time.Time
}

// Exemptions returns the exemptions in the order of the policy.
func (p *Policy) Exemptions() []Exemption {
	out := make([]Exemption, 0, len(p.exemptions))
	for i := range p.exemptions {
		e := &p.exemptions[i]
		rules := slices.DeleteFunc(slices.Clone(p.all), func(m *validators.Meta) bool { return !e.rules[m.Name] })
		out = append(out, Exemption{e.reason, rules, e.expires})
	}
	return out
}

// FileKind is the kind of a file of a Git tree in exemptions and reports.
const FileKind = "File"

// matches reports whether the exemption selects the object or file. If the labels of the namespace cannot be read, they are taken to match, unless
// closed is set.
func (e *exemption) matches(r validators.Result, ns namespace, closed bool) bool {
	kind, name := FileKind, ""
	if r.File != nil {
		name = r.File.Name
	} else {
		kind, name = r.Object.GetKind(), r.Object.GetName()
	}
	if len(e.kinds) > 0 && !slices.Contains(e.kinds, kind) || len(e.names) > 0 && !match.Name(e.names, name) {
		return false
	}
	if len(e.namespaces) > 0 && !match.Name(e.namespaces, ns.name) {
		return false
	}
	if !ns.known && e.selector != nil {
		return !closed || e.selector.Empty()
	}
	return e.selector == nil || ns.name != "" && e.selector.Matches(ns.labels)
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
