package admission_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/test/writepath"
)

const (
	clusterClean = `apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata: {name: %s, namespace: %s}
spec:
  instances: 1
  storage: {size: 1Gi}
`
	clusterWrong = clusterClean + `  monitoring: {enabled: true}
`
)

// Whether an admission webhook sees a field that the CRD does not have depends on the write path.
func TestWebhook_ClusterWithMonitoringEnabled(t *testing.T) {
	const (
		byAPIServer = "refused by the API server"
		seen        = "seen by the webhook"
		pruned      = "pruned before the webhook is called"
	)
	for _, path := range []struct {
		write writepath.Path
		// update writes to a Cluster that exists.
		update  bool
		what    string
		refusal string
	}{
		{writepath.Kubectl("apply"), false, byAPIServer, `strict decoding error: unknown field "spec.monitoring.enabled"`},
		{writepath.Kubectl("apply", "--validate=false"), false, seen, ""},
		{writepath.ServerSideApply(), false, byAPIServer, `.spec.monitoring.enabled: field not declared in schema`},
		{writepath.Flux(), false, byAPIServer, `.spec.monitoring.enabled: field not declared in schema`},
		{writepath.Create(), false, pruned, ""},
		{writepath.MergePatch(`{"spec":{"monitoring":{"enabled":true}}}`), true, pruned, ""},
	} {
		for _, m := range modes {
			t.Run(fmt.Sprintf("%s with action %s", path.write.Name, m), func(t *testing.T) {
				setPolicy(t, m, "")
				ns := namespace(t)
				if path.update {
					if a := writepath.Create().Write(t.Context(), shared.ControlPlane, fmt.Sprintf(clusterClean, "db", ns)); a.Err != nil {
						t.Fatal(a.Err)
					}
				}
				manifest := fmt.Sprintf(clusterWrong, "db", ns)
				answer := path.write.Write(t.Context(), shared.ControlPlane, manifest)
				got := stored(t, manifest)
				warned := strings.Contains(strings.Join(answer.Warnings, "\n"), "PG001")

				refused := path.what == byAPIServer || path.what == seen && m == deny
				if refused != (answer.Err != nil) || refused != (got == nil) {
					t.Errorf("answer %s; stored %v; want refused: %t", answer, got, refused)
				}
				if path.what == byAPIServer && (answer.Err == nil || !strings.Contains(answer.Err.Error(), path.refusal)) {
					t.Errorf("answer %s, want %q", answer, path.refusal)
				}
				if path.what == seen && m == deny {
					for _, part := range []string{"denied the request", "PG001", "cnpg-monitoring-enabled", "spec.monitoring.enabled", "enablePodMonitor"} {
						if answer.Err == nil || !strings.Contains(answer.Err.Error(), part) {
							t.Errorf("answer %s, want %q in it", answer, part)
						}
					}
				}
				if got != nil && field(got, "spec.monitoring.enabled") != nil {
					t.Errorf("the field is stored: %v", got.Object["spec"])
				}
				if want := path.what == seen && m == warn; warned != want {
					t.Errorf("warnings %q, want one of PG001: %t", answer.Warnings, want)
				}
				if want := path.what == seen; recorded(t, ns, "db", "PG001") != want {
					t.Errorf("audit annotation of PG001: %t, want %t", !want, want)
				}
			})
		}
	}
}

// On an update, the annotation of an earlier apply is not a new finding.
func TestWebhook_PreexistingMistakeInAnnotation(t *testing.T) {
	ns := namespace(t)
	manifest := fmt.Sprintf(clusterWrong, "db", ns)
	setPolicy(t, audit, "")
	if a := writepath.Kubectl("apply", "--validate=false").Write(t.Context(), shared.ControlPlane, manifest); a.Err != nil {
		t.Fatal(a.Err)
	}
	setPolicy(t, deny, "")
	if a := writepath.MergePatch(`{"spec":{"instances":3}}`).Write(t.Context(), shared.ControlPlane, manifest); a.Err != nil {
		t.Errorf("a change of another field is denied: %s", a)
	}
	setPolicy(t, deny, "  ratchet: Disabled\n")
	if a := writepath.MergePatch(`{"spec":{"instances":2}}`).Write(t.Context(), shared.ControlPlane, manifest); a.Err == nil || !strings.Contains(a.Err.Error(), "PG001") {
		t.Errorf("with ratcheting disabled the preexisting mistake is not denied: %s", a)
	}
}
