package webhook

import (
	"context"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"net/http"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/flux-admission/flux-admission/webhook/metrics"
)

// PolicyValidator answers the webhook for AdmissionPolicy objects: one that cannot be compiled is refused when it is applied.
type PolicyValidator struct {
	// Check returns what is wrong with a policy, given as JSON; the error names the field and the fix.
	Check func(data []byte) error
	Log   logr.Logger
}

// Handle implements admission.Handler.
func (p *PolicyValidator) Handle(ctx context.Context, req admission.Request) admission.Response {
	response, _, err := p.review(ctx, req)
	if err != nil {
		return unevaluated(err)
	}
	return response
}

// failed never refuses.
func (*PolicyValidator) failed(*admission.Request, error) (admission.Response, bool) {
	return admission.Response{}, false
}

func (p *PolicyValidator) review(_ context.Context, req admission.Request) (admission.Response, metrics.Verdict, error) {
	r, ok, err := request(&req)
	if err != nil {
		return admission.Response{}, metrics.Failed, err
	}
	if !ok {
		return admission.Allowed(""), metrics.Passed, nil
	}
	if err := p.Check(req.Object.Raw); err != nil {
		p.Log.Info("Refused a policy", "name", req.Name, "user", req.UserInfo.Username, "dryRun", dryRun(&req), "reason", err.Error())
		response := admission.Denied("")
		response.Result = &metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonForbidden,
			Message: defuse(cut(err.Error(), maxMessage)),
			Details: &metav1.StatusDetails{Name: r.Object.GetName(), Group: req.Kind.Group, Kind: req.Kind.Kind},
		}
		return response, metrics.Denied, nil
	}
	return admission.Allowed(""), metrics.Allowed, nil
}
