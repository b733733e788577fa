// Package failures_test shows, on a real API server with the real gate, what is answered to a release whose chart's source is in trouble.
package failures_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	admissionregv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/chartrepo"
	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
	"github.com/flux-admission/flux-admission/test/writepath"
)

var shared struct {
	cp      *controlplane.ControlPlane
	options env.Options
	gate    *env.Gate
	client  client.Client
	// timeout is how long the API server waits for the gate.
	timeout time.Duration
	// packed is the chart airflow 1.16.0 as an archive.
	packed []byte
}

func TestMain(m *testing.M) {
	os.Exit(controlplane.Main(m, controlplane.Options{CRDSets: controlplane.DefaultCRDs(), Audit: true}, setUp))
}

func setUp(cp *controlplane.ControlPlane) error {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	shared.cp = cp
	var err error
	if shared.client, err = client.New(cp.Config(), client.Options{Scheme: scheme.Scheme}); err != nil {
		return err
	}
	if shared.options.Binary, err = env.Build(ctx, cp.Dir()); err != nil {
		return err
	}
	if shared.options.Address, err = env.FreeAddress(); err != nil {
		return err
	}
	if err := env.Install(ctx, cp, shared.options.Address); err != nil {
		return err
	}
	if shared.timeout, err = failClosed(ctx); err != nil {
		return err
	}
	if shared.packed, err = pack(cp.Dir()); err != nil {
		return err
	}
	shared.gate, err = env.Start(ctx, cp, shared.options)
	return err
}

// failClosed makes a review that is not answered in time visible: with failurePolicy Ignore, as it ships, the write would go through. It returns
// the time that the API server gives the webhook of releases, which stays as it ships.
func failClosed(ctx context.Context) (time.Duration, error) {
	fail := admissionregv1.Fail
	var v admissionregv1.ValidatingWebhookConfiguration
	if err := shared.client.Get(ctx, client.ObjectKey{Name: "flux-admission"}, &v); err != nil {
		return 0, err
	}
	timeout := time.Duration(0)
	for i := range v.Webhooks {
		v.Webhooks[i].FailurePolicy = &fail
		if w := v.Webhooks[i]; w.Name == webhookName && w.TimeoutSeconds != nil {
			timeout = time.Duration(*w.TimeoutSeconds) * time.Second
		}
	}
	if timeout == 0 {
		return 0, errors.New("the webhook configuration has no timeout for " + webhookName)
	}
	return timeout, shared.client.Update(ctx, &v)
}

const webhookName = "validate.flux-admission.dev"

func pack(dir string) ([]byte, error) {
	root, err := env.Root()
	if err != nil {
		return nil, err
	}
	web := filepath.Join(dir, "charts")
	if err := os.Mkdir(web, 0o750); err != nil {
		return nil, err
	}
	server, err := chartrepo.Serve(web, filepath.Join(root, "test", "demo", "charts", "airflow"))
	if err != nil {
		return nil, err
	}
	server.Close()
	return os.ReadFile(filepath.Join(web, "airflow-1.16.0.tgz"))
}

func namespace(t *testing.T) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "failures-"}}
	if err := shared.client.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	return ns.Name
}

// setPolicy says what is done about a release without a verdict, and waits until it is in force. Other rules have nothing to say about the releases here.
func setPolicy(t *testing.T, onUnknown string) {
	t.Helper()
	text := "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\nspec: {rules: {helm-values-schema: {action: Deny"
	if onUnknown != byDefault {
		text += ", onUnknown: " + onUnknown
	}
	if answer := write(t, "apply", text+"}}}\n"); answer.Err != nil {
		t.Fatal(answer.Err)
	}
	if err := shared.gate.WaitPolicy(t.Context(), shared.client); err != nil {
		t.Fatal(err)
	}
}

// write sends a manifest with kubectl.
func write(t *testing.T, verb, manifest string) writepath.Answer {
	t.Helper()
	return writepath.Kubectl(verb).Write(t.Context(), shared.cp, manifest)
}

// try sends a release with kubectl without storing it.
func try(t *testing.T, manifest string) writepath.Answer {
	t.Helper()
	return writepath.Kubectl("create", "--dry-run=server").Write(t.Context(), shared.cp, manifest)
}

func release(ns, values string) string {
	return fmt.Sprintf(`apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: airflow, namespace: %s}
spec:
  interval: 10m
  chart: {spec: {chart: airflow, version: 1.x, sourceRef: {kind: HelmRepository, name: charts}}}
  values: {data: {metadataConnection: %s}}
`, ns, values)
}

// Values that the chart's schema takes, and that it refuses.
const (
	good = "{user: airflow}"
	bad  = "{existingSecret: db, existingSecretKey: uri}"
)

// annotation returns an audit annotation that the gate gave to the last write of the release in a namespace.
func annotation(t *testing.T, ns, name string) string {
	t.Helper()
	events, err := shared.cp.AuditEvents()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range slices.Backward(events) {
		if ref := e.ObjectRef; ref != nil && ref.Resource == "helmreleases" && ref.Namespace == ns {
			return e.Annotations[webhookName+"/"+name]
		}
	}
	t.Fatalf("the audit log has no write of a release in namespace %s", ns)
	return ""
}

func metric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	value, err := shared.gate.Metric(t.Context(), name, labels...)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// eventually waits for what happens behind reviews; the slowest source here takes half a minute, and the machine may be busy.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 200*time.Millisecond, 3*time.Minute, true, func(context.Context) (bool, error) { return condition(), nil })
	if err != nil {
		t.Fatalf("waiting until %s: %v\n%s", what, err, shared.gate.LogTail())
	}
}
