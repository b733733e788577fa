package scale_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
)

const (
	// auditSizes is the environment variable with the numbers of objects of BenchmarkAudit, separated by commas.
	auditSizes        = "FLUX_ADMISSION_AUDIT_SIZES"
	defaultAuditSizes = "1000,10000"
	// failing is the share of objects with a finding: one of so many.
	failing = 100

	// maxReportBytes is the limit of all reports together in etcd, auditLimit that of the memory of a server with 100,000 objects.
	maxReportBytes = 5 << 20
	auditLimit     = 300 << 20
	// minute is the time within which a finding, or a repair, is in the reports.
	minute = time.Minute
)

// BenchmarkAudit has the webhook server audit clusters of different sizes, in which one of a hundred objects has a finding. It reports
// how long the first audit takes, the memory after it, the requests and writes at rest, the size of the reports, and what a repair
// takes. FLUX_ADMISSION_AUDIT_SIZES=100000 has a size that takes ten minutes to create and more memory than the limit.
func BenchmarkAudit(b *testing.B) {
	sizes := os.Getenv(auditSizes)
	if sizes == "" {
		sizes = defaultAuditSizes
	}
	e := startEnv(b, env.Options{
		ControlPlane: controlplane.Options{
			CRDSets: controlplane.DefaultCRDs(), CRDs: []string{"../audit/testdata/openreports.yaml"}, AuditUser: env.ServiceAccount,
		},
		Components: []string{"audit-events", "audit-reports"}, Args: []string{"--audit-events", "--audit-reports=openreports"},
	})
	stored := 0
	for size := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(size)
		if err != nil {
			b.Fatalf("%s=%s: %v", auditSizes, sizes, err)
		}
		b.Run(size, func(b *testing.B) {
			if err := e.Webhook().Stop(); err != nil {
				b.Fatal(err)
			}
			createAudited(b, e, stored, n)
			stored = n
			for b.Loop() {
				measureAudit(b, e, n)
			}
		})
	}
}

// createAudited creates Kustomizations until there are n. Those with a finding are in a namespace that the policy does not allow, and are not
// ready; the others are.
func createAudited(b *testing.B, e *env.Env, stored, n int) {
	b.Helper()
	for _, name := range []string{"flux-system", "misplaced"} {
		err := e.Client.Create(b.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		if client.IgnoreAlreadyExists(err) != nil {
			b.Fatal(err)
		}
	}
	source := object("source.toolkit.fluxcd.io/v1", "GitRepository", "flux-system", "fleet", map[string]any{"interval": "1h", "url": "https://git.invalid/fleet"})
	if stored == 0 {
		if err := createReady(b.Context(), e.Client, source); err != nil {
			b.Fatal(err)
		}
	}
	group, ctx := errgroup.WithContext(b.Context())
	group.SetLimit(32)
	for i := stored; i < n; i++ {
		name := fmt.Sprint("app-", i)
		group.Go(func() error {
			if i%failing == 0 {
				return e.Client.Create(ctx, audited("misplaced", name))
			}
			return createReady(ctx, e.Client, audited("flux-system", name))
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
}

// audited returns a small Kustomization.
func audited(namespace, name string) *unstructured.Unstructured {
	return object("kustomize.toolkit.fluxcd.io/v1", "Kustomization", namespace, name, map[string]any{
		"interval": "1h", "prune": true, "path": "./apps/" + name,
		"sourceRef": map[string]any{"kind": "GitRepository", "name": "fleet", "namespace": "flux-system"},
	})
}

func object(apiVersion, kind, namespace, name string, spec map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": apiVersion, "kind": kind, "metadata": map[string]any{"namespace": namespace, "name": name}, "spec": spec,
	}}
}

// measureAudit starts the webhook server and reports what its audit takes.
func measureAudit(b *testing.B, e *env.Env, n int) {
	b.Helper()
	if err := e.Webhook().Stop(); err != nil {
		b.Fatal(err)
	}
	if err := e.Client.Create(b.Context(), audited("misplaced", "repaired")); err != nil {
		b.Fatal(err)
	}
	begin := time.Now()
	if err := e.Webhook().Restart(b.Context()); err != nil {
		b.Fatal(err)
	}
	bad := (n+failing-1)/failing + 1
	err := wait.PollUntilContextTimeout(b.Context(), 500*time.Millisecond, 30*time.Minute, true, func(ctx context.Context) (bool, error) {
		complete, err := e.Webhook().Metric(ctx, "flux_admission_audit_complete_timestamp_seconds")
		return err == nil && complete > 0, nil
	})
	if err != nil {
		b.Fatalf("the audit is not complete: %v\n%s", err, e.Webhook().LogTail())
	}
	// The reports count what does not fit into them.
	waitCounted(b, e, bad, minute)
	first := time.Since(begin)
	evaluations := evaluationsOf(b, e)
	rest(b, settle)
	memory, err := e.Webhook().Memory()
	if err != nil {
		b.Fatal(err)
	}
	before := callsOf(b, e)
	rest(b, atRest)
	idle := callsOf(b, e)
	lists, writes := idle.lists-before.lists, idle.writes-before.writes
	size, _ := auditReports(b, e)

	repaired := time.Now()
	if err := e.Client.Delete(b.Context(), audited("misplaced", "repaired")); err != nil {
		b.Fatal(err)
	}
	waitCounted(b, e, bad-1, minute)
	repair := time.Since(repaired)
	again := evaluationsOf(b, e) - evaluations

	if lists > 0 || writes > int(atRest/time.Second) {
		b.Errorf("at rest: %d lists and %d writes in %s", lists, writes, atRest)
	}
	if size > maxReportBytes {
		b.Errorf("the reports have %d bytes, want at most %d", size, maxReportBytes)
	}
	if memory.Now > auditLimit {
		b.Errorf("the memory is %d bytes, want at most %d", memory.Now, auditLimit)
	}
	if again > 10 {
		b.Errorf("one repair took %v evaluations", again)
	}
	b.ReportMetric(float64(n), "objects")
	b.ReportMetric(first.Seconds(), "s/first-audit")
	b.ReportMetric(float64(lists), "idle-lists/min")
	b.ReportMetric(float64(writes)/atRest.Seconds(), "idle-writes/s")
	b.ReportMetric(float64(size)/(1<<10), "report-KiB")
	b.ReportMetric(repair.Seconds(), "s/repair")
	b.ReportMetric(again, "evaluations/repair")
	b.ReportMetric(float64(memory.Now)/(1<<20), "rss-MiB")
	b.ReportMetric(float64(memory.Peak)/(1<<20), "peak-MiB")
	b.ReportMetric(0, "ns/op")
}

// requests are numbers of requests of the webhook server.
type requests struct{ lists, writes int }

func callsOf(b *testing.B, e *env.Env) requests {
	b.Helper()
	events, err := e.ControlPlane.CallsOf(env.ServiceAccount)
	if err != nil {
		b.Fatal(err)
	}
	var out requests
	for i := range events {
		ref := events[i].ObjectRef
		if ref != nil && ref.Resource == "leases" {
			continue // the leader and the replicas: the same whatever the number of objects
		}
		switch events[i].Verb {
		case "list":
			out.lists++
		case "create", "update", "patch", "delete":
			out.writes++
		}
	}
	return out
}

func evaluationsOf(b *testing.B, e *env.Env) float64 {
	b.Helper()
	n, err := e.Webhook().Metric(b.Context(), "flux_admission_audit_evaluations_total")
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// auditReports returns the size of all reports and the number of findings that would be denied.
func auditReports(b *testing.B, e *env.Env) (size, denied int) {
	b.Helper()
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(schema.GroupVersionKind{Group: "openreports.io", Version: "v1alpha1", Kind: "ReportList"})
	if err := e.Client.List(b.Context(), list, client.InNamespace(env.Namespace)); err != nil {
		b.Fatal(err)
	}
	for i := range list.Items {
		data, err := json.Marshal(list.Items[i].Object)
		if err != nil {
			b.Fatal(err)
		}
		size += len(data)
		n, _, _ := unstructured.NestedInt64(list.Items[i].Object, "summary", "fail")
		denied += int(n)
	}
	return size, denied
}

// waitCounted waits until the reports count as many findings that would be denied.
func waitCounted(b *testing.B, e *env.Env, want int, within time.Duration) {
	b.Helper()
	got := 0
	err := wait.PollUntilContextTimeout(b.Context(), 500*time.Millisecond, within, true, func(context.Context) (bool, error) {
		_, got = auditReports(b, e)
		return got == want, nil
	})
	if err != nil {
		b.Fatalf("the reports have %d findings, want %d: %v\n%s", got, want, err, e.Webhook().LogTail())
	}
}
