package webhookconfig_test

import (
	"strings"
	"testing"

	admissionregv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/validators/flux"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

func TestUnregistered(t *testing.T) {
	inFluxSystem := webhookconfig.Mutating([]schema.GroupKind{flux.Kustomization}, []string{"flux-system"})
	both := webhookconfig.Mutating([]schema.GroupKind{flux.Kustomization, flux.HelmRelease}, []string{"flux-system", "apps"})
	selected := func(selector *metav1.LabelSelector) *admissionregv1.MutatingWebhookConfiguration {
		c := inFluxSystem.DeepCopy()
		c.Webhooks[0].NamespaceSelector = selector
		return c
	}
	notIn := selected(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
		Key: "kubernetes.io/metadata.name", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"kube-system"},
	}}})
	byLabel := selected(&metav1.LabelSelector{MatchLabels: map[string]string{"tenant": "yes"}})
	updates := inFluxSystem.DeepCopy()
	updates.Webhooks[0].Rules[0].Operations = []admissionregv1.OperationType{admissionregv1.Update}
	everything := inFluxSystem.DeepCopy()
	everything.Webhooks[0].NamespaceSelector = nil
	everything.Webhooks[0].Rules = []admissionregv1.RuleWithOperations{{
		Operations: []admissionregv1.OperationType{"*"}, Rule: admissionregv1.Rule{APIGroups: []string{"*"}, APIVersions: []string{"*"}, Resources: []string{"*"}},
	}}
	two := inFluxSystem.DeepCopy()
	two.Webhooks = append(two.Webhooks, webhookconfig.Mutating([]schema.GroupKind{flux.Kustomization}, []string{"apps"}).Webhooks...)

	of := func(kind schema.GroupKind, namespaces ...string) mutators.Selection {
		return mutators.Selection{Mutator: "target-namespace", Kind: kind, Namespaces: namespaces}
	}
	for name, tc := range map[string]struct {
		configuration *admissionregv1.MutatingWebhookConfiguration
		selections    []mutators.Selection
		want          string // of each, a part, separated by |
	}{
		"the namespace of the manifests":         {inFluxSystem, []mutators.Selection{of(flux.Kustomization, "flux-system")}, ""},
		"no selection":                           {nil, nil, ""},
		"no configuration":                       {nil, []mutators.Selection{of(flux.Kustomization, "flux-system")}, "no mutating webhook is registered"},
		"a configuration without webhooks":       {&admissionregv1.MutatingWebhookConfiguration{}, []mutators.Selection{of(flux.Kustomization)}, "no mutating webhook is registered"},
		"another kind":                           {inFluxSystem, []mutators.Selection{of(flux.HelmRelease, "flux-system")}, "kind HelmRelease, for which the mutating webhook is not registered"},
		"updates only":                           {updates, []mutators.Selection{of(flux.Kustomization, "flux-system")}, "kind Kustomization, for which"},
		"another namespace":                      {inFluxSystem, []mutators.Selection{of(flux.Kustomization, "flux-system", "apps")}, "of namespace apps, for which"},
		"all namespaces":                         {inFluxSystem, []mutators.Selection{of(flux.Kustomization)}, "of all namespaces, for which"},
		"a pattern":                              {inFluxSystem, []mutators.Selection{of(flux.Kustomization, "flux-*")}, "of namespace flux-*, for which"},
		"two kinds in two namespaces":            {both, []mutators.Selection{of(flux.Kustomization, "apps"), of(flux.HelmRelease, "flux-system")}, ""},
		"several are each named once":            {inFluxSystem, []mutators.Selection{of(flux.HelmRelease), of(flux.HelmRelease), of(flux.Kustomization, "apps")}, "kind HelmRelease|namespace apps"},
		"all but some":                           {notIn, []mutators.Selection{of(flux.Kustomization), of(flux.Kustomization, "team-*", "apps")}, ""},
		"one of those that are excluded":         {notIn, []mutators.Selection{of(flux.Kustomization, "kube-system")}, "namespace kube-system"},
		"labels, which any namespace could have": {byLabel, []mutators.Selection{of(flux.Kustomization), of(flux.Kustomization, "apps", "a-*")}, ""},
		"everything":                             {everything, []mutators.Selection{of(flux.Kustomization), of(flux.HelmRelease, "a")}, ""},
		"two webhooks":                           {two, []mutators.Selection{of(flux.Kustomization, "apps", "flux-system")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := webhookconfig.Unregistered(tc.configuration, tc.selections)
			var want []string
			if tc.want != "" {
				want = strings.Split(tc.want, "|")
			}
			if len(got) != len(want) {
				t.Fatalf("%q, want %q", got, want)
			}
			for i := range want {
				if !strings.Contains(got[i], want[i]) {
					t.Errorf("%q, want %q", got[i], want[i])
				}
			}
		})
	}
}
