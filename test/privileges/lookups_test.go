package privileges_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
	"github.com/flux-admission/flux-admission/test/privileges"
)

var shared *env.Env

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	log.SetLogger(logr.Discard()) // the warnings of the webhook
	dir, err := os.MkdirTemp("", "flux-admission-privileges-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if os.Getenv(privileges.DirectoryVariable) == "" { // else the calls are for make privileges
		if err := os.Setenv(privileges.DirectoryVariable, dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	crds := filepath.Join(dir, "crds.yaml")
	if err := os.WriteFile(crds, []byte(otherCRDs()), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return env.Main(m, env.Options{
		ControlPlane: controlplane.Options{
			CRDSets: controlplane.DefaultCRDs(), CRDs: []string{crds},
			// As before Kubernetes 1.34: informers list objects before they watch them.
			APIServerArgs: map[string][]string{"feature-gates": {"WatchList=false"}},
		},
		Components: []string{"read-secrets", "audit-events", "audit-health", "audit-reports"},
		Args:       []string{"--audit-events", "--audit-health", "--audit-reports=openreports"},
		Policy:     policy,
	}, func(_ context.Context, e *env.Env) error {
		shared = e
		return nil
	})
}

// otherCRDs returns CRDs of kinds of which only the names count here.
func otherCRDs() string {
	var b strings.Builder
	for _, k := range [][4]string{
		{"image.toolkit.fluxcd.io", "ImagePolicy", "imagepolicies", "v1"}, {"image.toolkit.fluxcd.io", "ImageRepository", "imagerepositories", "v1"},
		{"image.toolkit.fluxcd.io", "ImageUpdateAutomation", "imageupdateautomations", "v1"},
		{"notification.toolkit.fluxcd.io", "Alert", "alerts", "v1"}, {"notification.toolkit.fluxcd.io", "Provider", "providers", "v1"},
		{"notification.toolkit.fluxcd.io", "Receiver", "receivers", "v1"}, {"fluxcd.controlplane.io", "ResourceSet", "resourcesets", "v1"},
		{"openreports.io", "Report", "reports", "v1alpha1"},
		{"external-secrets.io", "ExternalSecret", "externalsecrets", "v1"}, {"external-secrets.io", "SecretStore", "secretstores", "v1"},
		{"external-secrets.io", "ClusterSecretStore", "clustersecretstores", "v1"}, {"cert-manager.io", "Certificate", "certificates", "v1"},
		{"cert-manager.io", "Issuer", "issuers", "v1"}, {"cert-manager.io", "ClusterIssuer", "clusterissuers", "v1"},
		{"grafana.integreatly.org", "GrafanaDashboard", "grafanadashboards", "v1beta1"},
		{"monitoring.coreos.com", "PrometheusRule", "prometheusrules", "v1"},
		{"velero.io", "BackupStorageLocation", "backupstoragelocations", "v1"}, {"velero.io", "Schedule", "schedules", "v1"},
		{"volsync.backube", "ReplicationSource", "replicationsources", "v1alpha1"},
	} {
		scope := "Namespaced"
		if strings.HasPrefix(k[1], "Cluster") {
			scope = "Cluster"
		}
		fmt.Fprintf(&b, `---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[3]s.%[1]s}
spec:
  group: %[1]s
  names: {kind: %[2]s, plural: %[3]s}
  scope: %[5]s
  versions:
    - name: %[4]s
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`, k[0], k[1], k[2], k[3], scope)
	}
	return b.String()
}

// references name a missing object of every kind that rules look up, and are of the kinds that only the audit reads.
const references = `apiVersion: notification.toolkit.fluxcd.io/v1
kind: Receiver
metadata: {name: all, namespace: flux-system}
spec:
  resources:
    - {kind: GitRepository, name: missing}
    - {kind: OCIRepository, name: missing}
    - {kind: Bucket, name: missing}
    - {kind: ExternalArtifact, name: missing}
    - {kind: HelmRepository, name: missing}
    - {kind: HelmChart, name: missing}
    - {kind: Kustomization, name: missing}
    - {kind: HelmRelease, name: missing}
    - {kind: ImageRepository, name: missing}
    - {kind: ImagePolicy, name: missing}
    - {kind: ImageUpdateAutomation, name: missing}
---
apiVersion: notification.toolkit.fluxcd.io/v1
kind: Alert
metadata: {name: all, namespace: flux-system}
spec: {providerRef: {name: missing}}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmRepository
metadata: {name: private, namespace: flux-system}
spec: {interval: 10m, url: "https://charts.invalid", secretRef: {name: missing}}
---
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: private, namespace: flux-system}
spec:
  interval: 10m
  chart: {spec: {chart: a, sourceRef: {kind: HelmRepository, name: private}}}
  valuesFrom: [{kind: ConfigMap, name: missing}]
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: injected, namespace: flux-system}
spec: {interval: 10m, path: ./apps, prune: true, sourceRef: {kind: GitRepository, name: missing}}
---
apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata: {name: audited, namespace: flux-system}
spec: {instances: 1, storage: {size: 1Gi}}
---
apiVersion: fluxcd.controlplane.io/v1
kind: ResourceSet
metadata: {name: audited, namespace: flux-system}
spec: {}
---
apiVersion: grafana.integreatly.org/v1beta1
kind: GrafanaDashboard
metadata: {name: audited, namespace: flux-system}
spec: {}
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: {name: audited, namespace: flux-system}
spec: {}
---
apiVersion: velero.io/v1
kind: BackupStorageLocation
metadata: {name: audited, namespace: flux-system}
spec: {}
---
apiVersion: velero.io/v1
kind: Schedule
metadata: {name: audited, namespace: flux-system}
spec: {}
---
apiVersion: volsync.backube/v1alpha1
kind: ReplicationSource
metadata: {name: audited, namespace: flux-system}
spec: {}
---
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata: {name: store, namespace: flux-system}
spec: {secretStoreRef: {kind: SecretStore, name: missing}}
status: {conditions: [{type: Ready, status: "False", reason: SecretSyncedError, message: "failed", lastTransitionTime: "2026-01-01T00:00:00Z"}]}
---
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata: {name: cluster-store, namespace: flux-system}
spec: {secretStoreRef: {kind: ClusterSecretStore, name: missing}}
status: {conditions: [{type: Ready, status: "False", reason: SecretSyncedError, message: "failed", lastTransitionTime: "2026-01-01T00:00:00Z"}]}
`

// policy has the mutator look up a namespace.
const policy = `apiVersion: flux-admission.dev/v1alpha1
kind: AdmissionPolicy
metadata: {name: default}
spec:
  mutations:
    target-namespace: [{match: {kinds: [Kustomization], namespaces: [flux-system]}, targetNamespace: missing}]
`

// failedHealth and failedApply are messages of Kustomizations that name an object of every kind that the audit follows to a root.
const (
	failedHealth = "health check failed after 5m: timeout waiting for: [Deployment/flux-system/a status: 'InProgress', " +
		"StatefulSet/flux-system/a status: 'InProgress', DaemonSet/flux-system/a status: 'InProgress', Job/flux-system/a status: 'Failed', " +
		"PersistentVolumeClaim/flux-system/a status: 'InProgress', Service/flux-system/a status: 'InProgress', " +
		"ExternalSecret/flux-system/a status: 'InProgress', SecretStore/flux-system/a status: 'InProgress', " +
		"ClusterSecretStore/a status: 'InProgress', Certificate/flux-system/a status: 'InProgress', Issuer/flux-system/a status: 'InProgress', " +
		"ClusterIssuer/a status: 'InProgress', APIService/v1.example.com status: 'Failed']"
	failedApply = `Widget/flux-system/a dry-run failed: no matches for kind "Widget" in version "example.com/v1"`
)

// fail creates a Kustomization and has it fail with a message.
func fail(t *testing.T, message string) {
	t.Helper()
	reason := "HealthCheckFailed"
	if message == failedApply {
		reason = "ReconciliationFailed"
	}
	k := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
		"metadata": map[string]any{"name": strings.ToLower(reason), "namespace": "flux-system"},
		"spec": map[string]any{
			"interval": "10m", "path": "./a", "prune": true, "sourceRef": map[string]any{"kind": "GitRepository", "name": "missing"},
		},
	}}
	if err := shared.Client.Create(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	k.Object["status"] = map[string]any{"observedGeneration": int64(1), "conditions": []any{map[string]any{
		"type": "Ready", "status": "False", "reason": reason, "message": message, "observedGeneration": int64(1),
		"lastTransitionTime": "2026-01-01T00:00:00Z",
	}}}
	if err := shared.Client.Status().Update(t.Context(), k); err != nil {
		t.Fatal(err)
	}
}

// TestLookups_UseEachPermission makes the rules look up an object of every kind, and compares the calls with the permissions
// for that. make privileges compares those of all tests with all permissions.
func TestLookups_UseEachPermission(t *testing.T) {
	if err := shared.Apply(t.Context(), references); err != nil {
		t.Fatal(err)
	}
	for _, message := range []string{failedHealth, failedApply} {
		fail(t, message)
	}
	root, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	all, err := privileges.Grants(os.DirFS(filepath.Join(root, "manifests")), "flux-admission", env.Namespace)
	if err != nil {
		t.Fatal(err)
	}
	var grants []privileges.Grant
	for _, g := range all {
		if g.Role == "flux-admission-lookups" || g.Role == "flux-admission-secrets" || g.Role == "flux-admission-health" || g.Role == "flux-admission-roots" && g.Verb != "patch" ||
			g.Role == "flux-admission-reports" && g.Verb == "list" {
			grants = append(grants, g)
		}
	}
	if len(grants) < 20 {
		t.Fatalf("only these permissions are for lookups: %v", grants)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		events, err := shared.ControlPlane.CallsOf(env.ServiceAccount)
		if err != nil {
			t.Fatal(err)
		}
		calls := privileges.Calls(events, env.ServiceAccount, env.Namespace)
		if forbidden, _ := privileges.Compare(calls, all); len(forbidden) > 0 {
			t.Fatalf("refused calls: %v", forbidden)
		}
		_, unused := privileges.Compare(calls, grants)
		if len(unused) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("unused permissions: %v", unused)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
