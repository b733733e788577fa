package serve

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	admissionregv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/mutators"
	allmutators "github.com/flux-admission/flux-admission/mutators/all"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
	"github.com/flux-admission/flux-admission/validators/flux"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

func mutatingPolicy(t *testing.T, spec string) *policy.Policy {
	t.Helper()
	suite, err := validators.NewSuite(allvalidators.Rules()...)
	if err != nil {
		t.Fatal(err)
	}
	muts, err := mutators.NewSet(allmutators.Mutators()...)
	if err != nil {
		t.Fatal(err)
	}
	o, err := policy.Parse("p.yaml", []byte("apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\nspec:\n"+spec))
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Compile(o, suite, muts, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func stored(namespace, name, path, target string) *unstructured.Unstructured {
	spec := map[string]any{"path": path}
	if target != "" {
		spec["targetNamespace"] = target
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
		"metadata": map[string]any{"namespace": namespace, "name": name}, "spec": spec,
	}}
}

func TestMutationWatch_Condition(t *testing.T) {
	const maps = "  mutations: {target-namespace: [{match: {namespaces: [flux-system], path: '^\\./apps/(?P<ns>[^/]+)'}, targetNamespace: '{ns}'}]}\n"
	registered := webhookconfig.Mutating([]schema.GroupKind{flux.Kustomization}, []string{"flux-system"})
	ns := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "a"}}}
	deleted := stored("flux-system", "deleted", "./apps/a", "")
	now := metav1.Now()
	deleted.SetDeletionTimestamp(&now)
	fine := []*unstructured.Unstructured{
		ns, deleted, stored("flux-system", "set", "./apps/a", "b"), stored("flux-system", "other-path", "./infra/a", ""),
		stored("other", "elsewhere", "./apps/a", ""), stored("flux-system", "no-namespace", "./apps/later", ""),
	}
	many := fine
	for i := range 12 {
		many = append(many, stored("flux-system", fmt.Sprintf("missed-%02d", i), "./apps/a", ""))
	}
	for name, tc := range map[string]struct {
		spec          string
		configuration *admissionregv1.MutatingWebhookConfiguration
		objects       []*unstructured.Unstructured
		unsynced      bool
		reason        string
		status        metav1.ConditionStatus
		message       string
		missed        int
	}{
		"nothing to mutate and nothing registered": {spec: "  mode: Enforce\n"},
		"nothing to mutate": {
			spec: "  mode: Enforce\n", configuration: registered,
			reason: "NotNeeded", status: metav1.ConditionTrue, message: "remove manifests/inject-target-namespace",
		},
		"nothing registered": {
			spec: maps, objects: fine, reason: "NotRegistered", status: metav1.ConditionFalse, message: "no mutating webhook is registered",
		},
		"registered for another namespace": {
			spec: strings.Replace(maps, "flux-system", "apps", 1), configuration: registered, objects: fine,
			reason: "NotRegistered", status: metav1.ConditionFalse, message: "of namespace apps",
		},
		"all objects have it": {
			spec: maps, configuration: registered, objects: fine, reason: "Applied", status: metav1.ConditionTrue, message: "All objects",
		},
		"an object lacks it": {
			spec: maps, configuration: registered, objects: append(slices.Clip(fine), stored("flux-system", "missed", "./apps/a", "")),
			reason: "Missed", status: metav1.ConditionFalse, message: ": Kustomization flux-system/missed (spec.targetNamespace: a);", missed: 1,
		},
		"a namespace that came later": {
			spec: maps, configuration: registered,
			objects: append(slices.Clip(fine), &unstructured.Unstructured{
				Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "later"}},
			}),
			reason: "Missed", status: metav1.ConditionFalse, message: "flux-system/no-namespace (spec.targetNamespace: later)", missed: 1,
		},
		"many objects lack it": {
			spec: maps, configuration: registered, objects: many,
			reason: "Missed", status: metav1.ConditionFalse, message: "flux-system/missed-09 (spec.targetNamespace: a) and 2 more;", missed: 12,
		},
		"audit-only": {
			spec: "  mode: AuditOnly\n" + maps, configuration: registered, objects: many, reason: "Applied", status: metav1.ConditionTrue,
		},
		"before the objects are in memory": {
			spec: maps, configuration: registered, objects: many, unsynced: true, reason: "Progressing", status: metav1.ConditionUnknown,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := mutatingPolicy(t, tc.spec)
			w := &mutationWatch{
				config: "flux-admission", lookup: lookup.NewMemory(tc.objects...), synced: func(schema.GroupKind) bool { return !tc.unsynced },
				withheld: []string{"kube-system"}, log: logr.Discard(), known: true, registered: tc.configuration,
			}
			if got := w.scan(t.Context(), p); got == tc.unsynced {
				t.Errorf("scan returned %v", got)
			}
			c := w.Condition(p)
			if c.Reason != tc.reason || c.Status != tc.status || !strings.Contains(c.Message, tc.message) {
				t.Errorf("condition %s %s %q, want %s %s %q", c.Status, c.Reason, c.Message, tc.status, tc.reason, tc.message)
			}
			if got := w.Missed(); got != tc.missed {
				t.Errorf("%d missed, want %d", got, tc.missed)
			}
		})
	}
}
