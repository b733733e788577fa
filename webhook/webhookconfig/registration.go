// Package webhookconfig says which writes the API server asks the webhooks about, in one place: as the webhook configurations that are
// installed, and as the same predicate in Go for the writes that are asked all the same.
package webhookconfig

import (
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/validators"
)

// Names of what is installed.
const (
	// Name is the name of both webhook configurations and of the Service.
	Name = "flux-admission"
	// Namespace is the namespace that the gate runs in.
	Namespace = "flux-admission-system"

	// ValidateWebhook, PolicyWebhook and MutateWebhook name the webhooks: users read the name in every denial.
	ValidateWebhook = "validate.flux-admission.dev"
	PolicyWebhook   = "policy.flux-admission.dev"
	MutateWebhook   = "mutate.flux-admission.dev"

	// ValidatePath, PolicyPath and MutatePath are where the server answers them.
	ValidatePath = "/validate"
	PolicyPath   = "/validate-policy"
	MutatePath   = "/mutate"

	// TimeoutSeconds is how long the API server waits for an answer.
	TimeoutSeconds = 5
	// PolicyGroup is the API group of AdmissionPolicy.
	PolicyGroup = "flux-admission.dev"
)

// LastApplied is the annotation in which kubectl keeps the manifest as it was applied. It is the only one that rules read.
const LastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// The expressions of the match conditions. Each must give an answer for every object that the API server can hold: one that fails makes
// the API server pass over the webhook without a word under failurePolicy Ignore. So every field is asked for with has() first; metadata is
// always there. Their cost does not grow with the object: comparing maps is priced by their top level, strings by a tenth of their length,
// of which one object cannot hold enough to reach the limit.
const (
	notBeingDeleted = `!has(object.metadata.deletionTimestamp)`

	changed = `request.operation != 'UPDATE'
|| has(object.spec) != has(oldObject.spec)
|| (has(object.spec) && object.spec != oldObject.spec)
|| has(object.metadata.labels) != has(oldObject.metadata.labels)
|| (has(object.metadata.labels) && object.metadata.labels != oldObject.metadata.labels)
|| (has(object.metadata.annotations) && '` + LastApplied + `' in object.metadata.annotations
    ? object.metadata.annotations['` + LastApplied + `'] : '')
   != (has(oldObject.metadata.annotations) && '` + LastApplied + `' in oldObject.metadata.annotations
    ? oldObject.metadata.annotations['` + LastApplied + `'] : '')`

	targetNamespaceMissing = `request.operation == 'UPDATE'
? has(oldObject.spec) && has(oldObject.spec.targetNamespace) && oldObject.spec.targetNamespace != ''
  && !(has(object.spec) && has(object.spec.targetNamespace) && object.spec.targetNamespace == oldObject.spec.targetNamespace)
: !(has(object.spec) && has(object.spec.targetNamespace) && object.spec.targetNamespace != '')`
)

// ValidateConditions are the match conditions of the validating webhook: a write is asked about when all of them hold.
func ValidateConditions() []admissionv1.MatchCondition {
	return []admissionv1.MatchCondition{
		{Name: "not-being-deleted", Expression: notBeingDeleted},
		{Name: "changed", Expression: changed},
	}
}

// MutateConditions are the match conditions of the mutating webhook: a create without targetNamespace, or an update that drops or changes
// the one that is stored.
func MutateConditions() []admissionv1.MatchCondition {
	return []admissionv1.MatchCondition{
		{Name: "not-being-deleted", Expression: notBeingDeleted},
		{Name: "target-namespace-missing", Expression: targetNamespaceMissing},
	}
}

// Validating returns the validating webhook configuration for the kinds that the rules look at. It has no caBundle: the gate or
// cert-manager fills it in.
func Validating(rules []*validators.Rule) *admissionv1.ValidatingWebhookConfiguration {
	var kinds []schema.GroupKind
	for _, r := range rules {
		kinds = append(kinds, r.KindsAt(validators.StageAdmission)...)
	}
	fail, equivalent, none, timeout := admissionv1.Ignore, admissionv1.Equivalent, admissionv1.SideEffectClassNone, int32(TimeoutSeconds)
	return &admissionv1.ValidatingWebhookConfiguration{
		TypeMeta:   metav1.TypeMeta{APIVersion: "admissionregistration.k8s.io/v1", Kind: "ValidatingWebhookConfiguration"},
		ObjectMeta: metav1.ObjectMeta{Name: Name, Labels: labels()},
		Webhooks: []admissionv1.ValidatingWebhook{
			{
				Name: ValidateWebhook, ClientConfig: clientConfig(ValidatePath), Rules: webhookRules(kinds), FailurePolicy: &fail,
				MatchPolicy: &equivalent, SideEffects: &none, TimeoutSeconds: &timeout, AdmissionReviewVersions: []string{"v1"},
				NamespaceSelector: namespaces(), MatchConditions: ValidateConditions(),
			},
			{
				Name: PolicyWebhook, ClientConfig: clientConfig(PolicyPath),
				Rules:         webhookRules([]schema.GroupKind{{Group: PolicyGroup, Kind: "AdmissionPolicy"}}),
				FailurePolicy: &fail, MatchPolicy: &equivalent, SideEffects: &none, TimeoutSeconds: &timeout, AdmissionReviewVersions: []string{"v1"},
			},
		},
	}
}

// Mutating returns the mutating webhook configuration for the kinds that the mutators look at, without a caBundle.
func Mutating(ms []*mutators.Mutator) *admissionv1.MutatingWebhookConfiguration {
	var kinds []schema.GroupKind
	for _, m := range ms {
		kinds = append(kinds, m.Kinds...)
	}
	fail, equivalent, none, timeout := admissionv1.Ignore, admissionv1.Equivalent, admissionv1.SideEffectClassNone, int32(TimeoutSeconds)
	return &admissionv1.MutatingWebhookConfiguration{
		TypeMeta:   metav1.TypeMeta{APIVersion: "admissionregistration.k8s.io/v1", Kind: "MutatingWebhookConfiguration"},
		ObjectMeta: metav1.ObjectMeta{Name: Name, Labels: labels()},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name: MutateWebhook, ClientConfig: clientConfig(MutatePath), Rules: webhookRules(kinds), FailurePolicy: &fail,
			MatchPolicy: &equivalent, SideEffects: &none, TimeoutSeconds: &timeout, AdmissionReviewVersions: []string{"v1"},
			NamespaceSelector: namespaces(), MatchConditions: MutateConditions(),
		}},
	}
}

func labels() map[string]string {
	return map[string]string{"app.kubernetes.io/name": Name, "app.kubernetes.io/part-of": Name}
}

func clientConfig(path string) admissionv1.WebhookClientConfig {
	port := int32(443)
	return admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Namespace: Namespace, Name: Name, Path: &path, Port: &port}}
}

// namespaces leaves out the namespaces that a cluster is repaired from: its own, and Kubernetes'.
func namespaces() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
		Key: "kubernetes.io/metadata.name", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"kube-system", Namespace},
	}}}
}

// webhookRules asks for creates and updates of the kinds, in every version, and never for a subresource: status and scale pass.
func webhookRules(kinds []schema.GroupKind) []admissionv1.RuleWithOperations {
	resources := map[string][]string{}
	for _, gk := range kinds {
		// The guess is the rule by which CRDs name their resources; a test holds it for every kind that a rule names.
		plural, _ := meta.UnsafeGuessKindToResource(gk.WithVersion("v1"))
		if !slices.Contains(resources[gk.Group], plural.Resource) {
			resources[gk.Group] = append(resources[gk.Group], plural.Resource)
		}
	}
	var out []admissionv1.RuleWithOperations
	for group, names := range resources {
		slices.Sort(names)
		out = append(out, admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
			Rule:       admissionv1.Rule{APIGroups: []string{group}, APIVersions: []string{"*"}, Resources: names},
		})
	}
	slices.SortFunc(out, func(a, b admissionv1.RuleWithOperations) int { return strings.Compare(a.APIGroups[0], b.APIGroups[0]) })
	return out
}
