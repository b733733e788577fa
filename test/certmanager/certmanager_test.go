//go:build e2e

// Package certmanager_test runs the component cert-manager with cert-manager's own controllers and cainjector.
package certmanager_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	admissionregv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
)

// mountDelay is how long the webhook servers have the old certificate after a renewal. A kubelet takes up to 90 seconds.
const mountDelay = 4 * time.Second

// waitTimeout is for a machine that is busy with other tests.
const waitTimeout = 2 * time.Minute

var shared *env.Env

func TestMain(m *testing.M) {
	os.Exit(env.Main(m, env.Options{
		ControlPlane: controlplane.Options{CRDSets: controlplane.DefaultCRDs()},
		Replicas:     2,
		Resources:    []string{env.MutatingWebhook},
		CertManager:  true,
		MountDelay:   mountDelay,
		// With Ignore, a call that fails would be an admitted write.
		FailurePolicy: admissionregv1.Fail,
	}, func(ctx context.Context, e *env.Env) error {
		shared = e
		return waitInjected(ctx)
	}))
}

// waitInjected waits until the cainjector has written the caBundle of every webhook, and the API server has read it.
func waitInjected(ctx context.Context) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, waitTimeout, true, func(ctx context.Context) (bool, error) {
		last = shared.Client.Create(ctx, kustomization("flux-system", "good"), client.DryRunAll)
		return last == nil, nil
	})
	if err != nil {
		log, _ := os.ReadFile(shared.CertManager.Log())
		return fmt.Errorf("waiting for the caBundle: %w (%w)\n%s", err, last, log)
	}
	return nil
}

func kustomization(namespace, name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
		"metadata": map[string]any{"namespace": namespace, "name": name},
		"spec": map[string]any{
			"interval": "10m", "path": "./x", "prune": true, "sourceRef": map[string]any{"kind": "GitRepository", "name": "x"},
		},
	}}
}

// certificates returns the certificate in a Secret and the CA beside it.
func certificates(t *testing.T, name string) (certificate, ca *x509.Certificate) {
	t.Helper()
	var s corev1.Secret
	if err := shared.Client.Get(t.Context(), client.ObjectKey{Namespace: env.Namespace, Name: name}, &s); err != nil {
		t.Fatal(err)
	}
	parse := func(data []byte) *x509.Certificate {
		block, _ := pem.Decode(data)
		if block == nil {
			t.Fatalf("the Secret %s has no certificate", name)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	return parse(s.Data[corev1.TLSCertKey]), parse(s.Data["ca.crt"])
}

// bundles returns the caBundle of every webhook.
func bundles(t *testing.T) [][]byte {
	t.Helper()
	var v admissionregv1.ValidatingWebhookConfiguration
	var m admissionregv1.MutatingWebhookConfiguration
	for _, o := range []client.Object{&v, &m} {
		if err := shared.Client.Get(t.Context(), client.ObjectKey{Name: "flux-admission"}, o); err != nil {
			t.Fatal(err)
		}
	}
	var out [][]byte
	for _, w := range v.Webhooks {
		out = append(out, w.ClientConfig.CABundle)
	}
	for _, w := range m.Webhooks {
		out = append(out, w.ClientConfig.CABundle)
	}
	return out
}

// renew renews a Certificate as `cmctl renew` does, and waits until its Secret has another one.
func renew(t *testing.T, name, secret string) {
	t.Helper()
	before, _ := certificates(t, secret)
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(schema.GroupVersionKind{Group: "cert-manager.io", Version: "v1", Kind: "Certificate"})
	if err := shared.Client.Get(t.Context(), client.ObjectKey{Namespace: env.Namespace, Name: name}, o); err != nil {
		t.Fatal(err)
	}
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	conditions = append(conditions, map[string]any{
		"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "a test renews it",
		"lastTransitionTime": metav1.Now().UTC().Format(time.RFC3339), "observedGeneration": o.GetGeneration(),
	})
	if err := unstructured.SetNestedSlice(o.Object, conditions, "status", "conditions"); err != nil {
		t.Fatal(err)
	}
	if err := shared.Client.Status().Update(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	until(t, "the certificate in "+secret+" to be renewed", func() bool {
		now, _ := certificates(t, secret)
		return !now.Equal(before)
	})
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, waitTimeout, true, func(context.Context) (bool, error) {
		return done(), nil
	})
	if err != nil {
		log, _ := os.ReadFile(shared.CertManager.Log())
		t.Fatalf("waiting for %s: %v\n%s", what, err, log)
	}
}

// load writes a good and a bad object by dry-run, over and over, until end. Each good one must be admitted, and each bad one
// denied by KS001.
type load struct {
	stop func()

	mu       sync.Mutex
	writes   int
	failures []string
}

func startLoad(t *testing.T) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{}
	var running sync.WaitGroup
	l.stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(l.stop)
	running.Go(func() {
		for ctx.Err() == nil {
			good := shared.Client.Create(ctx, kustomization("flux-system", "good"), client.DryRunAll)
			bad := shared.Client.Create(ctx, kustomization("default", "bad"), client.DryRunAll)
			if ctx.Err() != nil {
				return
			}
			l.mu.Lock()
			l.writes++
			if good != nil {
				l.failures = append(l.failures, fmt.Sprintf("%s a good object: %v", time.Now().Format(time.TimeOnly), good))
			}
			if bad == nil || !strings.Contains(bad.Error(), "KS001") {
				l.failures = append(l.failures, fmt.Sprintf("%s a bad object: %v", time.Now().Format(time.TimeOnly), bad))
			}
			l.mu.Unlock()
		}
	})
	return l
}

func (l *load) end(t *testing.T) {
	t.Helper()
	l.stop()
	t.Logf("%d writes of each kind, %d failed", l.writes, len(l.failures))
	if l.writes == 0 {
		t.Error("nothing was written")
	}
	for _, f := range l.failures[:min(len(l.failures), 5)] {
		t.Error(f)
	}
}

// served waits until every webhook server serves the certificate that is in the Secret.
func served(t *testing.T) {
	t.Helper()
	leaf, _ := certificates(t, "flux-admission-tls")
	for i, w := range shared.Webhooks {
		until(t, fmt.Sprintf("webhook server %d to serve the renewed certificate", i), func() bool {
			got, err := w.Certificate(t.Context())
			return err == nil && got.Equal(leaf)
		})
	}
}

// The certificate of the component is issued by a CA that outlives it, and the cainjector writes that CA.
func TestCertManager_Issues(t *testing.T) {
	root, self := certificates(t, "flux-admission-root-ca")
	leaf, ca := certificates(t, "flux-admission-tls")
	if !root.IsCA || !root.Equal(self) || !ca.Equal(root) || leaf.IsCA {
		t.Error("the certificate is not issued by the self-signed CA")
	}
	if err := leaf.CheckSignatureFrom(root); err != nil {
		t.Error(err)
	}
	if life := root.NotAfter.Sub(leaf.NotAfter); life < 8*365*24*time.Hour {
		t.Errorf("the CA outlives the certificate by %s only", life)
	}
	want := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})
	for _, b := range bundles(t) {
		if !bytes.Equal(b, want) {
			t.Errorf("a caBundle is not the CA:\n%s", b)
		}
	}
	served(t)
	err := shared.Client.Create(t.Context(), kustomization("default", "bad"), client.DryRunAll)
	if err == nil || !strings.Contains(err.Error(), "KS001") {
		t.Errorf("a bad object: %v, want a denial by KS001", err)
	}
}

// While the certificate is renewed, and the webhook servers do not have the new one yet, every write is reviewed.
func TestCertManager_RenewalOfTheCertificate(t *testing.T) {
	before := bundles(t)
	l := startLoad(t)
	for range 2 {
		renew(t, "flux-admission", "flux-admission-tls")
		served(t)
	}
	l.end(t)
	for i, b := range bundles(t) {
		if !bytes.Equal(b, before[i]) {
			t.Error("a caBundle changed with the certificate")
		}
	}
}

// A renewed CA keeps its key: the certificate that it signed before is valid until it is renewed, too.
func TestCertManager_RenewalOfTheCA(t *testing.T) {
	first, _ := certificates(t, "flux-admission-root-ca")
	before := bundles(t)
	l := startLoad(t)
	renew(t, "flux-admission-root-ca", "flux-admission-root-ca")
	second, _ := certificates(t, "flux-admission-root-ca")
	if !bytes.Equal(first.RawSubjectPublicKeyInfo, second.RawSubjectPublicKeyInfo) {
		t.Error("the CA has another key")
	}
	renew(t, "flux-admission", "flux-admission-tls")
	until(t, "the cainjector to write the new CA", func() bool { return !bytes.Equal(bundles(t)[0], before[0]) })
	served(t)
	l.end(t)
}
