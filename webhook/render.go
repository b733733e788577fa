package webhook

import (
	"cmp"
	"net/http"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/webhook/metrics"
)

// render turns one decision into everything that is said about it: the denial, the warnings, the audit annotations, a log line, the counts.
func (v *Validator) render(req *request, r validators.Request, d policy.Decision) (*admissionv1.AdmissionResponse, metrics.Verdict) {
	v.count(req, d)
	if len(d.Deny)+len(d.Warn)+len(d.Audit)+len(d.Unknown)+len(d.Errors) == 0 {
		return allowed(), metrics.Allowed
	}
	bySeverity(d.Deny)
	bySeverity(d.Warn)

	response, verdict := allowed(), metrics.Recorded
	refusals, cautions := judged(d, v1alpha1.ActionDeny), judged(d, v1alpha1.ActionWarn)
	if !d.Allowed() {
		verdict = metrics.Denied
		response = refuse(req, d.Deny, refusals, r.Object.Object)
	}
	var lines []string
	for _, f := range d.Warn {
		lines = append(lines, warning(f))
	}
	for _, c := range cautions {
		lines = append(lines, defuse(cut(plain(c), maxWarning-4)))
	}
	if len(lines) > 0 {
		response.Warnings = bounded(lines)
		if verdict != metrics.Denied {
			verdict = metrics.Warned
		}
	}
	response.AuditAnnotations = notes(d)
	v.log(req, d, verdict)
	return response, verdict
}

// refuse refuses for the findings, and for the rules that have no verdict.
func refuse(req *request, findings []*validators.Finding, failures []string, object map[string]any) *admissionv1.AdmissionResponse {
	return denied(req, denial(findings, failures), causes(findings, object))
}

// denied answers with code 422 and a cause per finding, but with the reason Forbidden. With the reason Invalid, or with 422 and a reason that
// clients do not know, Flux with spec.force and kubectl apply --force take the answer for a change of an immutable field: they delete the
// stored object and create it anew.
func denied(req *request, message string, causes []metav1.StatusCause) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Result: &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonForbidden, Message: defuse(message),
		Details: &metav1.StatusDetails{Name: req.Name, Group: req.Kind.Group, Kind: req.Kind.Kind, Causes: causes},
	}}
}

// judged returns a line for each rule that has no verdict and that the policy answers for with the action.
func judged(d policy.Decision, action v1alpha1.Action) []string {
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

// bySeverity puts the worst first; what is equally bad stays in the rules' order.
func bySeverity(findings []*validators.Finding) {
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

// notes returns the audit annotations: what the API server's audit log keeps of a decision, dry-run or not.
func notes(d policy.Decision) map[string]string {
	out := map[string]string{}
	put := func(key string, lines []string) {
		if len(lines) > 0 {
			out[key] = annotation(lines)
		}
	}
	text := func(findings []*validators.Finding) []string {
		var lines []string
		for _, f := range findings {
			lines = append(lines, label(f.Rule)+" "+place(f))
		}
		return lines
	}
	put(auditDenied, text(d.Deny))
	put(auditWarned, text(d.Warn))
	put(auditFound, text(d.Audit))
	var unknown, failed []string
	for _, j := range d.Unknown {
		unknown = append(unknown, label(j.Rule)+" "+plain(j.Reason))
	}
	for _, j := range d.Errors {
		failed = append(failed, label(j.Rule)+" "+plain(firstLine(j.Reason)))
	}
	put(auditUnknown, unknown)
	put(auditError, failed)
	if d.AuditOnly {
		out[auditMode] = "AuditOnly"
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
	for _, j := range d.Unknown {
		v.Metrics.Unknown(j.Rule.Name)
	}
	for _, j := range d.Errors {
		v.Metrics.RuleError(j.Rule.Name)
	}
}

// log writes one line for an object that something was said about. Values of fields are not in it: a message never quotes a secret.
func (v *Validator) log(req *request, d policy.Decision, verdict metrics.Verdict) {
	fields := []any{
		"verdict", string(verdict), "kind", req.Kind.Kind, "group", req.Kind.Group, "namespace", req.Namespace, "name", req.Name,
		"operation", string(req.Operation), "dryRun", req.DryRun, "user", req.UserInfo.Username, "uid", string(req.UID),
	}
	for key, text := range notes(d) {
		fields = append(fields, key, text)
	}
	v.Log.Info("Reviewed", fields...)
	for _, j := range d.Errors {
		v.Log.Info("A rule failed", "rule", j.Rule.Name, "kind", req.Kind.Kind, "namespace", req.Namespace, "name", req.Name, "error", j.Reason)
	}
}
