//go:build e2e

// Package e2e_test lets real Flux controllers apply commits through the gate.
package e2e_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/chartrepo"
	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
	"github.com/flux-admission/flux-admission/test/flux"
	"github.com/flux-admission/flux-admission/test/gitserver"
	"github.com/flux-admission/flux-admission/test/writepath"
)

// reconcileTimeout is long: the controllers share the machine with others.
const reconcileTimeout = 2 * time.Minute

var shared struct {
	cp     *controlplane.ControlPlane
	gate   *env.Webhook
	client client.Client
	git    *gitserver.Server
	charts *httptest.Server
}

func TestMain(m *testing.M) {
	os.Exit(controlplane.Main(m, controlplane.Options{CRDSets: controlplane.DefaultCRDs(), Audit: true}, setUp))
}

func setUp(cp *controlplane.ControlPlane) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	shared.cp = cp
	var err error
	if shared.client, err = client.New(cp.Config(), client.Options{Scheme: scheme.Scheme}); err != nil {
		return err
	}
	controllers, err := flux.Start(ctx, flux.Options{Plane: cp, Progress: os.Stderr})
	if err != nil {
		return err
	}
	cp.Cleanup(controllers.Stop)
	if shared.gate, err = env.Deploy(ctx, cp); err != nil {
		return err
	}
	gitDir, web := filepath.Join(cp.Dir(), "git"), filepath.Join(cp.Dir(), "charts")
	for _, dir := range []string{gitDir, web} {
		if err := os.Mkdir(dir, 0o750); err != nil {
			return err
		}
	}
	// The Git server outlives setUp: it ends with the test process.
	if shared.git, err = gitserver.Start(context.WithoutCancel(ctx), gitDir); err != nil {
		return err
	}
	root, err := env.Root()
	if err != nil {
		return err
	}
	if shared.charts, err = chartrepo.Serve(web, filepath.Join(root, "test", "demo", "charts", "airflow")); err != nil {
		return err
	}
	if _, err := shared.git.Commit(ctx, map[string]string{"README.md": "the tree\n"}, "Begin"); err != nil {
		return err
	}
	return write(ctx, fmt.Sprintf(`apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: tree, namespace: flux-system}
spec: {interval: 1h, url: %q, ref: {branch: main}}
`, shared.git.URL()))
}

func write(ctx context.Context, manifest string) error {
	return writepath.Kubectl("apply", "--server-side", "--force-conflicts").Write(ctx, shared.cp, manifest).Err
}

func setPolicy(t *testing.T, mode string) {
	t.Helper()
	err := write(t.Context(), `apiVersion: flux-admission.dev/v1alpha1
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
	if err := shared.gate.WaitPolicy(t.Context(), shared.client); err != nil {
		t.Fatal(err)
	}
}

// parent creates a namespace and, of the same name, a Flux Kustomization that applies the directory of that name.
func parent(t *testing.T, interval string) (name string) {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"}}
	if err := shared.client.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	commit(t, ns.Name, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: first, namespace: "+ns.Name+"}\n")
	if err := write(t.Context(), fmt.Sprintf(`apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: %[1]s, namespace: flux-system}
spec: {interval: %s, retryInterval: 2s, prune: true, path: ./%[1]s, sourceRef: {kind: GitRepository, name: tree}, targetNamespace: default}
`, ns.Name, interval)); err != nil {
		t.Fatal(err)
	}
	if err := write(t.Context(), fmt.Sprintf("apiVersion: source.toolkit.fluxcd.io/v1\nkind: HelmRepository\nmetadata: {name: airflow, namespace: %s}\nspec: {interval: 1h, url: %s}\n",
		ns.Name, shared.charts.URL)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// What is left behind would reconcile through the tests that follow.
		ctx := context.WithoutCancel(t.Context())
		o := &unstructured.Unstructured{}
		o.SetGroupVersionKind(flux.Kustomization("", "").GroupVersionKind)
		o.SetNamespace(flux.Namespace)
		o.SetName(ns.Name)
		if err := shared.client.Delete(ctx, o); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	return ns.Name
}

// commit puts the manifest into the directory, alone, and has Flux fetch it. It returns the commit.
func commit(t *testing.T, dir, manifest string) string {
	t.Helper()
	sha, err := shared.git.Commit(t.Context(), map[string]string{dir + "/object.yaml": manifest}, "Change "+dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := flux.Reconcile(t.Context(), shared.client, flux.GitRepository(flux.Namespace, "tree")); err != nil {
		t.Fatal(err)
	}
	return sha
}

func waitFor(t *testing.T, name string, want flux.Condition) string {
	t.Helper()
	got, err := flux.WaitFor(t.Context(), shared.client, flux.Kustomization(flux.Namespace, name), want, reconcileTimeout)
	if err != nil {
		t.Fatalf("%v\n%s", err, shared.gate.LogTail())
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

// A commit with a mistake: the parent's Ready condition carries our words; after the fixing commit it is Ready by itself; and the
// denial is counted, although Flux only ever asked by dry-run.
func TestACommitWithAMistakeIsRefusedUntilItIsFixed(t *testing.T) {
	setPolicy(t, "Enforce")
	for name, tc := range map[string]struct {
		wrong, right func(ns string) string
		rule         string
		says         []string
	}{
		"a Kustomization in the wrong namespace": {
			wrong: func(ns string) string { return "# moved\n" + kustomization("child", ns, "./nowhere", "") },
			right: func(ns string) string { return kustomization("child-"+ns, "flux-system", "./nowhere", "") },
			rule:  "kustomization-namespace", says: []string{"dry-run failed (Forbidden)", "denied the request", "KS001", "allowed is flux-system"},
		},
		"a release whose values the chart refuses": {
			wrong: func(ns string) string { return release(ns, "{existingSecret: db, existingSecretKey: uri}") },
			right: func(ns string) string { return release(ns, "{user: airflow}") },
			rule:  "helm-values-schema", says: []string{"denied the request", "HR001", "/data/metadataConnection", "existingSecret", "existingSecretKey"},
		},
		"a patch that sets monitoring.enabled": {
			wrong: func(ns string) string {
				return kustomization("child-"+ns, "flux-system", "./nowhere", "  patches: [{target: {kind: Cluster}, patch: \"[{op: add, path: /spec/monitoring/enabled, value: true}]\"}]\n")
			},
			right: func(ns string) string { return kustomization("child-"+ns, "flux-system", "./nowhere", "") },
			rule:  "cnpg-monitoring-enabled", says: []string{"denied the request", "PG001", "enablePodMonitor"},
		},
		"a Cluster with monitoring.enabled, which Flux's strict apply shows to the API server alone": {
			wrong: func(ns string) string { return cluster(ns, "{enabled: true}") },
			right: func(ns string) string { return cluster(ns, "{enablePodMonitor: false}") },
			says:  []string{"field not declared in schema"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns := parentIn(t)
			before := denials(t, tc.rule)
			commit(t, ns, tc.wrong(ns))
			message := waitFor(t, ns, flux.NotReady(tc.says[0]))
			for _, part := range tc.says {
				if !strings.Contains(message, part) {
					t.Errorf("the Ready condition says %q, want %q in it", message, part)
				}
			}
			if tc.rule != "" && denials(t, tc.rule) <= before {
				t.Errorf("the denial is not counted: %v before and after", before)
			}
			waitFor(t, ns, flux.Ready(commit(t, ns, tc.right(ns))))
		})
	}
}

// parentIn is parent without a targetNamespace, so that each object goes where its file says.
func parentIn(t *testing.T) string {
	t.Helper()
	ns := parent(t, "1h")
	if a := writepath.MergePatch(`{"spec":{"targetNamespace":null}}`).Write(t.Context(), shared.cp, kustomization(ns, "flux-system", "./x", "")); a.Err != nil {
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
	n, err := shared.gate.Metric(t.Context(), "flux_admission_findings_total", "rule="+rule, "action=Deny", "dry_run=true")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAnInjectedTargetNamespaceDoesNotDriftOverTenIntervals(t *testing.T) {
	setPolicy(t, "Enforce")
	ns := parentIn(t)
	child := kustomization("child-"+ns, "flux-system", "./apps/"+ns+"/app", "")
	waitFor(t, ns, flux.Ready(commit(t, ns, child)))
	get := func() *unstructured.Unstructured {
		o := &unstructured.Unstructured{}
		o.SetGroupVersionKind(flux.Kustomization("", "").GroupVersionKind)
		if err := shared.client.Get(t.Context(), client.ObjectKey{Namespace: "flux-system", Name: "child-" + ns}, o); err != nil {
			t.Fatal(err)
		}
		return o
	}
	if got, _, _ := unstructured.NestedString(get().Object, "spec", "targetNamespace"); got != ns {
		t.Fatalf("targetNamespace is %q, want %q", got, ns)
	}
	generation := get().GetGeneration()
	asked, err := shared.gate.Metric(t.Context(), "flux_admission_reviews_total")
	if err != nil {
		t.Fatal(err)
	}
	before := dryRuns(t, "child-"+ns)
	if a := writepath.MergePatch(`{"spec":{"interval":"1s"}}`).Write(t.Context(), shared.cp, kustomization(ns, "flux-system", "./x", "")); a.Err != nil {
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
	now, err := shared.gate.Metric(t.Context(), "flux_admission_reviews_total")
	if err != nil {
		t.Fatal(err)
	}
	// One review is the change of the parent's own interval, by the validating webhook; the ten unchanged applies cost none.
	if now-asked > 1 {
		t.Errorf("%v reviews while nothing changed but the parent's interval, want at most 1", now-asked)
	}
}

// dryRuns counts Flux's dry-run applies of a Kustomization.
func dryRuns(t *testing.T, name string) int {
	t.Helper()
	events, err := shared.cp.AuditEvents()
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

// While the gate is down nothing waits for it; when it is back it refuses again, and what slipped through can still be repaired.
func TestTheGateIsKilledAndComesBack(t *testing.T) {
	setPolicy(t, "Enforce")
	ns := parentIn(t)
	if err := shared.gate.Kill(); err != nil {
		t.Fatal(err)
	}
	slipped := kustomization("child", ns, "./nowhere", "")
	waitFor(t, ns, flux.Ready(commit(t, ns, slipped)))
	if err := shared.gate.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The old mistake does not freeze what changes nothing about it.
	waitFor(t, ns, flux.Ready(commit(t, ns, strings.Replace(slipped, "1h", "2h", 1))))
	commit(t, ns, slipped+"---\n"+kustomization("second", ns, "./nowhere", ""))
	waitFor(t, ns, flux.NotReady("KS001"))
	waitFor(t, ns, flux.Ready(commit(t, ns, kustomization("child-"+ns, "flux-system", "./nowhere", ""))))
}

func TestAuditOnlyRefusesNothingAndRecordsEverything(t *testing.T) {
	setPolicy(t, "AuditOnly")
	ns := parentIn(t)
	count := func() float64 {
		n, err := shared.gate.Metric(t.Context(), "flux_admission_findings_total", "action=Audit")
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
