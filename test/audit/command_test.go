// Package audit_test audits a real API server: what was written while no webhook server was there is found, reported, and its
// report removed when it is repaired.
package audit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
)

var shared *env.Env

func TestMain(m *testing.M) {
	policy, err := os.ReadFile("../../manifests/policy/default.yaml")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(env.Main(m, env.Options{
		Policy:       string(policy),
		ControlPlane: controlplane.Options{CRDSets: controlplane.DefaultCRDs(), CRDs: []string{"testdata/openreports.yaml", "testdata/policyreports.yaml"}},
		Proxy:        true, Replicas: 2, Components: []string{"audit-events", "audit-health", "audit-reports"},
		Args: []string{"--audit-events", "--audit-health", "--audit-reports=openreports"},
	}, func(ctx context.Context, e *env.Env) error {
		shared = e
		return e.Apply(ctx, auditors)
	}))
}

// auditors are users that may read what the audit reads: one all of it, one no HelmRelease.
const auditors = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: auditor}
rules: [{apiGroups: ["*"], resources: ["*"], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: auditor}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: auditor}
subjects: [{kind: User, name: auditor, apiGroup: rbac.authorization.k8s.io}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: half}
rules: [{apiGroups: [kustomize.toolkit.fluxcd.io, flux-admission.dev, source.toolkit.fluxcd.io], resources: ["*"], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: half}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: half}
subjects: [{kind: User, name: half, apiGroup: rbac.authorization.k8s.io}]
`

// bad are objects with a mistake each, with the name of the rule that finds it, and what they need.
const bad = `apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 1m, url: "https://example.com/fleet"}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmRepository
metadata: {name: charts, namespace: shop}
spec: {interval: 1h, url: "https://charts.example.com"}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: ks001, namespace: shop}
spec: {interval: 10m, path: ./shop, prune: true, sourceRef: {kind: GitRepository, name: flux-system, namespace: flux-system}}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: ks003, namespace: flux-system}
spec: {interval: 10m, path: ./a, prune: true, dependsOn: [{name: gone}], sourceRef: {kind: GitRepository, name: flux-system}}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: ks004, namespace: flux-system}
spec: {interval: 10m, path: ./a, prune: true, dependsOn: [{name: ks004}], sourceRef: {kind: GitRepository, name: flux-system}}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: so001, namespace: flux-system}
spec: {interval: 10m, path: ./a, prune: true, sourceRef: {kind: GitRepository, name: missing}}
---
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: hr004, namespace: shop}
spec:
  interval: 1h
  chart: {spec: {chart: web, version: "1.0.0", sourceRef: {kind: HelmRepository, name: charts}}}
  valuesFrom: [{kind: ConfigMap, name: missing}]
---
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: hr006, namespace: shop}
spec:
  interval: 1h
  dependsOn: [{name: gone}]
  chart: {spec: {chart: web, version: "1.0.0", sourceRef: {kind: HelmRepository, name: charts}}}
---
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: hr011, namespace: shop}
spec:
  interval: 1h
  releaseName: hr006
  chart: {spec: {chart: web, version: "1.0.0", sourceRef: {kind: HelmRepository, name: charts}}}
---
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: good, namespace: shop}
spec:
  interval: 1h
  chart: {spec: {chart: web, version: "1.0.0", sourceRef: {kind: HelmRepository, name: charts}}}
---
apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata: {name: pg001, namespace: shop}
spec: {instances: 1, storage: {size: 1Gi}, monitoring: {enabled: true}}
`

// audited runs the command as a user and returns its report.
func audited(t *testing.T, user string, args ...string) (*report.Report, int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "report.json")
	out, code, err := shared.Run(t.Context(), user, append([]string{"audit", "--report", "json=" + file}, args...)...)
	if err != nil || code == 2 {
		t.Fatalf("exit code %d: %v\n%s", code, err, out)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r := &report.Report{}
	if err := json.Unmarshal(data, r); err != nil {
		t.Fatal(err)
	}
	return r, code
}

// found returns the findings as "ACTION ID NAMESPACE/NAME".
func found(r *report.Report) []string {
	out := make([]string, 0, len(r.Findings))
	for _, f := range r.Findings {
		out = append(out, fmt.Sprintf("%s %s %s/%s", f.Action, f.ID, f.Object.Namespace, f.Object.Name))
	}
	slices.Sort(out)
	return out
}

// TestCommand_FindsWhatNoWebhookSaw writes objects while no webhook server is there.
func TestCommand_FindsWhatNoWebhookSaw(t *testing.T) {
	writeUnseen(t, bad)
	want := []string{
		"Deny KS001 shop/ks001",
		"Deny PG001 shop/pg001",
		"Warn HR004 shop/hr004",
		"Warn HR006 shop/hr006",
		"Warn HR011 shop/hr011",
		"Warn KS003 flux-system/ks003",
		"Warn KS004 flux-system/ks004",
		"Warn SO001 flux-system/so001",
	}
	r, code := audited(t, "auditor")
	if diff := cmp.Diff(want, found(r)); diff != "" || code != 1 {
		t.Errorf("exit code %d, findings (-want +got):\n%s", code, diff)
	}
	if n := len(r.Errors); n > 0 {
		t.Errorf("errors: %v", r.Errors)
	}

	t.Run("text", func(t *testing.T) {
		out, code, err := shared.Run(t.Context(), "auditor", "audit", "--only", "KS001")
		if err != nil || code != 1 || !strings.Contains(out, "namespace shop") || !strings.Contains(out, "Kustomization shop/ks001") {
			t.Errorf("exit code %d, %v:\n%s", code, err, out)
		}
	})
	t.Run("forbidden kinds are named", func(t *testing.T) {
		r, _ := audited(t, "half", "--fail-on", "unknown")
		var skipped []string
		for _, s := range r.Skipped {
			skipped = append(skipped, s.Reason)
		}
		for _, want := range []string{"no permission to list objects of kind HelmRelease.helm.toolkit.fluxcd.io", "no permission to list objects of kind Cluster.postgresql.cnpg.io"} {
			if !slices.Contains(skipped, want) {
				t.Errorf("%q is not among what was not evaluated: %q", want, skipped)
			}
		}
		if !slices.Contains(found(r), "Deny KS001 shop/ks001") {
			t.Errorf("findings: %v", found(r))
		}
	})
	t.Run("audit-only", func(t *testing.T) {
		policy := filepath.Join(t.TempDir(), "policy.yaml")
		text := "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\nspec: {mode: AuditOnly}\n"
		if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, code := audited(t, "auditor", "--policy", policy)
		if !slices.Contains(found(r), "Deny KS001 shop/ks001") || code != 1 {
			t.Errorf("exit code %d, findings: %v", code, found(r))
		}
	})
}

// writeUnseen applies a manifest while no webhook server is there, and deletes its objects at the end.
func writeUnseen(t *testing.T, manifest string) {
	t.Helper()
	for _, w := range shared.Webhooks {
		if err := w.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if _, _, err := shared.ControlPlane.Kubectl(ctx, strings.NewReader(manifest), "delete", "--ignore-not-found", "--wait=false", "-f", "-"); err != nil {
			t.Error(err)
		}
	})
	if err := shared.Apply(t.Context(), "apiVersion: v1\nkind: Namespace\nmetadata: {name: flux-system}\n"); err != nil {
		t.Fatal(err)
	}
	// Not by server-side apply, which refuses a field that the kind does not have.
	_, _, err := shared.ControlPlane.Kubectl(t.Context(), strings.NewReader(manifest), "apply", "--validate=false", "-f", "-")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range shared.Webhooks {
		if err := w.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
