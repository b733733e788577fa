//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/test/flux"
)

// airflow returns a release of the chart airflow. What more has is in its spec.
func airflow(ns, name, version, more string) string {
	return fmt.Sprintf(`apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  interval: 1h
  releaseName: %[1]s
  chart: {spec: {chart: airflow, version: %[3]q, interval: 1h, sourceRef: {kind: HelmRepository, name: airflow}}}
%[4]s`, name, ns, version, more)
}

// charts creates a namespace with the repository of the chart airflow.
func charts(t *testing.T) string {
	t.Helper()
	ns := shared.Namespace(t, "releases-")
	apply(t, helmRepository(ns))
	t.Cleanup(func() {
		// What is left behind would be a root of the tests that follow.
		ctx := context.WithoutCancel(t.Context())
		if _, _, err := shared.ControlPlane.Kubectl(ctx, nil, "delete", "helmreleases.helm.toolkit.fluxcd.io", "--all", "-n", ns, "--timeout=60s"); err != nil {
			t.Error(err)
		}
	})
	return ns
}

// waitForChart waits until the webhook has read the chart: until then it allows what it cannot know.
func waitForChart(t *testing.T, ns string) {
	t.Helper()
	manifest := airflow(ns, "probe", "1.x", "  values: {nosuch: key}\n")
	err := wait.PollUntilContextTimeout(t.Context(), time.Second, reconcileTimeout, true, func(ctx context.Context) (bool, error) {
		_, stderr, err := shared.ControlPlane.Kubectl(ctx, strings.NewReader(manifest), "apply", "--dry-run=server", "-f", "-")
		return err != nil && strings.Contains(stderr, "HR001"), nil
	})
	if err != nil {
		t.Fatalf("waiting until the webhook denies values: %v\n%s", err, shared.Webhook().LogTail())
	}
}

// The webhook denies the values that helm-controller cannot install, and no others.
func TestRelease_VerdictOfHelmController(t *testing.T) {
	setPolicy(t, "Enforce")
	ns := charts(t)
	apply(t, fmt.Sprintf(`apiVersion: v1
kind: ConfigMap
metadata: {name: values, namespace: %s}
data: {good: "workers: {replicas: 2}", bad: "workers: {replicas: two}", port: "5432", word: "'5432'"}
`, ns))
	cases := map[string]struct {
		spec    string
		refused bool
	}{
		"defaults":                {"", false},
		"empty":                   {"  values: {}\n", false},
		"every-key-right":         {"  values: {executor: LocalExecutor, workers: {replicas: 0}, data: {metadataConnection: {port: 1}}}\n", false},
		"unknown-key":             {"  values: {exekutor: LocalExecutor}\n", true},
		"unknown-nested-key":      {"  values: {data: {metadataConnection: {existingSecret: db}}}\n", true},
		"wrong-type":              {"  values: {workers: {replicas: '2'}}\n", true},
		"not-in-enum":             {"  values: {executor: SequentialExecutor}\n", true},
		"above-maximum":           {"  values: {data: {metadataConnection: {port: 65536}}}\n", true},
		"integral-float":          {"  values: {workers: {replicas: 2.0}}\n", false},
		"null-removes-default":    {"  values: {data: {metadataConnection: {port: null}}}\n", false},
		"null-of-a-map":           {"  values: {workers: null}\n", false},
		"list-for-a-map":          {"  values: {workers: [1]}\n", true},
		"global":                  {"  values: {global: {any: thing}}\n", false},
		"reference-right":         {"  valuesFrom: [{kind: ConfigMap, name: values, valuesKey: good}]\n", false},
		"reference-wrong":         {"  valuesFrom: [{kind: ConfigMap, name: values, valuesKey: bad}]\n", true},
		"reference-corrected":     {"  valuesFrom: [{kind: ConfigMap, name: values, valuesKey: bad}]\n  values: {workers: {replicas: 3}}\n", false},
		"optional-reference":      {"  valuesFrom: [{kind: ConfigMap, name: nosuch, optional: true}]\n", false},
		"number-at-a-target-path": {"  valuesFrom: [{kind: ConfigMap, name: values, valuesKey: port, targetPath: data.metadataConnection.port}]\n", false},
		"string-at-a-target-path": {"  valuesFrom: [{kind: ConfigMap, name: values, valuesKey: word, targetPath: data.metadataConnection.port}]\n", true},
		"target-path-over-values": {"  valuesFrom: [{kind: ConfigMap, name: values, valuesKey: word, targetPath: data.metadataConnection.port}]\n  values: {data: {metadataConnection: {port: 1}}}\n", true},
		"schema-is-not-validated": {"  install: {disableSchemaValidation: true}\n  upgrade: {disableSchemaValidation: true}\n  values: {exekutor: a}\n", false},
	}
	waitForChart(t, ns)
	denied := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		err := shared.Apply(t.Context(), airflow(ns, name, "1.x", cases[name].spec))
		if denied[name] = err != nil; denied[name] != cases[name].refused {
			t.Errorf("%s: the webhook answers %v", name, err)
		}
		if err != nil && !strings.Contains(err.Error(), "HR001") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Those that it denied are applied while it only records.
	setPolicy(t, "AuditOnly")
	for name := range denied {
		if denied[name] {
			apply(t, airflow(ns, name, "1.x", cases[name].spec))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		want := flux.Ready("")
		if cases[name].refused {
			want = flux.NotReady("values don't meet the specifications of the schema")
		}
		if got, err := flux.WaitFor(t.Context(), shared.Client, flux.HelmRelease(ns, name), want, reconcileTimeout); err != nil {
			t.Errorf("%s: helm-controller: %v, %v", name, got, err)
		}
	}
	// The audit reads the same from the status that helm-controller has written.
	output, code, err := shared.Run(t.Context(), whyUser, "audit", "--only", "schema-error-in-status", "--output", "json")
	if err != nil || code > 1 {
		t.Fatalf("audit: exit code %d, %v\n%s", code, err, output)
	}
	var d report.Report
	decode(t, output, &d)
	reported := map[string]bool{}
	for _, f := range d.Findings {
		reported[f.Object.Name] = reported[f.Object.Name] || f.Object.Namespace == ns
	}
	for name := range cases {
		if reported[name] != cases[name].refused {
			t.Errorf("%s: the audit reports a schema error: %t, want %t", name, reported[name], cases[name].refused)
		}
	}
}

// Releases wait for others that helm-controller reports as failed. `why` names those, and after each repair one root less.
func TestWhy_Releases(t *testing.T) {
	setPolicy(t, "AuditOnly")
	waitForRoots(t, "before anything is wrong")
	ns := charts(t)
	apply(t, strings.Join([]string{
		airflow(ns, "values", "1.x", "  values: {workers: {replicas: two}}\n"),
		airflow(ns, "secret", "1.x", "  valuesFrom: [{kind: Secret, name: entered-by-hand}]\n"),
		airflow(ns, "chart", "99.x", ""),
		airflow(ns, "paused", "1.x", "  suspend: true\n"),
		airflow(ns, "behind-values", "1.x", "  dependsOn: [{name: values}]\n"),
		airflow(ns, "behind-both", "1.x", "  dependsOn: [{name: behind-values}, {name: secret}]\n"),
		airflow(ns, "behind-chart", "1.x", "  dependsOn: [{name: chart}]\n"),
		airflow(ns, "behind-paused", "1.x", "  dependsOn: [{name: paused}]\n"),
	}, "---\n"))
	roots := map[string]string{
		"values": "HelmRelease " + ns + "/values Failed InvalidValues",
		"secret": "Secret " + ns + "/entered-by-hand Missing NotFound",
		"chart":  "HelmChart " + ns + "/" + ns + "-chart Failed NoMatchingVersion",
		"paused": "HelmRelease " + ns + "/paused Suspended Suspended",
	}
	left := func() []string { return slices.Sorted(maps.Values(roots)) }
	output := waitForRoots(t, "everything is wrong", left()...)
	for _, name := range []string{"behind-values", "behind-both", "behind-chart", "behind-paused"} {
		if !strings.Contains(output, `"`+name+`"`) {
			t.Errorf("the report does not have %s, which waits", name)
		}
	}
	for _, repair := range []struct{ root, manifest string }{
		{"values", airflow(ns, "values", "1.x", "  values: {workers: {replicas: 2}}\n")},
		{"secret", "apiVersion: v1\nkind: Secret\nmetadata: {name: entered-by-hand, namespace: " + ns + "}\nstringData: {values.yaml: \"{}\"}\n"},
		{"chart", airflow(ns, "chart", "1.x", "")},
		{"paused", airflow(ns, "paused", "1.x", "")},
	} {
		apply(t, repair.manifest)
		if err := flux.Reconcile(t.Context(), shared.Client, flux.HelmRelease(ns, repair.root)); err != nil {
			t.Fatal(err)
		}
		delete(roots, repair.root)
		waitForRoots(t, "after the repair of "+repair.root, left()...)
	}
	for _, name := range []string{"behind-values", "behind-both", "behind-chart", "behind-paused"} {
		if _, err := flux.WaitFor(t.Context(), shared.Client, flux.HelmRelease(ns, name), flux.Ready(""), reconcileTimeout); err != nil {
			t.Error(err)
		}
	}
}
