package webhook

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/flux-admission/flux-admission/webhook/metrics"
)

// PolicyValidator evaluates the requests of the webhook for AdmissionPolicy objects: it denies one that does not
// compile.
type PolicyValidator struct {
	// Check validates an AdmissionPolicy in JSON, and returns warnings for its author. Its error names the field and the fix.
	Check func(data []byte) (warnings []string, err error)
	Log   logr.Logger
}

// refusal never denies.
func (*PolicyValidator) refusal(*request, error) *admissionv1.AdmissionResponse { return nil }

func (p *PolicyValidator) evaluate(_ context.Context, req *request) (result, error) {
	r, err := req.evaluated()
	if err != nil || r == nil {
		return skipped(), err
	}
	data, err := json.Marshal(r.Object.Object)
	if err != nil {
		return result{}, errors.New("the AdmissionPolicy could not be encoded")
	}
	warnings, err := p.Check(data)
	if err != nil {
		p.Log.Info("Denied invalid AdmissionPolicy", "admissionPolicy", req.Name, "user", req.UserInfo.Username,
			"dryRun", req.DryRun, "err", err.Error())
		return result{denied(req, cut(err.Error(), maxMessage), nil), metrics.Denied}, nil
	}
	res := result{allowed(), metrics.Allowed}
	if len(warnings) > 0 {
		for _, w := range warnings {
			res.response.Warnings = append(res.response.Warnings, cut(plain(w), maxWarning))
		}
		res.response.Warnings = limitWarnings(res.response.Warnings)
		res.outcome = metrics.Warned
	}
	return res, nil
}
