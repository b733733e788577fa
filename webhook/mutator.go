package webhook

import (
	"context"
	"errors"
	"strings"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/webhook/metrics"
)

// Mutator answers the mutating webhook. It never refuses.
type Mutator struct {
	// Policy returns the policy in force; nil before there is one.
	Policy  func() Gate
	Lookup  validators.Lookup
	Metrics *metrics.Metrics
	Log     logr.Logger
}

// failed never refuses.
func (*Mutator) failed(*request, error) *admissionv1.AdmissionResponse {
	return nil
}

func (m *Mutator) review(ctx context.Context, req *request) (*admissionv1.AdmissionResponse, metrics.Verdict, error) {
	gate := m.Policy()
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
	result := gate.Mutate(ctx, r, m.Lookup)

	response, verdict := allowed(), metrics.Allowed
	note := map[string]string{}
	if len(result.Skipped) > 0 {
		verdict = metrics.Recorded
		note[auditFound] = annotation(plainAll(result.Skipped))
	}
	if len(result.Warnings) > 0 {
		verdict = metrics.Warned
		lines := plainAll(result.Warnings)
		for i := range lines {
			lines[i] = cut(lines[i], maxWarning)
		}
		response.Warnings = bounded(lines)
		note[auditWarned] = annotation(lines)
	}
	if len(result.Errors) > 0 {
		verdict = metrics.Failed
		var lines []string
		for _, err := range result.Errors {
			m.Log.Error(err, "A mutator failed", "kind", req.Kind.Kind, "namespace", req.Namespace, "name", req.Name)
			lines = append(lines, firstLine(err.Error()))
		}
		note[auditError] = annotation(plainAll(lines))
	}
	if len(result.Edits) > 0 {
		patch, err := validators.JSONPatch(result.Edits)
		if err != nil {
			m.Log.Error(err, "A patch could not be written")
			return nil, metrics.Failed, errors.New("the patch could not be written")
		}
		kind := admissionv1.PatchTypeJSONPatch
		response.Patch, response.PatchType = patch, &kind
		verdict = metrics.Mutated
		note[auditMutated] = annotation(plainAll(result.Reasons))
		m.Log.Info("Mutated", "kind", req.Kind.Kind, "namespace", req.Namespace, "name", req.Name, "operation", string(req.Operation),
			"dryRun", req.DryRun, "user", req.UserInfo.Username, "reasons", plainAll(result.Reasons))
	}
	if len(note) > 0 {
		response.AuditAnnotations = note
	}
	return response, verdict, nil
}

func plainAll(lines []string) []string {
	out := make([]string, 0, len(lines))
	for _, l := range lines {
		out = append(out, plain(l))
	}
	return out
}

// firstLine leaves out the stack of a panic.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
