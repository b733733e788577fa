package audit_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// unhealthy are objects whose state lasts once they have a status: a source, a Kustomization, and a CustomResourceDefinition with an instance.
const unhealthy = `apiVersion: v1
kind: Namespace
metadata: {name: lasting}
---
apiVersion: v1
kind: Namespace
metadata: {name: states}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: unreachable, namespace: states}
spec: {interval: 1m, url: "https://git.invalid/unreachable"}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: ahead, namespace: flux-system}
spec: {interval: 1m, url: "https://git.invalid/ahead"}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: behind, namespace: flux-system}
spec: {interval: 10m, path: ./a, prune: true, sourceRef: {kind: GitRepository, name: ahead}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: volumes.longhorn.io}
spec:
  group: longhorn.io
  scope: Namespaced
  names: {kind: Volume, plural: volumes}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

const heldVolume = `apiVersion: longhorn.io/v1
kind: Volume
metadata: {name: held, namespace: flux-system, finalizers: [longhorn.io]}
`

// stateMessages returns the messages of the findings on states that last, by "RULE NAMESPACE/NAME". The namespaces of earlier tests
// are left out.
func stateMessages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, one := range resultsOf(reportObjects(t)) {
		rule, _ := one["rule"].(string)
		resource := one["resources"].([]any)[0].(map[string]any)
		if !strings.HasPrefix(rule, "HE") || rule == "HE003" && resource["name"] != "lasting" {
			continue
		}
		namespace, _ := resource["namespace"].(string)
		out[fmt.Sprintf("%s %s/%s", rule, namespace, resource["name"])], _ = one["message"].(string)
	}
	return out
}

// TestStates_AreReportedUntilRepaired has states that last: they are reported when they have lasted as long as the policy allows, although
// nothing changes then, and no longer after the repair.
func TestStates_AreReportedUntilRepaired(t *testing.T) {
	endDeletions(t)
	kubectl(t, `{"spec": {"rules": {"namespace-terminating": {"after": "2s"}, "crd-terminating": {"after": "2s"}}}}`,
		"patch", "admissionpolicy", "default", "--type=merge", "--patch-file=/dev/stdin")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), minute)
		defer cancel()
		if _, stderr, err := shared.ControlPlane.Kubectl(ctx, strings.NewReader(`{"spec": {"rules": {"namespace-terminating": {"after": "15m"}, "crd-terminating": {"after": "15m"}}}}`),
			"patch", "admissionpolicy", "default", "--type=merge", "--patch-file=/dev/stdin"); err != nil {
			t.Errorf("%v: %s", err, stderr)
		}
	})
	kubectl(t, unhealthy, "apply", "-f", "-")
	if err := shared.ControlPlane.WaitForCRDs(t.Context(), "volumes.longhorn.io"); err != nil {
		t.Fatal(err)
	}
	eventually(t, minute, func() string {
		if _, stderr, err := shared.ControlPlane.Kubectl(t.Context(), strings.NewReader(heldVolume), "apply", "-f", "-"); err != nil {
			return string(stderr)
		}
		return ""
	})
	ago := func(d time.Duration) string { return time.Now().Add(-d).UTC().Format(time.RFC3339) }
	artifact := fmt.Sprintf(`"artifact": {"revision": "main@sha1:bbbb", "digest": "sha256:%s", "path": "a.tar.gz", "url": "http://source-controller/a.tar.gz", "lastUpdateTime": %q}`,
		strings.Repeat("b", 64), ago(2*time.Hour))
	setStatus(t, "gitrepository", "flux-system", "ahead", `{"observedGeneration": 1, `+artifact+`}`)
	setStatus(t, "kustomization.kustomize.toolkit.fluxcd.io", "flux-system", "behind",
		`{"observedGeneration": 1, "lastAppliedRevision": "main@sha1:aaaa", "conditions": [`+condition("True", "ReconciliationSucceeded", "Applied")+`]}`)
	// The default is half an hour: it ends while nothing changes.
	late := fmt.Sprintf(`{"type": "Ready", "status": "False", "reason": "GitOperationFailed", "message": "authentication required", "lastTransitionTime": %q, "observedGeneration": 1}`,
		ago(30*time.Minute-10*time.Second))
	setStatus(t, "gitrepository", "states", "unreachable", `{"observedGeneration": 1, "conditions": [`+late+`]}`)
	kubectl(t, "", "delete", "namespace", "lasting", "--wait=false")
	kubectl(t, "", "delete", "crd", "volumes.longhorn.io", "--wait=false")

	want := map[string]string{
		"HE001 states/unreachable":   "authentication required",
		"HE002 flux-system/behind":   "GitRepository flux-system/ahead has revision main@sha1:bbbb",
		"HE003 /lasting":             "is being deleted since",
		"HE004 /volumes.longhorn.io": "flux-admission audit names the instances that hold it",
	}
	eventually(t, minute, func() string { return statesDiffer(t, want) })
	t.Run("the command names what holds the definition", func(t *testing.T) {
		r, _ := audited(t, "auditor", "--fail-on", "never")
		for _, f := range r.Findings {
			if f.ID == "HE004" {
				if !strings.Contains(f.Message, "Volume flux-system/held with finalizer longhorn.io (controller gone: no workload is named longhorn-manager)") {
					t.Errorf("message %q", f.Message)
				}
				return
			}
		}
		t.Errorf("findings: %v", found(r))
	})

	setReady(t, "gitrepository", "states", "unreachable", "True", "Succeeded", "stored artifact")
	delete(want, "HE001 states/unreachable")
	eventually(t, minute, func() string { return statesDiffer(t, want) })
	setStatus(t, "kustomization.kustomize.toolkit.fluxcd.io", "flux-system", "behind", `{"lastAppliedRevision": "main@sha1:bbbb"}`)
	delete(want, "HE002 flux-system/behind")
	eventually(t, minute, func() string { return statesDiffer(t, want) })
	kubectl(t, "", "patch", "volumes.longhorn.io", "held", "-n", "flux-system", "--type=merge", "-p", `{"metadata": {"finalizers": null}}`)
	endDeletions(t)
	eventually(t, minute, func() string { return statesDiffer(t, nil) })
	kubectl(t, "", "delete", "--wait=false", "-n", "flux-system", "kustomization.kustomize.toolkit.fluxcd.io/behind", "gitrepository/ahead")
	kubectl(t, "", "delete", "--wait=false", "-n", "states", "gitrepository/unreachable")
}

// statesDiffer returns how the reported findings on states differ from parts of their messages; empty if they do not.
func statesDiffer(t *testing.T, want map[string]string) string {
	t.Helper()
	got := stateMessages(t)
	for key, part := range want {
		if !strings.Contains(got[key], part) {
			return fmt.Sprintf("%s has the message %q, want %q; all: %v", key, got[key], part, got)
		}
	}
	if len(got) != len(want) {
		return fmt.Sprintf("findings %v, want those of %v", got, want)
	}
	return ""
}
