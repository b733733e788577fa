package webhook

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/flux-admission/flux-admission/webhook/metrics"
)

// PolicyValidator answers the webhook for AdmissionPolicy objects: one that cannot be compiled is refused when it is applied.
type PolicyValidator struct {
	// Check returns what is wrong with a policy, given as JSON; the error names the field and the fix.
	Check func(data []byte) error
	Log   logr.Logger
}

// failed never refuses.
func (*PolicyValidator) failed(*request, error) *admissionv1.AdmissionResponse {
	return nil
}

func (p *PolicyValidator) review(_ context.Context, req *request) (*admissionv1.AdmissionResponse, metrics.Verdict, error) {
	r, ok, err := req.evaluation()
	if err != nil {
		return nil, metrics.Failed, err
	}
	if !ok {
		return allowed(), metrics.Passed, nil
	}
	data, err := json.Marshal(r.Object.Object)
	if err != nil {
		return nil, metrics.Failed, errors.New("the policy could not be read")
	}
	if err := p.Check(data); err != nil {
		p.Log.Info("Refused a policy", "name", req.Name, "user", req.UserInfo.Username, "dryRun", req.DryRun, "reason", err.Error())
		return denied(req, cut(err.Error(), maxMessage), nil), metrics.Denied, nil
	}
	return allowed(), metrics.Allowed, nil
}
