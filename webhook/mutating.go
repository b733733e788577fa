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

// Mutator evaluates the requests of the mutating webhook. It never denies one.
type Mutator struct {
	// Policy returns the policy in force; nil before the first one is loaded.
	Policy func() Policy
	Lookup validators.Lookup
	Log    logr.Logger
}

// refusal never denies.
func (*Mutator) refusal(*request, error) *admissionv1.AdmissionResponse { return nil }

func (m *Mutator) evaluate(ctx context.Context, req *request) (result, error) {
	p, r, err := prepare(m.Policy, req)
	if err != nil || r == nil {
		return skipped(), err
	}
	if r.Incomplete != nil {
		return result{}, r.Incomplete
	}
	mutations := p.Mutate(ctx, *r, m.Lookup)

	res := result{allowed(), metrics.Allowed}
	annotations := map[string]string{}
	if len(mutations.Skipped) > 0 {
		res.outcome = metrics.Recorded
		annotations[auditSkipped] = annotation(plainAll(mutations.Skipped))
	}
	if len(mutations.Warnings) > 0 {
		res.outcome = metrics.Warned
		lines := plainAll(mutations.Warnings)
		for i := range lines {
			lines[i] = cut(lines[i], maxWarning)
		}
		res.response.Warnings = limitWarnings(lines)
		annotations[auditWarned] = annotation(lines)
	}
	if len(mutations.Errors) > 0 {
		res.outcome = metrics.Failed
		var lines []string
		for _, err := range mutations.Errors {
			m.Log.Error(err, "Mutator failed", "kind", req.Kind.Kind, "object", req.key())
			lines = append(lines, firstLine(err.Error()))
		}
		annotations[auditError] = annotation(plainAll(lines))
	}
	if len(mutations.Edits) > 0 {
		patch, err := validators.JSONPatch(mutations.Edits)
		if err != nil {
			m.Log.Error(err, "Failed to encode JSON patch", "kind", req.Kind.Kind, "object", req.key())
			return result{}, errors.New("the JSON patch could not be encoded")
		}
		kind := admissionv1.PatchTypeJSONPatch
		res.response.Patch, res.response.PatchType = patch, &kind
		res.outcome = metrics.Mutated
		annotations[auditMutations] = annotation(plainAll(mutations.Reasons))
		m.Log.Info("Mutated object", "kind", req.Kind.Kind, "object", req.key(), "operation", string(req.Operation),
			"dryRun", req.DryRun, "user", req.UserInfo.Username, "reasons", plainAll(mutations.Reasons))
	}
	if len(annotations) > 0 {
		res.response.AuditAnnotations = annotations
	}
	return res, nil
}

func plainAll(lines []string) []string {
	out := make([]string, 0, len(lines))
	for _, l := range lines {
		out = append(out, plain(l))
	}
	return out
}

// firstLine drops the stack trace of a panic.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
