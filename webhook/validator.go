package webhook

import (
	"context"
	"errors"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/webhook/metrics"
)

// Gate is what the webhooks need of a policy; *policy.Policy is one.
type Gate interface {
	// Handles tells whether any rule or mutator looks at the kind.
	Handles(gk schema.GroupKind) bool
	Review(ctx context.Context, r validators.Request, l validators.Lookup) policy.Decision
	Mutate(ctx context.Context, r validators.Request, l validators.Lookup) mutators.Result
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

// Validator answers the validating webhook.
type Validator struct {
	// Policy returns the policy in force; nil before there is one.
	Policy  func() Gate
	Lookup  validators.Lookup
	Metrics *metrics.Metrics
	Log     logr.Logger
}

// Handle implements admission.Handler.
func (v *Validator) Handle(ctx context.Context, req admission.Request) admission.Response {
	response, _, err := v.review(ctx, req)
	if err != nil {
		return unevaluated(err)
	}
	return response
}

func (v *Validator) review(ctx context.Context, req admission.Request) (admission.Response, metrics.Verdict, error) {
	gate := v.Policy()
	if gate == nil {
		return admission.Response{}, metrics.Failed, errNoPolicy
	}
	if !gate.Handles(groupKind(&req)) {
		return admission.Allowed(""), metrics.Passed, nil
	}
	r, ok, err := request(&req)
	if err != nil {
		return admission.Response{}, metrics.Failed, err
	}
	if !ok {
		return admission.Allowed(""), metrics.Passed, nil
	}
	response, verdict := v.render(&req, r, gate.Review(ctx, r, v.Lookup))
	return response, verdict, nil
}
