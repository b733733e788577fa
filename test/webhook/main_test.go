// Package webhook_test proves on a real API server what the webhooks promise to it: which writes are asked about, and that no admission fails while
// a certificate, a policy or a server is replaced.
package webhook_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	admissionregv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
)

// shared is what all tests of the package share: two gates behind a balancer, as two Pods behind a Service.
var shared struct {
	cp       *controlplane.ControlPlane
	client   client.Client
	balancer *balancer
	options  [2]env.Options
	gates    [2]*env.Gate
}

// Short lives, so that certificates are renewed and the CA is rotated while the tests run.
var lives = []string{"--leaf-duration=9s", "--ca-duration=40s", "--shutdown-delay=2s"}

func TestMain(m *testing.M) {
	os.Exit(controlplane.Main(m, controlplane.Options{CRDSets: controlplane.DefaultCRDs()}, setUp))
}

func setUp(cp *controlplane.ControlPlane) error {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	shared.cp = cp
	var err error
	if shared.client, err = client.New(cp.Config(), client.Options{Scheme: scheme.Scheme}); err != nil {
		return err
	}
	binary, err := env.Build(ctx, cp.Dir())
	if err != nil {
		return err
	}
	if shared.balancer, err = newBalancer(); err != nil {
		return err
	}
	if err := env.Install(ctx, cp, shared.balancer.address()); err != nil {
		return err
	}
	if err := failClosed(ctx); err != nil {
		return err
	}
	for i := range shared.gates {
		shared.options[i] = env.Options{Binary: binary, Name: fmt.Sprintf("gate-%d", i), Args: lives}
		if shared.gates[i], err = env.Start(ctx, cp, shared.options[i]); err != nil {
			return err
		}
		shared.options[i].Address = shared.gates[i].Address
		shared.balancer.add(shared.gates[i])
	}
	flux := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "flux-system"}}
	if err := shared.client.Create(ctx, flux); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	if err := shared.client.Create(ctx, gitRepository("flux-system", "x")); err != nil {
		return fmt.Errorf("creating the source of the Kustomizations: %w", err)
	}
	return shared.balancer.wait(ctx, 2)
}

// failClosed makes a call that fails visible: with failurePolicy Ignore the write would go through.
func failClosed(ctx context.Context) error {
	fail := admissionregv1.Fail
	var v admissionregv1.ValidatingWebhookConfiguration
	var m admissionregv1.MutatingWebhookConfiguration
	key := client.ObjectKey{Name: "flux-admission"}
	if err := shared.client.Get(ctx, key, &v); err != nil {
		return err
	}
	if err := shared.client.Get(ctx, key, &m); err != nil {
		return err
	}
	for i := range v.Webhooks {
		v.Webhooks[i].FailurePolicy = &fail
	}
	for i := range m.Webhooks {
		m.Webhooks[i].FailurePolicy = &fail
	}
	if err := shared.client.Update(ctx, &v); err != nil {
		return err
	}
	return shared.client.Update(ctx, &m)
}

// gitRepository is the source that every Kustomization here refers to.
func gitRepository(namespace, name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
		"metadata": map[string]any{"namespace": namespace, "name": name},
		"spec":     map[string]any{"interval": "10m", "url": "https://git.example.com/x.git"},
	}}
}

// kustomization is a Flux Kustomization that no rule complains about in flux-system, and one in any other namespace.
func kustomization(namespace, name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
		"metadata": map[string]any{"namespace": namespace, "name": name},
		"spec": map[string]any{
			"interval": "10m", "path": "./x", "prune": true, "sourceRef": map[string]any{"kind": "GitRepository", "name": "x"},
		},
	}}
}
