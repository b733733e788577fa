package audit

import (
	"cmp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
)

// maxNames is the number of rules, and of namespaces, in the status of the AdmissionPolicy.
const maxNames = 50

// Status returns the summary for the status of the AdmissionPolicy; nil while something is left to evaluate by the policy in force.
func (a *Auditor) Status() *v1alpha1.AuditStatus {
	a.init()
	a.mu.Lock()
	current := a.active && a.policy == a.Policy()
	a.mu.Unlock()
	if !current {
		return nil
	}
	return a.results.Summary().status()
}

// status returns the summary; nil while something is left to evaluate.
func (s Summary) status() *v1alpha1.AuditStatus {
	if s.Complete.IsZero() || s.Pending {
		return nil
	}
	out := &v1alpha1.AuditStatus{
		LastCompleteTime: metav1.NewTime(s.Complete).Rfc3339Copy(), Objects: int64(s.Objects), Inconclusive: int64(s.Inconclusive),
		Roots: int64(s.Delivery.Roots),
	}
	for _, c := range s.Rules {
		out.Findings.Deny += int64(c.Deny)
		out.Findings.Warn += int64(c.Warn)
		out.Findings.Audit += int64(c.Audit)
	}
	out.Rules, out.OmittedRules = mostDenied(s.Rules)
	out.Namespaces, out.OmittedNamespaces = mostDenied(s.Namespaces)
	return out
}

// mostDenied returns the first maxNames counts, those with the most denials first, and the number of the others.
func mostDenied(counts map[string]Count) (out []v1alpha1.NamedAuditCounts, omitted int64) {
	for name, c := range counts {
		out = append(out, v1alpha1.NamedAuditCounts{
			Name: name, AuditCounts: v1alpha1.AuditCounts{Deny: int64(c.Deny), Warn: int64(c.Warn), Audit: int64(c.Audit)},
		})
	}
	slices.SortFunc(out, func(a, b v1alpha1.NamedAuditCounts) int {
		return cmp.Or(cmp.Compare(b.Deny, a.Deny), cmp.Compare(b.Warn, a.Warn), cmp.Compare(b.Audit, a.Audit), cmp.Compare(a.Name, b.Name))
	})
	n := min(len(out), maxNames)
	return out[:n], int64(len(out) - n)
}
