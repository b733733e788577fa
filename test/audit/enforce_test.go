package audit_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flux-admission/flux-admission/test/writepath"
)

// expression is a Kustomization with the name and a CEL expression, which rule KS020 parses.
const expression = `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: %s, namespace: flux-system, labels: {test: enforce}}
spec:
  interval: 10m
  path: ./a
  prune: true
  sourceRef: {kind: GitRepository, name: enforce}
  healthCheckExprs: [{apiVersion: v1, kind: ConfigMap, current: %q}]
`

const good, wrong = "true", "data.a == ("

// aWrite is a way to write the wrong expression; update means into an object that is stored with a good one.
type aWrite struct {
	name   string
	update bool
	path   writepath.Path
}

// allWrites are the ways in which people, controllers and Flux write an object.
func allWrites() []aWrite {
	return []aWrite{
		{"create", false, writepath.Kubectl("create")},
		{"apply", false, writepath.Kubectl("apply")},
		{"apply-server-side", false, writepath.Kubectl("apply", "--server-side")},
		{"client-create", false, writepath.Create()},
		{"client-apply", false, writepath.ServerSideApply()},
		{"flux", false, writepath.Flux()},
		{"update-apply", true, writepath.Kubectl("apply")},
		{"update-replace", true, writepath.Kubectl("replace")},
		{"update-client-apply", true, writepath.ServerSideApply()},
		{"update-flux", true, writepath.Flux()},
		{"update-patch", true, writepath.MergePatch(
			fmt.Sprintf(`{"spec": {"healthCheckExprs": [{"apiVersion": "v1", "kind": "ConfigMap", "current": %q}]}}`, wrong))},
	}
}

// writeAll writes the wrong expression in every way, each into an object of its own, and returns the names of the objects with the errors.
func writeAll(t *testing.T, prefix string) map[string]error {
	t.Helper()
	out := map[string]error{}
	for _, w := range allWrites() {
		name := prefix + "-" + w.name
		if w.update {
			kubectl(t, fmt.Sprintf(expression, name, good), "apply", "-f", "-")
		}
		a := w.path.Write(t.Context(), shared.ControlPlane, fmt.Sprintf(expression, name, wrong))
		if a.Err == nil && len(a.Warnings) > 0 {
			t.Errorf("%s: warnings %q", name, a.Warnings)
		}
		out[name] = a.Err
	}
	name := prefix + "-edit"
	kubectl(t, fmt.Sprintf(expression, name, good), "apply", "-f", "-")
	out[name] = edit(t, name)
	return out
}

// edit replaces the expression with `kubectl edit`. A refusal has kubectl open the editor again, which then changes nothing and ends it.
func edit(t *testing.T, name string) error {
	t.Helper()
	editor := filepath.Join(t.TempDir(), "editor")
	script := fmt.Sprintf("#!/bin/sh\nsed -i 's/current: .*/current: \"%s\"/' \"$1\"\n", wrong)
	if err := os.WriteFile(editor, []byte(script), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	t.Setenv("EDITOR", editor)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stdout, stderr, err := shared.ControlPlane.Kubectl(ctx, strings.NewReader(""), "edit", "kustomization.kustomize.toolkit.fluxcd.io", name, "-n", "flux-system")
	if err != nil {
		return fmt.Errorf("%w\n%s%s", err, stdout, stderr)
	}
	return nil
}

func setMode(t *testing.T, mode string) {
	t.Helper()
	kubectl(t, "", "patch", "admissionpolicy", "default", "--type=merge", "-p", fmt.Sprintf(`{"spec": {"mode": %q}}`, mode))
	if err := shared.Webhook().WaitPolicy(t.Context(), shared.Client); err != nil {
		t.Fatal(err)
	}
}

// TestEnforcing goes the way from audit-only to enforcing: nothing is refused on any write path, and everything is found at admission and
// in the audit; after the change of one field of the policy the same writes are refused, and what is stored may still be changed.
func TestEnforcing(t *testing.T) {
	kubectl(t, "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {name: enforce, namespace: flux-system, labels: {test: enforce}}\n"+
		"spec: {interval: 1m, url: \"https://git.invalid/enforce\"}\n", "apply", "-f", "-")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		for _, args := range [][]string{
			{"patch", "admissionpolicy", "default", "--type=merge", "-p", `{"spec": {"mode": "Enforce"}}`},
			{"delete", "kustomization.kustomize.toolkit.fluxcd.io,gitrepository", "-n", "flux-system", "-l", "test=enforce", "--wait=false"},
		} {
			if _, stderr, err := shared.ControlPlane.Kubectl(ctx, nil, args...); err != nil {
				t.Error(err, stderr)
			}
		}
	})
	setMode(t, "AuditOnly")
	denials := metric(t, "flux_admission_audited_denials_total")
	written := writeAll(t, "audited")
	var want, names []string
	for name, err := range written {
		if err != nil {
			t.Errorf("%s was refused: %v", name, err)
		}
		names = append(names, name)
		want = append(want, "fail KS020 flux-system/"+name)
	}
	// What enforcing would only warn of is apart from what it would refuse.
	kubectl(t, strings.Replace(fmt.Sprintf(expression, "audited-waiting", good), "  interval:", "  dependsOn: [{name: missing}]\n  interval:", 1), "apply", "-f", "-")
	want = append(want, "warn KS003 flux-system/audited-waiting")

	waitReported(t, minute, want...)
	if n := metric(t, "flux_admission_audited_denials_total") - denials; n < float64(len(written)) {
		t.Errorf("%v reviews were counted that Enforce would deny, want at least %d", n, len(written))
	}
	if n := metric(t, "flux_admission_findings_total", "rule=flux-expression-invalid", "action=Deny"); n != 0 {
		t.Errorf("%v findings have the action Deny", n)
	}
	if n := activeMetric(t, "flux_admission_audit_findings", "rule=flux-expression-invalid", "action=Deny"); n != float64(len(written)) {
		t.Errorf("the audit has %v findings that would be denied, want %d", n, len(written))
	}
	logged := ""
	for _, w := range shared.Webhooks {
		logged += w.Log()
	}
	for _, name := range names {
		if !slices.ContainsFunc(strings.Split(logged, "\n"), func(line string) bool {
			return strings.Contains(line, "Reviewed object") && strings.Contains(line, "flux-system/"+name+`"`) && strings.Contains(line, "KS020")
		}) {
			t.Errorf("no line of the log has the finding on %s", name)
		}
	}
	r, code := audited(t, "auditor", "--only", "KS020,KS003")
	if got := found(r); code != 1 || len(got) != len(want) || !slices.Contains(got, "Warn KS003 flux-system/audited-waiting") ||
		!slices.Contains(got, "Deny KS020 flux-system/audited-edit") {
		t.Errorf("exit code %d, findings %v", code, got)
	}

	setMode(t, "Enforce")
	for name, err := range writeAll(t, "enforced") {
		if err == nil || !strings.Contains(err.Error(), "KS020") {
			t.Errorf("%s: %v; want a refusal by KS020", name, err)
		}
	}
	// What was stored before may be changed as long as nothing new is wrong with it.
	for _, name := range names {
		kubectl(t, "", "annotate", "kustomization.kustomize.toolkit.fluxcd.io", name, "-n", "flux-system", "reconcile.fluxcd.io/requestedAt=now")
		kubectl(t, "", "patch", "kustomization.kustomize.toolkit.fluxcd.io", name, "-n", "flux-system", "--type=merge", "-p", `{"spec": {"interval": "20m"}}`)
	}
	waitReported(t, minute, want...)
}

// metric returns the sum of a metric of all webhook servers.
func metric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	n, err := shared.Metric(t.Context(), name, labels...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
