// Package webhookconfig defines which writes the API server sends to the webhooks: as webhook configurations, and as
// the same predicates in Go for writes that it sends nevertheless.
package webhookconfig

import (
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/validators"
)

// Names in the manifests.
const (
	// Name is the name of both webhook configurations and of the Service.
	Name = "flux-admission"
	// Namespace is the namespace of the webhook server.
	Namespace = "flux-admission-system"

	// ValidateWebhook, PolicyWebhook and MutateWebhook are the names of the webhooks, which are part of every denial.
	ValidateWebhook = "validate.flux-admission.dev"
	PolicyWebhook   = "policy.flux-admission.dev"
	MutateWebhook   = "mutate.flux-admission.dev"

	// ValidatePath, PolicyPath and MutatePath are their URL paths.
	ValidatePath = "/validate"
	PolicyPath   = "/validate-policy"
	MutatePath   = "/mutate"

	// TimeoutSeconds is how long the API server waits for a response, in seconds.
	TimeoutSeconds = 5
	// MutateTimeoutSeconds is how long the API server waits for the mutating webhook, in seconds: it reads only what is in
	// memory, and the validating webhook has its own time.
	MutateTimeoutSeconds = 2
	// PolicyGroup is the API group of AdmissionPolicy.
	PolicyGroup = "flux-admission.dev"
)

// LastApplied is the annotation with the manifest that kubectl applied. It is the only one that rules read.
const LastApplied = corev1.LastAppliedConfigAnnotation

// The CEL expressions of the match conditions. None may fail for any object that the API server can hold: with
// failurePolicy Ignore, the API server then silently skips the webhook. So has() guards every field but metadata, which
// always exists. Their CEL cost stays below the limit: comparing maps costs as much as their top level has keys,
// comparing strings a tenth of their length, and an object is limited in size.
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

// ValidateConditions returns the match conditions of the validating webhook: a write is sent to it if all of them are
// true.
func ValidateConditions() []admissionv1.MatchCondition {
	return []admissionv1.MatchCondition{
		{Name: "not-being-deleted", Expression: notBeingDeleted},
		{Name: "changed", Expression: changed},
	}
}

// MutateConditions returns the match conditions of the mutating webhook: a create without targetNamespace, or an update
// that removes or changes the stored one.
func MutateConditions() []admissionv1.MatchCondition {
	return []admissionv1.MatchCondition{
		{Name: "not-being-deleted", Expression: notBeingDeleted},
		{Name: "target-namespace-missing", Expression: targetNamespaceMissing},
	}
}

// Validating returns the validating webhook configuration for the kinds that the rules evaluate. It has no caBundle:
// the webhook server or cert-manager writes it.
func Validating(rules []*validators.Rule) *admissionv1.ValidatingWebhookConfiguration {
	var kinds []schema.GroupKind
	for _, r := range rules {
		kinds = append(kinds, r.KindsAt(validators.StageAdmission)...)
	}
	fail, equivalent, none := admissionv1.Ignore, admissionv1.Equivalent, admissionv1.SideEffectClassNone
	timeout := int32(TimeoutSeconds)
	return &admissionv1.ValidatingWebhookConfiguration{
		TypeMeta:   metav1.TypeMeta{APIVersion: "admissionregistration.k8s.io/v1", Kind: "ValidatingWebhookConfiguration"},
		ObjectMeta: metav1.ObjectMeta{Name: Name, Labels: labels()},
		Webhooks: []admissionv1.ValidatingWebhook{
			{
				Name: ValidateWebhook, ClientConfig: clientConfig(ValidatePath), Rules: webhookRules(kinds), FailurePolicy: &fail,
				MatchPolicy: &equivalent, SideEffects: &none, TimeoutSeconds: &timeout, AdmissionReviewVersions: []string{"v1"},
				NamespaceSelector: namespaceSelector(metav1.LabelSelectorOpNotIn, Excluded(Namespace)...),
				MatchConditions:   ValidateConditions(),
			},
			{
				Name: PolicyWebhook, ClientConfig: clientConfig(PolicyPath),
				Rules:         webhookRules([]schema.GroupKind{{Group: PolicyGroup, Kind: "AdmissionPolicy"}}),
				FailurePolicy: &fail, MatchPolicy: &equivalent, SideEffects: &none, TimeoutSeconds: &timeout,
				AdmissionReviewVersions: []string{"v1"},
			},
		},
	}
}

// Mutating returns the mutating webhook configuration for objects of the kinds in the namespaces, without a caBundle.
func Mutating(kinds []schema.GroupKind, namespaces []string) *admissionv1.MutatingWebhookConfiguration {
	fail, equivalent, none := admissionv1.Ignore, admissionv1.Equivalent, admissionv1.SideEffectClassNone
	timeout := int32(MutateTimeoutSeconds)
	return &admissionv1.MutatingWebhookConfiguration{
		TypeMeta:   metav1.TypeMeta{APIVersion: "admissionregistration.k8s.io/v1", Kind: "MutatingWebhookConfiguration"},
		ObjectMeta: metav1.ObjectMeta{Name: Name, Labels: labels()},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name: MutateWebhook, ClientConfig: clientConfig(MutatePath), Rules: webhookRules(kinds), FailurePolicy: &fail,
			MatchPolicy: &equivalent, SideEffects: &none, TimeoutSeconds: &timeout, AdmissionReviewVersions: []string{"v1"},
			NamespaceSelector: namespaceSelector(metav1.LabelSelectorOpIn, namespaces...), MatchConditions: MutateConditions(),
		}},
	}
}

func labels() map[string]string {
	return map[string]string{"app.kubernetes.io/name": Name, "app.kubernetes.io/part-of": Name}
}

func clientConfig(path string) admissionv1.WebhookClientConfig {
	port := int32(443)
	return admissionv1.WebhookClientConfig{
		Service: &admissionv1.ServiceReference{Namespace: Namespace, Name: Name, Path: &path, Port: &port},
	}
}

// Excluded returns the namespaces whose objects are not sent to webhook servers of a namespace: those from which a cluster is
// repaired.
func Excluded(namespace string) []string { return []string{metav1.NamespaceSystem, namespace} }

// namespaceSelector selects namespaces by their names.
func namespaceSelector(operator metav1.LabelSelectorOperator, names ...string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
		Key: corev1.LabelMetadataName, Operator: operator, Values: names,
	}}}
}

// webhookRules matches creates and updates of the kinds in every version. It matches no subresource such as status or
// scale.
func webhookRules(kinds []schema.GroupKind) []admissionv1.RuleWithOperations {
	resources := map[string][]string{}
	for _, gk := range kinds {
		// CRDs name their resources as guessed here; a test checks it for every kind that a rule names.
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
	slices.SortFunc(out, func(a, b admissionv1.RuleWithOperations) int {
		return strings.Compare(a.APIGroups[0], b.APIGroups[0])
	})
	return out
}
