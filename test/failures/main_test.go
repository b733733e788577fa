// Package failures_test tests, on a real API server, the answer to a release whose chart cannot be read from its source.
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
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
	"github.com/flux-admission/flux-admission/test/writepath"
)

var shared struct {
	*env.Env
	// timeout is how long the API server waits for the webhook of releases.
	timeout time.Duration
	// packed is the chart airflow 1.16.0 as an archive.
	packed []byte
}

func TestMain(m *testing.M) {
	os.Exit(env.Main(m, env.Options{
		ControlPlane: controlplane.Options{CRDSets: controlplane.DefaultCRDs(), Audit: true},
		// With Ignore, a review that times out would be an admitted write.
		FailurePolicy: admissionregv1.Fail,
		// Credentials of repositories are in Secrets.
		Components: []string{"read-secrets"},
		Charts:     []string{env.AirflowChart},
	}, func(ctx context.Context, e *env.Env) error {
		shared.Env = e
		var err error
		if shared.packed, err = os.ReadFile(filepath.Join(e.ChartDir, "airflow-1.16.0.tgz")); err != nil {
			return err
		}
		shared.timeout, err = timeout(ctx, e.Client)
		return err
	}))
}

// timeout returns how long the API server waits for the webhook of releases.
func timeout(ctx context.Context, c client.Client) (time.Duration, error) {
	var v admissionregv1.ValidatingWebhookConfiguration
	if err := c.Get(ctx, client.ObjectKey{Name: "flux-admission"}, &v); err != nil {
		return 0, err
	}
	for _, w := range v.Webhooks {
		if w.Name == webhookName && w.TimeoutSeconds != nil {
			return time.Duration(*w.TimeoutSeconds) * time.Second, nil
		}
	}
	return 0, errors.New("the webhook configuration has no timeout for " + webhookName)
}

const webhookName = "validate.flux-admission.dev"

// setPolicy sets onUnknown of the rule on values and waits until the policy is in force. Other rules have no findings here.
func setPolicy(t *testing.T, onUnknown string) {
	t.Helper()
	text := "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\nspec: {rules: {helm-values-schema: {action: Deny"
	if onUnknown != byDefault {
		text += ", onUnknown: " + onUnknown
	}
	if answer := write(t, "apply", text+"}}}\n"); answer.Err != nil {
		t.Fatal(answer.Err)
	}
	if err := shared.Webhook().WaitPolicy(t.Context(), shared.Client); err != nil {
		t.Fatal(err)
	}
}

// write sends a manifest with kubectl.
func write(t *testing.T, command, manifest string) writepath.Answer {
	t.Helper()
	return writepath.Kubectl(command).Write(t.Context(), shared.ControlPlane, manifest)
}

// try sends a release with kubectl without storing it.
func try(t *testing.T, manifest string) writepath.Answer {
	t.Helper()
	return writepath.Kubectl("create", "--dry-run=server").Write(t.Context(), shared.ControlPlane, manifest)
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

// Values that the schema of the chart accepts, and that it rejects.
const (
	good = "{user: airflow}"
	bad  = "{existingSecret: db, existingSecretKey: uri}"
)

// annotation returns an audit annotation of the webhook on the last write of the release in a namespace.
func annotation(t *testing.T, ns, name string) string {
	t.Helper()
	events, err := shared.ControlPlane.AuditEvents()
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
	value, err := shared.Webhook().Metric(t.Context(), name, labels...)
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
		t.Fatalf("waiting until %s: %v\n%s", what, err, shared.Webhook().LogTail())
	}
}
