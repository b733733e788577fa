package policy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
)

// fixture returns what an older version has stored.
func fixture(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// known returns the rules that are recorded.
func known(t *testing.T) (names []string) {
	t.Helper()
	text, _, err := shared.ControlPlane.Kubectl(t.Context(), nil,
		"get", "configmap", "--ignore-not-found", "-n", env.Namespace, "flux-admission-rules", "-o", `jsonpath={.data.rules\.json}`)
	if err != nil {
		t.Fatal(err)
	}
	if text != "" {
		if err := json.Unmarshal([]byte(text), &names); err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// withoutPolicy restarts the webhook server in a cluster without AdmissionPolicy and without what an earlier one left, but for the record of rules,
// which is that of a new cluster if it is empty.
func withoutPolicy(t *testing.T, record string) {
	t.Helper()
	if err := shared.Webhook().Stop(); err != nil {
		t.Fatal(err)
	}
	for _, o := range [][]string{
		{"admissionpolicy", "default"},
		{"configmap", "-n", env.Namespace, "flux-admission-policy", "flux-admission-rules"},
	} {
		if _, _, err := shared.ControlPlane.Kubectl(t.Context(), nil, append([]string{"delete", "--ignore-not-found"}, o...)...); err != nil {
			t.Fatal(err)
		}
	}
	if record != "" {
		if err := shared.Apply(t.Context(), record); err != nil {
			t.Fatal(err)
		}
	}
	if err := shared.Webhook().Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func limitedRules(t *testing.T) float64 {
	t.Helper()
	n, err := shared.Metric(t.Context(), "flux_admission_policy_limited_rules")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// In a cluster without AdmissionPolicy, a rule that an upgrade brings warns until a policy includes it, after restarts, too.
func TestUpgrade_WithoutPolicy(t *testing.T) {
	withoutPolicy(t, "")
	eventually(t, "the rules of a new cluster are recorded", func() bool { return slices.Contains(known(t), "kustomization-namespace") })
	if !denied(t) {
		t.Error("the default policy of a new cluster does not deny")
	}
	withoutPolicy(t, fixture(t, "older-rules.yaml"))
	for _, when := range []string{"after the upgrade", "after a restart"} {
		eventually(t, when+": the leader has looked", func() bool { return strings.Contains(shared.Webhook().Log(), "Became the leader") })
		if denied(t) {
			t.Errorf("%s: the new rule denies", when)
		}
		if out, stderr, err := shared.ControlPlane.Kubectl(t.Context(), strings.NewReader(wrong), "create", "--dry-run=server", "-f", "-"); err != nil ||
			!strings.Contains(stderr, "KS001") {
			t.Errorf("%s: the new rule does not warn: %v\n%s%s", when, err, out, stderr)
		}
		// Rules that are newer than the record of the fixture are limited, too.
		_, line, _ := strings.Cut(shared.Webhook().Log(), "New rules of this version are limited to Warn")
		if line, _, _ = strings.Cut(line, "\n"); !strings.Contains(line, `"kustomization-namespace"`) {
			t.Errorf("%s: the log does not name the new rule: %s", when, line)
		}
		if n := limitedRules(t); n < 1 {
			t.Errorf("%s: no limited rules in the metrics", when)
		}
		if when == "after the upgrade" {
			if err := shared.Webhook().Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if slices.Contains(known(t), "kustomization-namespace") {
		t.Error("the new rule is recorded, though nobody has accepted it")
	}
	put(t, document("  {}\n"))
	if !denied(t) {
		t.Error("the new rule does not deny with a policy of its release")
	}
	if n := limitedRules(t); n != 0 {
		t.Errorf("%v limited rules in the metrics, want 0", n)
	}
	eventually(t, "the accepted rule is recorded", func() bool { return slices.Contains(known(t), "kustomization-namespace") })
	if !slices.Contains(known(t), "a-rule-that-is-gone") {
		t.Error("a rule of another version is no longer recorded: it would be new after a rollback")
	}
}

// A rule that is newer than the stored policy of an older version warns until the policy includes it, and the status names it.
func TestUpgrade_WithPolicy(t *testing.T) {
	withoutPolicy(t, "")
	put(t, fixture(t, "older-policy.yaml"))
	for _, when := range []string{"at once", "after a restart"} {
		if denied(t) {
			t.Errorf("%s: a rule that is newer than the policy denies", when)
		}
		if s := fmt.Sprint(status(t)["conditions"]); !strings.Contains(s, "newer than spec.ruleset are limited to Warn") || !strings.Contains(s, "kustomization-namespace") {
			t.Errorf("%s: the conditions %s do not name the rule", when, s)
		}
		if err := shared.Webhook().Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	put(t, strings.Replace(fixture(t, "older-policy.yaml"), "  rules:\n", "  rules:\n    kustomization-namespace: {action: Deny}\n", 1))
	if !denied(t) {
		t.Error("a rule that the policy names does not deny")
	}
	withoutPolicy(t, "")
}

// What an installation leaves after `kubectl delete -k` is in its own namespace, which ends with it.
func TestRemoval_LeavesNothing(t *testing.T) {
	e, err := env.Start(t.Context(), env.Options{
		ControlPlane: controlplane.Options{CRDSets: controlplane.DefaultCRDs()}, Policy: document("  mode: AuditOnly\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Stop(); err != nil {
			t.Error(err)
		}
	})
	if found := left(t, e); len(found) == 0 {
		t.Fatal("nothing of the installation is found")
	}
	root, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	// No controller of namespaces runs here, for which kubectl would wait.
	if _, _, err := e.ControlPlane.Kubectl(t.Context(), nil, "delete", "--wait=false", "-k", filepath.Join(root, env.Overlay)); err != nil {
		t.Fatal(err)
	}
	// The server stops after its objects: it puts nothing back.
	if err := e.Webhook().Stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "everything is deleted", func() bool { return len(left(t, e)) == 0 })
}

// left returns the objects outside of the webhook server's namespace that it or its manifests own or are named in.
func left(t *testing.T, e *env.Env) (found []string) {
	t.Helper()
	d, err := discovery.NewDiscoveryClientForConfig(e.ControlPlane.Config())
	if err != nil {
		t.Fatal(err)
	}
	resources, err := d.ServerPreferredResources()
	if err != nil {
		t.Fatal(err)
	}
	c, err := dynamic.NewForConfig(e.ControlPlane.Config())
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range resources {
		gv, err := schema.ParseGroupVersion(group.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range group.APIResources {
			if !slices.Contains(r.Verbs, "list") {
				continue
			}
			list, err := c.Resource(gv.WithResource(r.Name)).List(t.Context(), metav1.ListOptions{})
			if apierrors.IsNotFound(err) {
				continue // its CRD was just deleted
			}
			if err != nil {
				t.Fatalf("listing %s: %v", r.Name, err)
			}
			for _, o := range list.Items {
				ended := o.GetKind() == "Namespace" && o.GetDeletionTimestamp() != nil
				if o.GetNamespace() != env.Namespace && !ended && strings.Contains(fmt.Sprint(o.Object), "flux-admission") {
					found = append(found, fmt.Sprintf("%s %s/%s", o.GetKind(), o.GetNamespace(), o.GetName()))
				}
			}
		}
	}
	return found
}
