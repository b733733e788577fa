package webhook

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/webhook/metrics"
)

// allowed returns a response without warnings or audit annotations.
func allowed() *admissionv1.AdmissionResponse { return &admissionv1.AdmissionResponse{Allowed: true} }

// skipped returns the result of a request that is allowed without evaluation.
func skipped() result { return result{allowed(), metrics.Skipped} }

// respond returns the result of a decision, and records it in metrics and log.
func (v *Validator) respond(req *request, r validators.Request, d policy.Decision) result {
	v.count(req, d)
	if len(d.Deny)+len(d.Warn)+len(d.Audit)+len(d.Unknown)+len(d.Errors) == 0 {
		return result{allowed(), metrics.Allowed}
	}
	sortBySeverity(d.Deny)
	sortBySeverity(d.Warn)

	res := result{allowed(), metrics.Recorded}
	if !d.Allowed() {
		res = result{denyFindings(req, d.Deny, inconclusive(d, v1alpha1.ActionDeny), r.Object.Object), metrics.Denied}
	}
	var lines []string
	for _, f := range d.Warn {
		lines = append(lines, warning(f))
	}
	for _, c := range inconclusive(d, v1alpha1.ActionWarn) {
		lines = append(lines, escapeImmutable(cut(plain(c), maxWarning-4)))
	}
	if len(lines) > 0 {
		res.response.Warnings = limitWarnings(lines)
		if res.outcome != metrics.Denied {
			res.outcome = metrics.Warned
		}
	}
	res.response.AuditAnnotations = auditAnnotations(d)
	v.log(req, d, res)
	return res
}

// denyFindings denies a request for findings, and for failures: a line for each rule that was inconclusive or failed.
func denyFindings(
	req *request, findings []*validators.Finding, failures []string, object map[string]any,
) *admissionv1.AdmissionResponse {
	return denied(req, denial(findings, failures), causes(findings, object))
}

// denied returns a denial with code 422 and the reason Forbidden. With the reason Invalid, or with 422 and a reason
// that clients do not know, Flux with spec.force and kubectl apply --force take the response for a change of an
// immutable field: they delete the stored object and create it again.
func denied(req *request, message string, causes []metav1.StatusCause) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Result: &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonForbidden,
		Message: escapeImmutable(message),
		Details: &metav1.StatusDetails{Name: req.Name, Group: req.Kind.Group, Kind: req.Kind.Kind, Causes: causes},
	}}
}

// inconclusive returns a line for each rule that was inconclusive or failed and for which the policy has the action.
func inconclusive(d policy.Decision, action v1alpha1.Action) []string {
	var out []string
	for _, j := range d.Unknown {
		if j.Action == action {
			out = append(out, label(j.Rule)+" could not be checked: "+j.Reason)
		}
	}
	for _, j := range d.Errors {
		if j.Action == action {
			out = append(out, label(j.Rule)+" failed: "+firstLine(j.Reason))
		}
	}
	return out
}

// sortBySeverity sorts findings by severity, the highest first, and keeps the order of the rules within one.
func sortBySeverity(findings []*validators.Finding) {
	slices.SortStableFunc(findings, func(a, b *validators.Finding) int {
		return cmp.Compare(rank(a.Rule.Severity), rank(b.Rule.Severity))
	})
}

func rank(s validators.Severity) int {
	switch s {
	case validators.SeverityError:
		return 0
	case validators.SeverityWarning:
		return 1
	case validators.SeverityInfo:
		return 2
	}
	return 3
}

// auditAnnotations returns what the API server's audit log keeps of a decision, dry-run or not.
func auditAnnotations(d policy.Decision) map[string]string {
	out := map[string]string{}
	put := func(key string, lines []string) {
		if len(lines) > 0 {
			out[key] = annotation(lines)
		}
	}
	text := func(findings []*validators.Finding) []string {
		var lines []string
		for _, f := range findings {
			lines = append(lines, label(f.Rule)+" "+located(f))
		}
		return lines
	}
	put(auditEnforced, text(d.Deny))
	put(auditWarned, text(d.Warn))
	put(auditAudited, text(d.Audit))
	var unknown, failed []string
	for _, j := range d.Unknown {
		unknown = append(unknown, label(j.Rule)+" "+plain(j.Reason))
	}
	for _, j := range d.Errors {
		failed = append(failed, label(j.Rule)+" "+plain(firstLine(j.Reason)))
	}
	put(auditUnknown, unknown)
	put(auditError, failed)
	var exempt []string
	for _, e := range d.Exempted {
		exempt = append(exempt, label(e.Finding.Rule)+" "+located(e.Finding)+" ("+e.At+": "+plain(e.Reason)+")")
	}
	put(auditExempt, exempt)
	var limited []string
	for _, l := range d.Limited {
		limited = append(limited, fmt.Sprintf("%s %s: %s instead of %s (%s)", label(l.Finding.Rule), plain(l.Finding.Path.String()), l.Taken, l.Action, l.Reason))
	}
	put(auditLimited, limited)
	if d.AuditOnly {
		out[auditPolicy] = "AuditOnly"
	}
	return out
}

func (v *Validator) count(req *request, d policy.Decision) {
	gk, dry := req.groupKind(), req.DryRun
	for _, f := range d.Deny {
		v.Metrics.Finding(f.Rule.Name, "Deny", gk, dry)
	}
	for _, f := range d.Warn {
		v.Metrics.Finding(f.Rule.Name, "Warn", gk, dry)
	}
	for _, f := range d.Audit {
		v.Metrics.Finding(f.Rule.Name, "Audit", gk, dry)
	}
	for _, l := range d.Limited {
		v.Metrics.LimitedFinding(l.Finding.Rule.Name, string(l.Action), string(l.Taken), l.Reason, dry)
	}
	if d.WouldDeny {
		v.Metrics.AuditedDenial(gk, dry)
	}
	for _, j := range d.Unknown {
		v.Metrics.Unknown(j.Rule.Name)
	}
	for _, j := range d.Errors {
		v.Metrics.RuleError(j.Rule.Name)
	}
}

// log writes one line about a decision that is not merely to allow, and one for each rule that failed. Messages never
// quote a secret.
func (v *Validator) log(req *request, d policy.Decision, res result) {
	fields := []any{
		"outcome", string(res.outcome), "kind", req.Kind.Kind, "group", req.Kind.Group, "object", req.key(),
		"operation", string(req.Operation), "dryRun", req.DryRun, "user", req.UserInfo.Username, "uid", string(req.UID),
	}
	if d.WouldDeny {
		fields = append(fields, "wouldDeny", true)
	}
	for _, key := range slices.Sorted(maps.Keys(res.response.AuditAnnotations)) {
		fields = append(fields, key, res.response.AuditAnnotations[key])
	}
	v.Log.Info("Reviewed object", fields...)
	for _, j := range d.Errors {
		v.Log.Error(errors.New(j.Reason), "Rule failed", "rule", j.Rule.Name, "kind", req.Kind.Kind, "object", req.key())
	}
}
