package webhook

import (
	"context"
	"errors"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/webhook/metrics"
)

// Gate is what the webhooks need of a policy; *policy.Policy is one.
type Gate interface {
	// Handles tells whether any rule or mutator looks at the kind.
	Handles(gk schema.GroupKind) bool
	Evaluate(ctx context.Context, r validators.Request, l validators.Lookup) policy.Decision
	Mutate(ctx context.Context, r validators.Request, l validators.Lookup) mutators.Result
	// OnError is what to do about an object that could not be evaluated at all.
	OnError() v1alpha1.Action
}

// Names of audit annotations; the API server puts the webhook's name before them.
const (
	auditDenied  = "denied"
	auditWarned  = "warned"
	auditFound   = "found"
	auditUnknown = "unknown"
	auditError   = "error"
	auditMode    = "mode"
	auditMutated = "mutated"
)

// errNoPolicy is why nothing is evaluated between the start and the first policy.
var errNoPolicy = errors.New("no policy is loaded yet")

// allowed is the answer about which nothing is to be said.
func allowed() *admissionv1.AdmissionResponse { return &admissionv1.AdmissionResponse{Allowed: true} }

// Validator answers the validating webhook.
type Validator struct {
	// Policy returns the policy in force; nil before there is one.
	Policy  func() Gate
	Lookup  validators.Lookup
	Metrics *metrics.Metrics
	Log     logr.Logger
	// Later is told every decision, to judge again what could not wait; nil for nobody. It must return at once.
	Later func(validators.Request, policy.Decision)
}

// failed refuses what could not be evaluated if the policy says so, and only where the request is known to be one that rules would have been
// asked about.
func (v *Validator) failed(req *request, err error) *admissionv1.AdmissionResponse {
	gate := v.Policy()
	if gate == nil || gate.OnError() != v1alpha1.ActionDeny || req.SubResource != "" || !gate.Handles(req.groupKind()) ||
		req.Operation != admissionv1.Create && req.Operation != admissionv1.Update {
		return nil
	}
	response := refuse(req, nil, []string{"flux-admission could not check this object, and the policy's onError is Deny: " + err.Error()}, nil)
	response.AuditAnnotations = map[string]string{auditError: cut(plain(err.Error()), maxAnnotation)}
	return response
}

func (v *Validator) review(ctx context.Context, req *request) (*admissionv1.AdmissionResponse, metrics.Verdict, error) {
	gate := v.Policy()
	if gate == nil {
		return nil, metrics.Failed, errNoPolicy
	}
	if !gate.Handles(req.groupKind()) {
		return allowed(), metrics.Passed, nil
	}
	r, ok, err := req.evaluation()
	if err != nil {
		return nil, metrics.Failed, err
	}
	if !ok {
		return allowed(), metrics.Passed, nil
	}
	decision := gate.Evaluate(ctx, r, v.Lookup)
	if v.Later != nil {
		v.Later(r, decision)
	}
	response, verdict := v.render(req, r, decision)
	return response, verdict, nil
}
