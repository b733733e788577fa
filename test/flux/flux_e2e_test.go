//go:build e2e

package flux_test

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/flux"
	"github.com/flux-admission/flux-admission/test/gitserver"
)

// reconcileTimeout is long: the two controllers share the machine with others.
const reconcileTimeout = 2 * time.Minute

func TestStart_AppliesCommits(t *testing.T) {
	f, err := flux.Start(t.Context(), flux.Options{Plane: plane, LogDir: t.TempDir(), Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Stop(); err != nil {
			t.Error(err)
		}
	})
	repository, err := gitserver.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := repository.Close(); err != nil {
			t.Error(err)
		}
	})
	configMap := func(value string) map[string]string {
		return map[string]string{"apps/settings.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: default}\ndata: {value: " + value + "}\n"}
	}
	first, err := repository.Commit(t.Context(), configMap("one"), "first")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := plane.Kubectl(t.Context(), strings.NewReader(`apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: tree, namespace: flux-system}
spec: {interval: 1h, url: "`+repository.URL()+`", ref: {branch: main}}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: apps, namespace: flux-system}
spec: {interval: 1h, retryInterval: 5s, prune: true, path: ./apps, sourceRef: {kind: GitRepository, name: tree}}
`), "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	requireApplied(t, f, first, "one")

	second, err := repository.Commit(t.Context(), configMap("two"), "second")
	if err != nil {
		t.Fatal(err)
	}
	if err := flux.Reconcile(t.Context(), newClient(t), flux.GitRepository(flux.Namespace, "tree")); err != nil {
		t.Fatal(err)
	}
	requireApplied(t, f, second, "two")

	if err := f.Source().Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-f.Source().Ended()
	if err := f.Source().Failure(); !strings.HasPrefix(err.Error(), "source-controller ended: ") {
		t.Errorf("got %v", err)
	}
}

func requireApplied(t *testing.T, f *flux.Flux, commit, value string) {
	t.Helper()
	c := newClient(t)
	if _, err := flux.WaitFor(t.Context(), c, flux.Kustomization(flux.Namespace, "apps"), flux.Ready(commit), reconcileTimeout); err != nil {
		log, readErr := os.ReadFile(f.Kustomize().Log())
		t.Fatalf("%v\n%s%v", err, log, readErr)
	}
	var stored corev1.ConfigMap
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "settings"}, &stored); err != nil {
		t.Fatal(err)
	}
	if got := stored.Data["value"]; got != value {
		t.Errorf("the ConfigMap holds %q, want %q", got, value)
	}
}
