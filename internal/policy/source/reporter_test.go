package source

import (
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
)

// TestReporter_Audit has the summary of the audit change: it is written at most once a minute, and not for its time alone.
func TestReporter_Audit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now *v1alpha1.AuditStatus
		r := &Reporter{Audit: func() *v1alpha1.AuditStatus { return now }}
		summary := func(deny int64) *v1alpha1.AuditStatus {
			return &v1alpha1.AuditStatus{LastCompleteTime: metav1.Now(), Objects: 10, Findings: v1alpha1.AuditCounts{Deny: deny}}
		}
		have := summary(1)
		if got := r.audit(have); got != have {
			t.Errorf("before the audit is complete: %+v, want the stored summary", got)
		}
		<-time.After(time.Second)
		if now = summary(1); r.audit(have) != have {
			t.Error("only the time has changed, and the summary is written")
		}
		if now = summary(2); r.audit(have) != now {
			t.Error("another leader's summary is not replaced")
		}
		have, r.audited = now, time.Now()
		<-time.After(auditInterval - time.Second)
		if now = summary(3); r.audit(have) != have {
			t.Error("it is written twice in a minute")
		}
		<-time.After(2 * time.Second)
		if r.audit(have) != now {
			t.Error("it is not written after a minute")
		}
		if r.Audit = nil; r.audit(have) != nil {
			t.Error("the summary of an audit that is off is kept")
		}
	})
}
