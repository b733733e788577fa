package webhook

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/webhook/metrics"
)

// Policy is the policy in force; *policy.Policy implements it.
type Policy interface {
	// Handles reports whether any rule or mutator evaluates the kind.
	Handles(gk schema.GroupKind) bool
	Evaluate(ctx context.Context, r validators.Request, l validators.Lookup) policy.Decision
	// Mutates reports whether any mutator changes objects of the kind.
	Mutates(gk schema.GroupKind) bool
	Mutate(ctx context.Context, r validators.Request, l validators.Lookup) mutators.Result
	// OnError is the action for an object that could not be evaluated at all.
	OnError() v1alpha1.Action
}

// Names of audit annotations; the API server prefixes them with the webhook's name. They follow those of Pod Security
// admission.
const (
	auditEnforced  = "enforce-violations" // findings that denied the request
	auditWarned    = "warn-violations"    // findings that the user was warned of
	auditAudited   = "audit-violations"   // findings that are only recorded
	auditPolicy    = "enforce-policy"     // the policy's mode, unless it is Enforce
	auditExempt    = "exempt"             // findings with an exemption, and its reason
	auditLimited   = "limited"            // findings with a milder action than their rule has, and why
	auditUnknown   = "unknown"            // rules that were inconclusive
	auditError     = "error"              // rules that failed, or why the request was not evaluated
	auditMutations = "mutations"          // why the object was changed
	auditSkipped   = "skipped-mutations"  // why the object was not changed
	auditMissed    = "missed-mutations"   // what the policy would have set, and the mutating webhook has not
)

// errNoPolicy explains why no request is evaluated between the start and the first policy.
var errNoPolicy = errors.New("no policy is loaded yet")

// Validator evaluates the requests of the validating webhook.
type Validator struct {
	// Policy returns the policy in force; nil before the first one is loaded.
	Policy  func() Policy
	Lookup  validators.Lookup
	Metrics *metrics.Metrics
	Log     logr.Logger
	// Deferred receives every decision that is not of a dry-run, to evaluate a request again for which the timeout was too
	// short; nil for no such thing. Size is the estimated memory of the request, in bytes. It must return at once.
	Deferred func(r validators.Request, size int64, d policy.Decision)
}

// missed adds a warning for each change that the policy makes to a new object and that is not there: the mutating webhook,
// which is called before, was not registered for it, or failed.
func (v *Validator) missed(ctx context.Context, p Policy, r validators.Request, res *result) {
	if r.Operation != validators.Create || r.Incomplete != nil || !p.Mutates(r.Object.GroupVersionKind().GroupKind()) {
		return
	}
	edits := p.Mutate(ctx, r, v.Lookup).Edits
	if len(edits) == 0 {
		return
	}
	var lines []string
	for _, e := range edits {
		lines = append(lines, plain(fmt.Sprintf("%s was not set to %v as the policy has it: the mutating webhook was not called, or failed; "+
			"set the field, or create the object anew", e.Path, e.Value)))
	}
	for _, line := range lines {
		res.response.Warnings = append(res.response.Warnings, cut(line, maxWarning))
	}
	if res.response.AuditAnnotations == nil {
		res.response.AuditAnnotations = map[string]string{}
	}
	res.response.AuditAnnotations[auditMissed] = annotation(lines)
	if res.outcome == metrics.Allowed || res.outcome == metrics.Recorded {
		res.outcome = metrics.Warned
	}
}

// prepare returns the policy in force and what rules and mutators evaluate of the request; nil if it is allowed without
// evaluation.
func prepare(inForce func() Policy, req *request) (Policy, *validators.Request, error) {
	p := inForce()
	if p == nil {
		return nil, nil, errNoPolicy
	}
	if !p.Handles(req.groupKind()) {
		return p, nil, nil
	}
	r, err := req.evaluated()
	return p, r, err
}

// refusal denies a request that could not be evaluated if the policy's onError is Deny, whatever could be decoded of it. Only
// a request of which it is certain that nothing evaluates it is allowed.
func (v *Validator) refusal(req *request, err error) *admissionv1.AdmissionResponse {
	p := v.Policy()
	if p == nil || p.OnError() != v1alpha1.ActionDeny || req.skipped(p) {
		return nil
	}
	failure := "flux-admission could not evaluate this object, and the policy's onError is Deny: " + err.Error()
	response := denyFindings(req, nil, []string{failure}, nil)
	response.AuditAnnotations = map[string]string{auditError: cut(plain(err.Error()), maxAnnotation)}
	return response
}

func (v *Validator) evaluate(ctx context.Context, req *request) (result, error) {
	p, r, err := prepare(v.Policy, req)
	if err != nil || r == nil {
		return skipped(), err
	}
	decision := p.Evaluate(ctx, *r, v.Lookup)
	if v.Deferred != nil && !req.DryRun {
		v.Deferred(*r, req.size, decision)
	}
	res := v.respond(req, *r, decision)
	v.missed(ctx, p, *r, &res)
	if r.Incomplete != nil {
		v.Log.Error(r.Incomplete, "Failed to evaluate parts of an object", "kind", req.Kind.Kind, "object", req.key(),
			"uid", string(req.UID))
	}
	if r.Incomplete != nil && res.response.Allowed {
		if response := v.refusal(req, r.Incomplete); response != nil {
			return result{response, metrics.Denied}, nil
		}
		unevaluated := allowedUnevaluated(r.Incomplete)
		res.outcome = metrics.Overloaded
		res.response.Warnings = append(res.response.Warnings, unevaluated.Warnings...)
		if res.response.AuditAnnotations == nil {
			res.response.AuditAnnotations = map[string]string{}
		}
		maps.Copy(res.response.AuditAnnotations, unevaluated.AuditAnnotations)
	}
	return res, nil
}
