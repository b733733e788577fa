// Package webhook_test tests on a real API server which writes the webhooks receive, and that no admission fails while
// a certificate, a policy or a webhook server is replaced.
package webhook_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	admissionregv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
)

// shared is the environment of all tests of the package: two webhook servers behind a load balancer, as two Pods behind
// a Service.
var shared *env.Env

// serveArgs make certificates expire soon, so that they are renewed and the CA is rotated while the tests run.
var serveArgs = []string{"--leaf-duration=9s", "--ca-duration=40s", "--shutdown-delay=2s"}

func TestMain(m *testing.M) {
	os.Exit(env.Main(m, env.Options{
		ControlPlane: controlplane.Options{CRDSets: controlplane.DefaultCRDs()},
		Replicas:     2,
		Resources:    []string{env.MutatingWebhook},
		Args:         serveArgs,
		// With Ignore, a call that fails would be an admitted write.
		FailurePolicy: admissionregv1.Fail,
	}, func(ctx context.Context, e *env.Env) error {
		shared = e
		if err := e.Client.Create(ctx, gitRepository("flux-system", "x")); err != nil {
			return fmt.Errorf("creating the source of the Kustomizations: %w", err)
		}
		return nil
	}))
}

// gitRepository returns the source that every Kustomization of these tests refers to.
func gitRepository(namespace, name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
		"metadata": map[string]any{"namespace": namespace, "name": name},
		"spec":     map[string]any{"interval": "10m", "url": "https://git.example.com/x.git"},
	}}
}

// kustomization returns a Flux Kustomization. No rule reports it in flux-system; KS001 does in any other namespace.
func kustomization(namespace, name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
		"metadata": map[string]any{"namespace": namespace, "name": name},
		"spec": map[string]any{
			"interval": "10m", "path": "./x", "prune": true, "sourceRef": map[string]any{"kind": "GitRepository", "name": "x"},
		},
	}}
}
