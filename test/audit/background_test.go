package audit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/test/env"
)

// reports returns the client of the reports.
func reports(t *testing.T) dynamic.ResourceInterface {
	t.Helper()
	c, err := dynamic.NewForConfig(shared.ControlPlane.Config())
	if err != nil {
		t.Fatal(err)
	}
	return c.Resource(schema.GroupVersionResource{Group: "openreports.io", Version: "v1alpha1", Resource: "reports"}).Namespace(env.Namespace)
}

// reportObjects returns all reports.
func reportObjects(t *testing.T) []unstructured.Unstructured {
	t.Helper()
	list, err := reports(t).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list.Items {
		if data, err := json.Marshal(r.Object); err != nil || len(data) > 300<<10 {
			t.Errorf("report %s has %d bytes: %v", r.GetName(), len(data), err)
		}
	}
	return list.Items
}

// reported returns the results of all reports as "RESULT RULE NAMESPACE/NAME", sorted, and the number of reports.
func reported(t *testing.T) (lines []string, objects int) {
	t.Helper()
	list := reportObjects(t)
	return resultLines(list), len(list)
}

// resultLines returns the findings of reports as "RESULT RULE NAMESPACE/NAME", sorted. Roots and namespaces whose deletion does not end are
// left out: nothing in the test control plane ends the deletion of the namespaces of earlier tests.
func resultLines(list []unstructured.Unstructured) []string {
	var out []string
	for _, one := range resultsOf(list) {
		if one["rule"] == "delivery-root" || one["rule"] == "HE003" {
			continue
		}
		resource := one["resources"].([]any)[0].(map[string]any)
		out = append(out, fmt.Sprintf("%s %s %s/%s", one["result"], one["rule"], resource["namespace"], resource["name"]))
	}
	slices.Sort(out)
	return out
}

// resultsOf returns the results of reports.
func resultsOf(list []unstructured.Unstructured) []map[string]any {
	var out []map[string]any
	for _, r := range list {
		items, _, _ := unstructured.NestedSlice(r.Object, "results")
		for _, item := range items {
			out = append(out, item.(map[string]any))
		}
	}
	return out
}

// waitReported waits until the reports have exactly these findings; without any, until there is no report but those of roots.
func waitReported(t *testing.T, within time.Duration, want ...string) {
	t.Helper()
	slices.Sort(want)
	deadline := time.Now().Add(within)
	for {
		got, objects := reported(t)
		if slices.Equal(want, got) && (len(want) > 0 || objects == 0 || len(resultsOf(reportObjects(t))) > 0) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s, results of %d reports (-want +got):\n%s\n%s", within, objects, cmp.Diff(want, got), shared.Webhook().LogTail())
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

const kustomization = `---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: %[2]s, namespace: %[1]s}
spec: {interval: 10m, path: ./a, prune: true, sourceRef: {kind: GitRepository, name: fleet, namespace: flux-system}%[3]s}
`

const release = `---
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  interval: 1h
  chart: {spec: {chart: web, version: "1.0.0", sourceRef: {kind: HelmRepository, name: charts, namespace: %[1]s}}}
  %[3]s
`

const fleetSources = `apiVersion: v1
kind: Namespace
metadata: {name: %[1]s}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: fleet, namespace: flux-system}
spec: {interval: 1m, url: "https://git.invalid/fleet"}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmRepository
metadata: {name: charts, namespace: %[1]s}
spec: {interval: 1h, url: "https://charts.invalid"}
`

// minute is the time within which what was written during an outage must be reported.
const minute = time.Minute

// TestBackground has 200 Kustomizations and 200 HelmReleases, ten of them bad, that were written while no webhook server was there.
func TestBackground(t *testing.T) {
	var fleet strings.Builder
	fmt.Fprintf(&fleet, fleetSources, "fleet")
	for i := range 195 {
		fmt.Fprintf(&fleet, kustomization, "flux-system", fmt.Sprintf("good-%d", i), "")
		fmt.Fprintf(&fleet, release, "fleet", fmt.Sprintf("good-%d", i), "")
	}
	var want []string
	for i := range 3 {
		fmt.Fprintf(&fleet, kustomization, "fleet", fmt.Sprintf("misplaced-%d", i), "")
		want = append(want, fmt.Sprintf("fail KS001 fleet/misplaced-%d", i))
	}
	for i := range 2 {
		fmt.Fprintf(&fleet, kustomization, "flux-system", fmt.Sprintf("waiting-%d", i), ", dependsOn: [{name: missing}]")
		want = append(want, fmt.Sprintf("warn KS003 flux-system/waiting-%d", i))
	}
	for i := range 3 {
		fmt.Fprintf(&fleet, release, "fleet", fmt.Sprintf("waiting-%d", i), "dependsOn: [{name: missing}]")
		want = append(want, fmt.Sprintf("warn HR006 fleet/waiting-%d", i))
	}
	fmt.Fprintf(&fleet, release, "fleet", "values", "valuesFrom: [{kind: ConfigMap, name: missing}]")
	fmt.Fprintf(&fleet, release, "fleet", "zz-shared", "releaseName: good-0")
	want = append(want, "warn HR004 fleet/values", "warn HR011 fleet/zz-shared")

	writeUnseen(t, fleet.String())
	waitReported(t, minute, want...)
	eventually(t, 2*minute, func() string { return summaryDiffers(t, 3, 7) })
	for i := range 3 {
		kubectl(t, "", "delete", "kustomization.kustomize.toolkit.fluxcd.io", "-n", "fleet", fmt.Sprintf("misplaced-%d", i), "--wait=false")
		want = slices.DeleteFunc(want, func(r string) bool { return r == fmt.Sprintf("fail KS001 fleet/misplaced-%d", i) })
		waitReported(t, minute, want...)
	}

	t.Run("a deleted report is restored", func(t *testing.T) {
		list, err := reports(t).List(t.Context(), metav1.ListOptions{})
		if err != nil || len(list.Items) == 0 {
			t.Fatal(len(list.Items), err)
		}
		for _, r := range list.Items {
			if err := reports(t).Delete(t.Context(), r.GetName(), metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		waitReported(t, minute, want...)
	})
	t.Run("an edited report is restored", func(t *testing.T) {
		list, err := reports(t).List(t.Context(), metav1.ListOptions{})
		if err != nil || len(list.Items) == 0 {
			t.Fatal(len(list.Items), err)
		}
		_, err = reports(t).Patch(t.Context(), list.Items[0].GetName(), types.MergePatchType, []byte(`{"results": []}`), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		waitReported(t, minute, want...)
	})
	t.Run("the leader is killed", func(t *testing.T) {
		leader := leader(t)
		if err := leader.Kill(); err != nil {
			t.Fatal(err)
		}
		kubectl(t, fmt.Sprintf(release, "fleet", "late", "dependsOn: [{name: missing}]"), "apply", "-f", "-")
		waitReported(t, 2*minute, append(slices.Clone(want), "warn HR006 fleet/late")...)
		if err := leader.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		kubectl(t, "", "delete", "helmrelease", "-n", "fleet", "late", "--wait=false")
		waitReported(t, minute, want...)
	})

	// What the others depend on is created: they are evaluated again.
	kubectl(t, fmt.Sprintf(kustomization, "flux-system", "missing", ""), "apply", "-f", "-")
	want = without(want, "KS003")
	waitReported(t, minute, want...)
	kubectl(t, fmt.Sprintf(release, "fleet", "missing", ""), "apply", "-f", "-")
	want = without(want, "HR006")
	waitReported(t, minute, want...)
	kubectl(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: missing, namespace: fleet}\ndata: {values.yaml: \"{}\"}\n", "apply", "-f", "-")
	want = without(want, "HR004")
	waitReported(t, minute, want...)
	kubectl(t, "", "delete", "helmrelease", "-n", "fleet", "good-0", "--wait=false")
	waitReported(t, minute) // gone
	kubectl(t, "", "delete", "helmrelease", "-n", "fleet", "missing", "--wait=false")
	waitReported(t, minute, "warn HR006 fleet/waiting-0", "warn HR006 fleet/waiting-1", "warn HR006 fleet/waiting-2")
	kubectl(t, "", "delete", "kustomization.kustomize.toolkit.fluxcd.io", "-n", "flux-system", "missing", "--wait=false")
}

// summaryDiffers compares the summary in the status of the AdmissionPolicy; empty if it has these numbers of findings.
func summaryDiffers(t *testing.T, deny, warn int64) string {
	t.Helper()
	stdout, stderr, err := shared.ControlPlane.Kubectl(t.Context(), nil, "get", "admissionpolicy", "default", "-o", "json")
	if err != nil {
		t.Fatal(err, stderr)
	}
	var policy v1alpha1.AdmissionPolicy
	if err := json.Unmarshal([]byte(stdout), &policy); err != nil {
		t.Fatal(err)
	}
	s := policy.Status.Audit
	if s == nil {
		return "the AdmissionPolicy has no summary of the audit"
	}
	want := v1alpha1.AuditCounts{Deny: deny, Warn: warn}
	var rules, namespaces v1alpha1.AuditCounts
	for _, c := range s.Rules {
		rules = v1alpha1.AuditCounts{Deny: rules.Deny + c.Deny, Warn: rules.Warn + c.Warn, Audit: rules.Audit + c.Audit}
	}
	for _, c := range s.Namespaces {
		namespaces = v1alpha1.AuditCounts{Deny: namespaces.Deny + c.Deny, Warn: namespaces.Warn + c.Warn, Audit: namespaces.Audit + c.Audit}
	}
	if s.Findings != want || rules != want || namespaces != want || s.LastCompleteTime.IsZero() || s.Objects < 400 {
		return fmt.Sprintf("the summary is %+v, want %+v", s, want)
	}
	if s.Rules[0].Name != "kustomization-namespace" || s.Rules[0].Deny != deny {
		return fmt.Sprintf("the first rule is %+v", s.Rules[0])
	}
	return ""
}

func without(results []string, rule string) []string {
	return slices.DeleteFunc(slices.Clone(results), func(r string) bool { return strings.Contains(r, " "+rule+" ") })
}

// leader returns the webhook server that leads.
func leader(t *testing.T) *env.Webhook {
	t.Helper()
	for _, w := range shared.Webhooks {
		if active, err := w.Metric(t.Context(), "flux_admission_audit_active"); err == nil && active == 1 {
			return w
		}
	}
	t.Fatal("no webhook server audits")
	return nil
}

func kubectl(t *testing.T, stdin string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, stderr, err := shared.ControlPlane.Kubectl(ctx, strings.NewReader(stdin), args...); err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
}
