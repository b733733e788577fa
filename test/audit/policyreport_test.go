package audit_test

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/flux-admission/flux-admission/test/env"
)

// policyReportRole has the permissions that the Helm chart grants with audit.reports: policyreport.
const policyReportRole = `apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: policyreports, namespace: flux-admission-system}
rules: [{apiGroups: [wgpolicyk8s.io], resources: [policyreports], verbs: [create, update, delete, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: policyreports, namespace: flux-admission-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: policyreports}
subjects: [{kind: ServiceAccount, name: flux-admission, namespace: flux-admission-system}]
`

// TestPolicyReports has the findings written into PolicyReports in place of Reports.
func TestPolicyReports(t *testing.T) {
	c, err := dynamic.NewForConfig(shared.ControlPlane.Config())
	if err != nil {
		t.Fatal(err)
	}
	client := c.Resource(schema.GroupVersionResource{Group: "wgpolicyk8s.io", Version: "v1alpha2", Resource: "policyreports"}).Namespace(env.Namespace)
	if err := shared.Apply(t.Context(), policyReportRole); err != nil {
		t.Fatal(err)
	}
	restartAll(t, "--audit-reports=policyreport")
	kubectl(t, fmt.Sprintf(kustomization, "flux-system", "policyreported", ", dependsOn: [{name: nothing}]"), "apply", "-f", "-")
	wait := func(want ...string) {
		t.Helper()
		eventually(t, 2*minute, func() string {
			list, err := client.List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := resultLines(list.Items); fmt.Sprint(got) != fmt.Sprint(want) || len(want) == 0 && len(list.Items) > 0 && len(resultsOf(list.Items)) == 0 {
				return fmt.Sprintf("%d reports with %v, want %v", len(list.Items), got, want)
			}
			return ""
		})
	}
	wait("warn KS003 flux-system/policyreported", "warn SO001 flux-system/policyreported")
	kubectl(t, "", "delete", "kustomization.kustomize.toolkit.fluxcd.io", "-n", "flux-system", "policyreported", "--wait=false")
	wait()
}
