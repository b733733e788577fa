//go:build e2e

// Package e2e_test has Flux's controllers apply commits to a cluster with the admission webhook.
package e2e_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/controlplane/assets"
	"github.com/flux-admission/flux-admission/test/env"
	"github.com/flux-admission/flux-admission/test/flux"
	"github.com/flux-admission/flux-admission/test/writepath"
)

// reconcileTimeout is long: the controllers share the machine with others.
const reconcileTimeout = 2 * time.Minute

var shared *env.Env

func TestMain(m *testing.M) {
	os.Exit(env.Main(m, env.Options{
		ControlPlane: controlplane.Options{CRDSets: append(controlplane.DefaultCRDs(), assets.VolumeSnapshots), Audit: true},
		Flux:         true, Helm: true,
		Resources: []string{env.MutatingWebhook},
		Charts:    []string{env.AirflowChart},
		Git:       true,
	}, setUp))
}

// setUp creates the source of all Kustomizations here.
func setUp(ctx context.Context, e *env.Env) error {
	shared = e
	if _, err := e.Git.Commit(ctx, map[string]string{"README.md": "the tree\n"}, "Begin"); err != nil {
		return err
	}
	return e.Apply(ctx, whyRole+fmt.Sprintf(`---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: tree, namespace: flux-system}
spec: {interval: 1h, url: %q, ref: {branch: main}}
`, e.Git.URL()))
}

func setPolicy(t *testing.T, mode string) {
	t.Helper()
	err := shared.SetPolicy(t.Context(), `apiVersion: flux-admission.dev/v1alpha1
kind: AdmissionPolicy
metadata: {name: default}
spec:
  mode: `+mode+`
  rules:
    kustomization-namespace: {action: Deny, allowedNamespaces: [flux-system]}
    helm-values-schema: {action: Deny}
    cnpg-monitoring-enabled: {action: Deny}
  mutations:
    target-namespace:
      - match: {namespaces: [flux-system], path: '^\./apps/(?P<ns>[^/]+)/'}
        targetNamespace: "{ns}"
`)
	if err != nil {
		t.Fatal(err)
	}
}

// parent creates a namespace and, of the same name, a Flux Kustomization that applies the directory of that name.
func parent(t *testing.T, interval string) (name string) {
	t.Helper()
	ns := shared.Namespace(t, "e2e-")
	commit(t, ns, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: first, namespace: "+ns+"}\n")
	if err := shared.Apply(t.Context(), fmt.Sprintf(`apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: %[1]s, namespace: flux-system}
spec: {interval: %s, retryInterval: 2s, prune: true, path: ./%[1]s, sourceRef: {kind: GitRepository, name: tree}, targetNamespace: default}
`, ns, interval)); err != nil {
		t.Fatal(err)
	}
	apply(t, helmRepository(ns))
	t.Cleanup(func() {
		// What is left behind would reconcile through the tests that follow.
		ctx := context.WithoutCancel(t.Context())
		o := &unstructured.Unstructured{}
		o.SetGroupVersionKind(flux.Kustomization("", "").GroupVersionKind)
		o.SetNamespace(flux.Namespace)
		o.SetName(ns)
		if err := shared.Client.Delete(ctx, o); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	return ns
}

// apply applies manifests as kubectl does.
func apply(t *testing.T, manifest string) {
	t.Helper()
	if err := shared.Apply(t.Context(), manifest); err != nil {
		t.Fatal(err)
	}
}

// helmRepository returns the repository of the chart airflow.
func helmRepository(ns string) string {
	return fmt.Sprintf("apiVersion: source.toolkit.fluxcd.io/v1\nkind: HelmRepository\nmetadata: {name: airflow, namespace: %s}\nspec: {interval: 1h, url: %s}\n",
		ns, shared.Charts.URL)
}

// commit puts the manifest into the directory, alone, and has Flux fetch it. It returns the commit.
func commit(t *testing.T, dir, manifest string) string {
	t.Helper()
	sha, err := shared.Git.Commit(t.Context(), map[string]string{dir + "/object.yaml": manifest}, "Change "+dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := flux.Reconcile(t.Context(), shared.Client, flux.GitRepository(flux.Namespace, "tree")); err != nil {
		t.Fatal(err)
	}
	return sha
}

func waitFor(t *testing.T, name string, want flux.Condition) string {
	t.Helper()
	got, err := flux.WaitFor(t.Context(), shared.Client, flux.Kustomization(flux.Namespace, name), want, reconcileTimeout)
	if err != nil {
		t.Fatalf("%v\n%s", err, shared.Webhook().LogTail())
	}
	return got.Message
}

func kustomization(name, ns, path, more string) string {
	return fmt.Sprintf(`apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: %s, namespace: %s}
spec:
  interval: 1h
  suspend: true
  path: %s
  prune: true
  sourceRef: {kind: GitRepository, name: tree}
%s`, name, ns, path, more)
}

func release(ns, values string) string {
	return fmt.Sprintf(`apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: airflow, namespace: %s}
spec:
  interval: 1h
  chart:
    spec:
      chart: airflow
      version: 1.x
      sourceRef: {kind: HelmRepository, name: airflow}
  values:
    data:
      metadataConnection: %s
`, ns, values)
}

// After a commit with a mistake, the parent's Ready condition has the message of the denial. After the fix it becomes Ready
// without further action. The denial is counted, although Flux only sent dry-runs.
func TestFlux_DeniedCommitIsFixed(t *testing.T) {
	setPolicy(t, "Enforce")
	for name, tc := range map[string]struct {
		wrong, right func(ns string) string
		rule         string
		message      []string
	}{
		"a Kustomization in the wrong namespace": {
			wrong: func(ns string) string { return "# moved\n" + kustomization("child", ns, "./nowhere", "") },
			right: func(ns string) string { return kustomization("child-"+ns, "flux-system", "./nowhere", "") },
			rule:  "kustomization-namespace", message: []string{"dry-run failed (Forbidden)", "denied the request", "KS001", `must be "flux-system"`},
		},
		"a release whose values the chart refuses": {
			wrong: func(ns string) string { return release(ns, "{existingSecret: db, existingSecretKey: uri}") },
			right: func(ns string) string { return release(ns, "{user: airflow}") },
			rule:  "helm-values-schema", message: []string{"denied the request", "HR001", "/data/metadataConnection", "existingSecret", "existingSecretKey"},
		},
		"a patch that sets monitoring.enabled": {
			wrong: func(ns string) string {
				return kustomization("child-"+ns, "flux-system", "./nowhere", "  patches: [{target: {kind: Cluster}, patch: \"[{op: add, path: /spec/monitoring/enabled, value: true}]\"}]\n")
			},
			right: func(ns string) string { return kustomization("child-"+ns, "flux-system", "./nowhere", "") },
			rule:  "cnpg-monitoring-enabled", message: []string{"denied the request", "PG001", "enablePodMonitor"},
		},
		"a Cluster with monitoring.enabled, which the API server itself rejects on Flux's strict apply": {
			wrong:   func(ns string) string { return cluster(ns, "{enabled: true}") },
			right:   func(ns string) string { return cluster(ns, "{enablePodMonitor: false}") },
			message: []string{"field not declared in schema"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns := parentIn(t)
			before := denials(t, tc.rule)
			commit(t, ns, tc.wrong(ns))
			message := waitFor(t, ns, flux.NotReady(tc.message[0]))
			for _, part := range tc.message {
				if !strings.Contains(message, part) {
					t.Errorf("the message of the Ready condition is %q, want %q in it", message, part)
				}
			}
			if tc.rule != "" && denials(t, tc.rule) <= before {
				t.Errorf("the denial is not counted: %v before and after", before)
			}
			waitFor(t, ns, flux.Ready(commit(t, ns, tc.right(ns))))
		})
	}
}

// parentIn is parent without a targetNamespace, so that each object keeps the namespace of its file.
func parentIn(t *testing.T) string {
	t.Helper()
	ns := parent(t, "1h")
	if a := writepath.MergePatch(`{"spec":{"targetNamespace":null}}`).Write(t.Context(), shared.ControlPlane, kustomization(ns, "flux-system", "./x", "")); a.Err != nil {
		t.Fatal(a.Err)
	}
	return ns
}

func cluster(ns, monitoring string) string {
	return fmt.Sprintf("apiVersion: postgresql.cnpg.io/v1\nkind: Cluster\nmetadata: {name: db, namespace: %s}\nspec:\n  instances: 1\n  storage: {size: 1Gi}\n  monitoring: %s\n", ns, monitoring)
}

// denials counts the denials of a rule that came as dry-runs.
func denials(t *testing.T, rule string) float64 {
	t.Helper()
	if rule == "" {
		return 0
	}
	n, err := shared.Webhook().Metric(t.Context(), "flux_admission_findings_total", "rule="+rule, "action=Deny", "dry_run=true")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFlux_InjectedTargetNamespaceDoesNotDrift(t *testing.T) {
	setPolicy(t, "Enforce")
	ns := parentIn(t)
	child := kustomization("child-"+ns, "flux-system", "./apps/"+ns+"/app", "")
	waitFor(t, ns, flux.Ready(commit(t, ns, child)))
	get := func() *unstructured.Unstructured {
		o := &unstructured.Unstructured{}
		o.SetGroupVersionKind(flux.Kustomization("", "").GroupVersionKind)
		if err := shared.Client.Get(t.Context(), client.ObjectKey{Namespace: "flux-system", Name: "child-" + ns}, o); err != nil {
			t.Fatal(err)
		}
		return o
	}
	if got, _, _ := unstructured.NestedString(get().Object, "spec", "targetNamespace"); got != ns {
		t.Fatalf("targetNamespace is %q, want %q", got, ns)
	}
	generation := get().GetGeneration()
	reviewed, err := shared.Webhook().Metric(t.Context(), "flux_admission_reviews_total")
	if err != nil {
		t.Fatal(err)
	}
	before := dryRuns(t, "child-"+ns)
	if a := writepath.MergePatch(`{"spec":{"interval":"1s"}}`).Write(t.Context(), shared.ControlPlane, kustomization(ns, "flux-system", "./x", "")); a.Err != nil {
		t.Fatal(a.Err)
	}
	for deadline := time.Now().Add(reconcileTimeout); dryRuns(t, "child-"+ns) < before+10; {
		if time.Now().After(deadline) {
			t.Fatalf("Flux applied the child %d times, want 10", dryRuns(t, "child-"+ns)-before)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
	o := get()
	if got, _, _ := unstructured.NestedString(o.Object, "spec", "targetNamespace"); got != ns || o.GetGeneration() != generation {
		t.Errorf("targetNamespace %q, generation %d; want %q and %d", got, o.GetGeneration(), ns, generation)
	}
	now, err := shared.Webhook().Metric(t.Context(), "flux_admission_reviews_total")
	if err != nil {
		t.Fatal(err)
	}
	// The one review is of the parent, whose interval changed. The ten unchanged applies are not sent to the webhook.
	if now-reviewed > 1 {
		t.Errorf("%v reviews while nothing changed but the parent's interval, want at most 1", now-reviewed)
	}
}

// dryRuns counts Flux's dry-run applies of a Kustomization.
func dryRuns(t *testing.T, name string) int {
	t.Helper()
	events, err := shared.ControlPlane.AuditEvents()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range events {
		if e.ObjectRef != nil && e.ObjectRef.Resource == "kustomizations" && e.ObjectRef.Name == name && e.Verb == "patch" && strings.Contains(e.RequestURI, "dryRun=All") {
			n++
		}
	}
	return n
}

// Nothing waits for a webhook server that is down. After its restart it denies again, and objects that were written meanwhile
// can be repaired.
func TestFlux_WebhookServerIsKilled(t *testing.T) {
	setPolicy(t, "Enforce")
	ns := parentIn(t)
	if err := shared.Webhook().Kill(); err != nil {
		t.Fatal(err)
	}
	slipped := kustomization("child", ns, "./nowhere", "")
	waitFor(t, ns, flux.Ready(commit(t, ns, slipped)))
	if err := shared.Webhook().Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The old mistake does not freeze what changes nothing about it.
	waitFor(t, ns, flux.Ready(commit(t, ns, strings.Replace(slipped, "1h", "2h", 1))))
	commit(t, ns, slipped+"---\n"+kustomization("second", ns, "./nowhere", ""))
	waitFor(t, ns, flux.NotReady("KS001"))
	waitFor(t, ns, flux.Ready(commit(t, ns, kustomization("child-"+ns, "flux-system", "./nowhere", ""))))
}

func TestFlux_AuditOnly(t *testing.T) {
	setPolicy(t, "AuditOnly")
	ns := parentIn(t)
	count := func() float64 {
		n, err := shared.Webhook().Metric(t.Context(), "flux_admission_findings_total", "action=Audit")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	waitFor(t, ns, flux.Ready(commit(t, ns, kustomization("child", ns, "./nowhere", "")+"---\n"+release(ns, "{existingSecret: db, existingSecretKey: uri}"))))
	if got := count() - before; got < 3 {
		t.Errorf("%v findings recorded, want the namespace and both values", got)
	}
}
