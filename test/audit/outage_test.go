package audit_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
)

// slow is the delay of each request of the webhook servers that makes an audit of many objects long.
const slow = 200 * time.Millisecond

// manyWithMistakes returns 300 Kustomizations, ten of them misplaced in a namespace, and what the reports have of them. The namespace
// stays in deletion after the test, since nothing here ends that.
func manyWithMistakes(namespace string) (manifest string, want []string) {
	var b strings.Builder
	fmt.Fprintf(&b, fleetSources, namespace)
	for i := range 290 {
		fmt.Fprintf(&b, kustomization, "flux-system", fmt.Sprintf("many-%d", i), "")
	}
	for i := range 10 {
		fmt.Fprintf(&b, kustomization, namespace, fmt.Sprintf("misplaced-%d", i), "")
		want = append(want, fmt.Sprintf("fail KS001 %s/misplaced-%d", namespace, i))
	}
	slices.Sort(want)
	return b.String(), want
}

// watchReports reads the reports again and again until stop is called, and reports an error when they do not have exactly these
// results: a gap, or a result twice.
func watchReports(t *testing.T, want []string) (stop func()) {
	t.Helper()
	client, done := reports(t), make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(500 * time.Millisecond):
			}
			list, err := client.List(t.Context(), metav1.ListOptions{})
			if err != nil {
				continue
			}
			if diff := cmp.Diff(want, resultLines(list.Items)); diff != "" {
				t.Errorf("the reports have changed (-want +got):\n%s", diff)
				return
			}
		}
	})
	return func() {
		close(done)
		watching.Wait()
	}
}

// evaluated returns how many objects a webhook server has evaluated.
func evaluated(t *testing.T, w *env.Webhook) float64 {
	t.Helper()
	n, err := w.Metric(t.Context(), "flux_admission_audit_evaluations_total")
	if err != nil {
		return 0
	}
	return n
}

// TestLeaderKilledInAudit kills the leader while it evaluates all objects for the first time. The reports of the leader before it stay,
// without a gap and without duplicates, and the next leader corrects them.
func TestLeaderKilledInAudit(t *testing.T) {
	manifest, want := manyWithMistakes("killed")
	writeUnseen(t, manifest)
	waitReported(t, minute, want...)
	stop := watchReports(t, want)
	t.Cleanup(func() { shared.Proxy.Delay(0) })

	first := leader(t)
	shared.Proxy.Delay(slow)
	if err := first.Kill(); err != nil {
		t.Fatal(err)
	}
	second := shared.Webhooks[0]
	if second == first {
		second = shared.Webhooks[1]
	}
	before := evaluated(t, second)
	eventually(t, 2*minute, func() string {
		if n := evaluated(t, second) - before; n < 10 {
			return fmt.Sprintf("the next leader has evaluated %v objects", n)
		}
		return ""
	})
	if n := evaluated(t, second) - before; n > 200 {
		t.Fatalf("the audit is nearly done: %v objects", n)
	}
	if complete, err := second.Metric(t.Context(), "flux_admission_audit_complete_timestamp_seconds"); err != nil || complete != 0 {
		t.Fatalf("the audit of the next leader is complete: %v, %v", complete, err)
	}
	if err := second.Kill(); err != nil {
		t.Fatal(err)
	}
	shared.Proxy.Delay(0)
	if err := first.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, 2*minute, func() string {
		if complete, err := first.Metric(t.Context(), "flux_admission_audit_complete_timestamp_seconds"); err != nil || complete == 0 {
			return fmt.Sprintf("the last leader's audit is not complete: %v, %v", complete, err)
		}
		return ""
	})
	if err := second.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	kubectl(t, "", "delete", "kustomization.kustomize.toolkit.fluxcd.io", "-n", "killed", "misplaced-0", "--wait=false")
	waitReported(t, minute, want[1:]...)
}

// TestAPIServerGone stops the API server until no replica leads any longer. What is written right after its start is reported within a
// minute, beside what was reported before.
func TestAPIServerGone(t *testing.T) {
	manifest, want := manyWithMistakes("gone")
	writeUnseen(t, manifest)
	waitReported(t, minute, want...)
	if err := shared.ControlPlane.Crash(t.Context(), controlplane.APIServer); err != nil {
		t.Fatal(err)
	}
	eventually(t, 2*minute, func() string {
		for _, w := range shared.Webhooks {
			if active, err := w.Metric(t.Context(), "flux_admission_audit_active"); err != nil || active != 0 {
				return fmt.Sprintf("a replica still audits: %v, %v", active, err)
			}
		}
		return ""
	})
	if err := shared.ControlPlane.Restart(t.Context(), controlplane.APIServer); err != nil {
		t.Fatal(err)
	}
	kubectl(t, fmt.Sprintf(release, "gone", "after", "dependsOn: [{name: missing}]"), "apply", "-f", "-")
	waitReported(t, minute, append(slices.Clone(want), "warn HR006 gone/after")...)
	kubectl(t, "", "delete", "helmrelease", "-n", "gone", "after", "--wait=false")
	waitReported(t, minute, want...)
}

// restartAll restarts the webhook servers with arguments, and without them at the end.
func restartAll(t *testing.T, args ...string) {
	t.Helper()
	restart := func(ctx context.Context, args ...string) {
		for _, w := range shared.Webhooks {
			if err := errors.Join(w.Stop(), w.Restart(ctx, args...)); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(func() { restart(context.WithoutCancel(t.Context())) })
	restart(t.Context(), args...)
}

// TestPolicyFile has the webhook servers read the policy from a file: one of them audits, and another one when that ends.
func TestPolicyFile(t *testing.T) {
	file, err := filepath.Abs("../../manifests/policy/default.yaml")
	if err != nil {
		t.Fatal(err)
	}
	restartAll(t, "--policy="+file)
	auditing := func() (out []*env.Webhook) {
		for _, w := range shared.Webhooks {
			if active, err := w.Metric(t.Context(), "flux_admission_audit_active"); err == nil && active == 1 {
				out = append(out, w)
			}
		}
		return out
	}
	eventually(t, minute, func() string {
		if n := len(auditing()); n != 1 {
			return fmt.Sprintf("%d replicas audit, want 1", n)
		}
		return ""
	})
	first := auditing()[0]
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, minute, func() string {
		if list := auditing(); len(list) != 1 || list[0] == first {
			return fmt.Sprintf("%d replicas audit after the end of the first", len(list))
		}
		return ""
	})
	if err := first.Restart(t.Context(), "--policy="+file); err != nil {
		t.Fatal(err)
	}
	if n := len(auditing()); n != 1 {
		t.Errorf("%d replicas audit, want 1", n)
	}
}
