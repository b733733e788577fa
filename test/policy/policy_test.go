// Package policy_test tests the AdmissionPolicy on a real API server: invalid policies are denied, a file and an object get
// the same validation, and an applied policy is in force.
package policy_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	kstatus "github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/policy/source"
	"github.com/flux-admission/flux-admission/mutators"
	allmutators "github.com/flux-admission/flux-admission/mutators/all"
	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
	"github.com/flux-admission/flux-admission/test/writepath"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

var shared *env.Env

func TestMain(m *testing.M) {
	os.Exit(env.Main(m, env.Options{ControlPlane: controlplane.Options{CRDSets: controlplane.DefaultCRDs(), Audit: true}}, func(_ context.Context, e *env.Env) error {
		shared = e
		return nil
	}))
}

func document(spec string) string {
	return "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\nspec:\n" + spec
}

func apply(t *testing.T, text string) writepath.Answer {
	t.Helper()
	return writepath.Kubectl("apply", "--validate=strict").Write(t.Context(), shared.ControlPlane, text)
}

// `--policy FILE` and the API server accept the same policies, and name the same field of an invalid one.
func TestPolicy_FileAndCluster(t *testing.T) {
	suite, err := validators.NewSuite(allvalidators.Rules()...)
	if err != nil {
		t.Fatal(err)
	}
	muts, err := mutators.NewSet(allmutators.Mutators()...)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		text string
		// field is in both errors; empty for a valid policy.
		field string
	}{
		"an empty spec":                       {"apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\n", ""},
		"a mode":                              {document("  mode: AuditOnly\n"), ""},
		"a rule with parameters":              {document("  rules: {kustomization-namespace: {action: Warn, allowedNamespaces: [a, b]}}\n"), ""},
		"a rule that is off":                  {document("  rules: {kustomization-namespace: {action: \"Off\"}}\n"), ""},
		"a required targetNamespace":          {document("  rules: {kustomization-target-namespace: {requiredFor: [{path: '^x', labels: {a: b}}]}}\n"), ""},
		"a mutation by path":                  {document("  mutations: {target-namespace: [{match: {path: '^x/(?P<ns>.*)'}, targetNamespace: '{ns}'}]}\n"), ""},
		"a mutation by label":                 {document("  mutations: {target-namespace: [{match: {kinds: [HelmRelease]}, targetNamespaceLabel: example.com/team}]}\n"), ""},
		"an override":                         {document("  overrides: [{namespaceSelector: {matchLabels: {a: b}}, rules: [kustomization-namespace], action: Audit}]\n"), ""},
		"an exemption":                        {document("  exemptions: [{rules: [kustomization-namespace], match: {kinds: [Kustomization], names: [a]}, reason: because, expires: '2030-01-01T00:00:00Z'}]\n"), ""},
		"names with *":                        {document("  rules: {kustomization-namespace: {allowedNamespaces: ['team-*']}}\n  overrides: [{namespaces: ['team-*'], rules: ['*', KS001], action: Warn}]\n"), ""},
		"labels of namespaces":                {document("  rules: {kustomization-namespace: {allowedNamespaceSelector: {matchLabels: {a: b}}}}\n  exemptions: [{rules: [KS001], match: {namespaceSelector: {matchLabels: {a: b}}}, reason: x}]\n"), ""},
		"an ID as the key of a rule":          {document("  rules: {KS001: {action: Warn}}\n"), `spec.rules.KS001: unknown rule; did you mean "kustomization-namespace"`},
		"a namespace that cannot exist":       {document("  rules: {kustomization-namespace: {allowedNamespaces: ['Flux System']}}\n"), `did you mean "flux-system"`},
		"a misspelled kind":                   {document("  exemptions: [{rules: [KS001], match: {kinds: [Kustomizatoin]}, reason: x}]\n"), `did you mean "Kustomization"`},
		"an exemption by labels of objects":   {document("  exemptions: [{rules: [KS001], match: {names: [a], selector: {matchLabels: {a: b}}}, reason: x}]\n"), "match.selector"},
		"another name":                        {strings.Replace(document("  mode: Enforce\n"), "default", "other", 1), "named default"},
		"an unknown mode":                     {document("  mode: Loud\n"), "spec.mode"},
		"an unknown field":                    {document("  modes: Enforce\n"), "spec.modes"},
		"an unknown rule":                     {document("  rules: {kustomization-name: {action: Deny}}\n"), "spec.rules.kustomization-name"},
		"an unknown parameter":                {document("  rules: {kustomization-namespace: {allowed: [a]}}\n"), "spec.rules.kustomization-namespace.allowed"},
		"a parameter of another type":         {document("  rules: {kustomization-namespace: {allowedNamespaces: a}}\n"), "spec.rules.kustomization-namespace.allowedNamespaces"},
		"an empty allow-list":                 {document("  rules: {kustomization-namespace: {allowedNamespaces: []}}\n"), "spec.rules.kustomization-namespace.allowedNamespaces"},
		"the same namespace twice":            {document("  rules: {kustomization-namespace: {allowedNamespaces: [a, a]}}\n"), "spec.rules.kustomization-namespace.allowedNamespaces[1]"},
		"Off without quotes":                  {document("  rules: {kustomization-namespace: {action: Off}}\n"), "spec.rules.kustomization-namespace.action"},
		"an unknown action":                   {document("  rules: {kustomization-namespace: {action: Refuse}}\n"), "spec.rules.kustomization-namespace.action"},
		"an expression that does not parse":   {document("  rules: {kustomization-target-namespace: {requiredFor: [{path: '('}]}}\n"), "requiredFor[0].path"},
		"a placeholder without a group":       {document("  mutations: {target-namespace: [{match: {path: '^x'}, targetNamespace: '{ns}'}]}\n"), "target-namespace[0].targetNamespace"},
		"two ways to name a namespace":        {document("  mutations: {target-namespace: [{targetNamespace: a, targetNamespaceLabel: b}]}\n"), "spec.mutations.target-namespace[0]"},
		"a kind that Flux does not have":      {document("  mutations: {target-namespace: [{match: {kinds: [Deployment]}, targetNamespace: a}]}\n"), "match.kinds[0]"},
		"an override without an action":       {document("  overrides: [{namespaceSelector: {}, rules: [kustomization-namespace]}]\n"), "spec.overrides[0].action"},
		"a selector with an unknown operator": {document("  overrides: [{namespaceSelector: {matchExpressions: [{key: a, operator: Like}]}, rules: [kustomization-namespace], action: Warn}]\n"), "spec.overrides[0].namespaceSelector"},
		"an exemption without a reason":       {document("  exemptions: [{rules: [kustomization-namespace], match: {names: [a]}}]\n"), "spec.exemptions[0].reason"},
		"an exemption for everything":         {document("  exemptions: [{rules: [kustomization-namespace], match: {}, reason: x}]\n"), "spec.exemptions[0].match"},
		"an expiry that is no time":           {document("  exemptions: [{rules: [kustomization-namespace], match: {names: [a]}, reason: x, expires: soon}]\n"), "spec.exemptions[0].expires"},
	} {
		t.Run(name, func(t *testing.T) {
			parsed, fileErr := policy.Parse("policy.yaml", []byte(tc.text))
			if fileErr == nil {
				_, fileErr = policy.Compile(parsed, suite, muts, nil)
			}
			answer := apply(t, tc.text)
			if (fileErr == nil) != (tc.field == "") || (answer.Err == nil) != (tc.field == "") {
				t.Fatalf("file: %v\ncluster: %v\nwant accepted: %t", fileErr, answer.Err, tc.field == "")
			}
			if tc.field == "" {
				return
			}
			for driver, err := range map[string]error{"file": fileErr, "cluster": answer.Err} {
				if !strings.Contains(err.Error(), tc.field) {
					t.Errorf("%s: %v\nwant %s in it", driver, err, tc.field)
				}
			}
		})
	}
}

const wrong = `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: apps, namespace: default}
spec: {interval: 10m, path: ./apps, prune: true, sourceRef: {kind: GitRepository, name: x}}
`

func denied(t *testing.T) bool {
	t.Helper()
	return writepath.Kubectl("apply", "--dry-run=server").Write(t.Context(), shared.ControlPlane, wrong).Err != nil
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s\n%s", what, shared.Webhook().LogTail())
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func status(t *testing.T) map[string]any {
	t.Helper()
	s, _ := object(t).Object["status"].(map[string]any)
	return s
}

func object(t *testing.T) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	o.SetAPIVersion("flux-admission.dev/v1alpha1")
	o.SetKind("AdmissionPolicy")
	if err := shared.Client.Get(t.Context(), client.ObjectKey{Name: "default"}, o); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestPolicy_InForceWhenAccepted(t *testing.T) {
	for _, mode := range []string{"Enforce", "AuditOnly", "Enforce"} {
		if a := apply(t, document("  mode: "+mode+"\n  rules: {kustomization-namespace: {action: Deny}, cnpg-monitoring-enabled: {action: \"Off\"}}\n")); a.Err != nil {
			t.Fatal(a.Err)
		}
		if err := shared.Webhook().WaitPolicy(t.Context(), shared.Client); err != nil {
			t.Fatal(err)
		}
		if got := denied(t); got != (mode == "Enforce") {
			t.Errorf("in mode %s the mistake is denied: %t", mode, got)
		}
	}
	s := fmt.Sprint(status(t))
	for _, want := range []string{"map[action:Deny name:kustomization-namespace]", "map[name:cnpg-monitoring-enabled reason:its action is Off]", "InEffect"} {
		if !strings.Contains(s, want) {
			t.Errorf("status %s, want %s in it", s, want)
		}
	}
	if out, _, err := shared.ControlPlane.Kubectl(t.Context(), nil, "get", "admissionpolicy", "default"); err != nil || !strings.Contains(out, "ACCEPTED") || !strings.Contains(out, "True") {
		t.Errorf("kubectl get: %v\n%s", err, out)
	}
	if out, _, err := shared.ControlPlane.Kubectl(t.Context(), nil, "explain", "admissionpolicy.spec.rules.kustomization-namespace.allowedNamespaces"); err != nil || !strings.Contains(out, "names of the namespaces") {
		t.Errorf("kubectl explain: %v\n%s", err, out)
	}
}

// What can be used of an invalid policy, stored while no webhook validates it, is in force, and no rule becomes stricter: not at
// once, and not at a start.
func TestPolicy_InvalidParts(t *testing.T) {
	put(t, document("  rules:\n    kustomization-namespace: {action: Deny}\n    kustomization-target-namespace: {requiredFor: [{path: '^./team/'}]}\n"))
	bad := document("  mode: AuditOnly\n  rules: {kustomization-target-namespace: {requiredFor: [{path: '('}]}}\n")
	withoutPolicyWebhook(t, func() {
		if a := apply(t, bad); a.Err != nil {
			t.Fatal(a.Err)
		}
		for _, when := range []string{"at once", "after a restart"} {
			eventually(t, "the condition names the part that cannot be used", func() bool {
				s := fmt.Sprint(status(t)["conditions"])
				return strings.Contains(s, "requiredFor[0].path: not a regular expression")
			})
			if denied(t) {
				t.Errorf("%s: the invalid part of an audit-only policy makes it enforce", when)
			}
			if mode := status(t)["mode"]; mode != "AuditOnly" {
				t.Errorf("%s: status.mode is %v, want AuditOnly", when, mode)
			}
			if computed := kstatusOf(t); computed == kstatus.CurrentStatus || computed == kstatus.InProgressStatus {
				t.Errorf("%s: kstatus is %s, want Failed", when, computed)
			}
			if when == "at once" {
				if err := shared.Webhook().Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
	put(t, document("  mode: AuditOnly\n"))
	if denied(t) {
		t.Error("the repaired policy is not in force")
	}
	eventually(t, "kstatus is Current", func() bool { return kstatusOf(t) == kstatus.CurrentStatus })
}

// An unknown operator of a selector does not turn audit-only into enforcing at a start.
func TestPolicy_InvalidAtStart(t *testing.T) {
	put(t, document("  mode: AuditOnly\n"))
	withoutPolicyWebhook(t, func() {
		if err := shared.Webhook().Stop(); err != nil {
			t.Fatal(err)
		}
		bad := "  mode: AuditOnly\n  overrides: [{namespaceSelector: {matchExpressions: [{key: a, operator: Is}]}, rules: [kustomization-namespace], action: Deny}]\n"
		if a := apply(t, document(bad)); a.Err != nil {
			t.Fatal(a.Err)
		}
		if err := shared.Webhook().Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the status is that of the invalid policy", func() bool { return strings.Contains(fmt.Sprint(status(t)), "namespaceSelector") })
		if denied(t) {
			t.Error("the policy enforces")
		}
	})
	put(t, document("  mode: AuditOnly\n"))
}

// put applies a policy and waits until it is in force.
func put(t *testing.T, text string) {
	t.Helper()
	if a := apply(t, text); a.Err != nil {
		t.Fatal(a.Err)
	}
	if err := shared.Webhook().WaitPolicy(t.Context(), shared.Client); err != nil {
		t.Fatal(err)
	}
}

func kstatusOf(t *testing.T) kstatus.Status {
	t.Helper()
	r, err := kstatus.Compute(object(t))
	if err != nil {
		t.Fatal(err)
	}
	return r.Status
}

// withoutPolicyWebhook calls during while the validating webhook configuration has no webhook for AdmissionPolicies.
func withoutPolicyWebhook(t *testing.T, during func()) {
	t.Helper()
	get := func() *unstructured.Unstructured {
		list := &unstructured.UnstructuredList{}
		list.SetAPIVersion("admissionregistration.k8s.io/v1")
		list.SetKind("ValidatingWebhookConfigurationList")
		if err := shared.Client.List(t.Context(), list); err != nil || len(list.Items) != 1 {
			t.Fatalf("%d webhook configurations: %v", len(list.Items), err)
		}
		return &list.Items[0]
	}
	before := get()
	o := before.DeepCopy()
	webhooks, _, _ := unstructured.NestedSlice(o.Object, "webhooks")
	kept := webhooks[:0]
	for _, w := range webhooks {
		if !strings.Contains(fmt.Sprint(w), "admissionpolicies") {
			kept = append(kept, w)
		}
	}
	if len(kept) == len(before.Object["webhooks"].([]any)) {
		t.Fatal("no webhook for AdmissionPolicies")
	}
	if err := unstructured.SetNestedSlice(o.Object, kept, "webhooks"); err != nil {
		t.Fatal(err)
	}
	if err := shared.Client.Update(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	// The API server needs a moment to notice.
	eventually(t, "AdmissionPolicies are no longer sent to the webhook", func() bool {
		return writepath.Kubectl("apply", "--dry-run=server").Write(t.Context(), shared.ControlPlane,
			document("  rules: {kustomization-target-namespace: {requiredFor: [{path: '('}]}}\n")).Err == nil
	})
	during()
	again := get()
	again.Object["webhooks"] = before.Object["webhooks"]
	if err := shared.Client.Update(t.Context(), again); err != nil {
		t.Fatal(err)
	}
}

// Deleting the policy makes nothing stricter, not at a start either.
func TestPolicy_DeletedPolicy(t *testing.T) {
	put(t, document("  mode: AuditOnly\n"))
	eventually(t, "the policy is kept", func() bool {
		out, _, err := shared.ControlPlane.Kubectl(t.Context(), nil, "get", "configmap", "-n", env.Namespace, "flux-admission-policy", "-o", "yaml")
		return err == nil && strings.Contains(out, "AuditOnly")
	})
	if _, _, err := shared.ControlPlane.Kubectl(t.Context(), nil, "delete", "admissionpolicy", "default"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the deletion is noticed", func() bool { return strings.Contains(shared.Webhook().LogTail(), "The AdmissionPolicy was deleted") })
	if denied(t) {
		t.Error("deleting an audit-only policy makes the webhook enforce")
	}
	if err := shared.Webhook().Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if denied(t) {
		t.Error("a restart without the audit-only policy makes the webhook enforce")
	}
	// A cluster that never had a policy has the default policy.
	if _, _, err := shared.ControlPlane.Kubectl(t.Context(), nil, "delete", "configmap", "-n", env.Namespace, "flux-admission-policy"); err != nil {
		t.Fatal(err)
	}
	if err := shared.Webhook().Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !denied(t) {
		t.Error("the default policy is not in force")
	}
}

// Versions with different rules do not overwrite each other's status: at rest, nothing is written.
func TestPolicy_TwoVersions(t *testing.T) {
	put(t, document("  mode: AuditOnly\n"))
	eventually(t, "the webhook server leads", func() bool {
		active, err := shared.Webhook().Metric(t.Context(), "flux_admission_audit_active")
		return err == nil && active == 1
	})
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	for i, rules := range [][]*validators.Rule{allvalidators.Rules()[1:], allvalidators.Rules()[:5]} {
		start(t, ctx, &running, fmt.Sprintf("version-%d", i), rules)
	}
	eventually(t, "the status has all three replicas, ready", func() bool {
		s := status(t)
		replicas, _ := s["replicas"].([]any)
		return len(replicas) == 3 && strings.Contains(fmt.Sprint(s["conditions"]), "in force in 3 of 3 replicas") && s["audit"] != nil
	})
	before, written, started := object(t).GetResourceVersion(), statusWrites(t), renewals(t)
	select {
	case <-t.Context().Done():
	case <-time.After(12 * time.Second): // longer than a heartbeat
	}
	if after := object(t).GetResourceVersion(); after != before {
		t.Errorf("the policy was written at rest: resource version %s, then %s", before, after)
	}
	// A write of the same content leaves the version as it is.
	if after := statusWrites(t); written == 0 || after != written {
		t.Errorf("%d writes of the status before the rest and %d after it, want some and no more", written, after)
	}
	// A replica that does not renew its Lease is no longer counted.
	eventually(t, "each replica renews its Lease", func() bool {
		now := renewals(t)
		for name, at := range started {
			if renewed := now[name]; !renewed.After(at) {
				return false
			}
		}
		return len(started) == 3
	})
}

// statusWrites returns how often the status of the policy was written, by whomever.
func statusWrites(t *testing.T) int {
	t.Helper()
	n, err := shared.PolicyStatusWrites()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// renewals returns when each replica has renewed its Lease, by its name.
func renewals(t *testing.T) map[string]time.Time {
	t.Helper()
	leases, err := coordinationclient.NewForConfig(shared.ControlPlane.Config())
	if err != nil {
		t.Fatal(err)
	}
	list, err := leases.Leases(env.Namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "flux-admission.dev/replica"})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]time.Time{}
	for i := range list.Items {
		if at := list.Items[i].Spec.RenewTime; at != nil {
			out[list.Items[i].Name] = at.Time
		}
	}
	return out
}

// start runs what a replica with the rules does with the policy.
func start(t *testing.T, ctx context.Context, running *sync.WaitGroup, name string, rules []*validators.Rule) {
	t.Helper()
	suite, err := validators.NewSuite(rules...)
	if err != nil {
		t.Fatal(err)
	}
	muts, err := mutators.NewSet(allmutators.Mutators()...)
	if err != nil {
		t.Fatal(err)
	}
	policies, err := dynamic.NewForConfig(shared.ControlPlane.Config())
	if err != nil {
		t.Fatal(err)
	}
	leases, err := coordinationclient.NewForConfig(shared.ControlPlane.Config())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range rules {
		names = append(names, r.Name)
	}
	cluster := source.NewCluster(source.ClusterOptions{
		Client: policies, Namespace: env.Namespace, Rules: names, Reloaded: func(bool) {}, Log: logr.Discard(),
		Read: func(spec any, last map[string]any) (policy.Reading, error) {
			return policy.Read(spec, last, suite, muts, nil)
		},
	})
	election := &source.Election{Leases: leases, Namespace: env.Namespace, Identity: name, Log: logr.Discard()}
	reporter := &source.Reporter{Cluster: cluster, Election: election, Version: name, Log: logr.Discard()}
	for _, r := range []interface{ Start(context.Context) error }{cluster, election, reporter} {
		running.Go(func() {
			if err := r.Start(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}
