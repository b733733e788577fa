// Package v1alpha1 is the API of the AdmissionPolicy.
// +kubebuilder:object:generate=true
// +groupName=flux-admission.dev
package v1alpha1

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the API group and version of this package.
var GroupVersion = schema.GroupVersion{Group: "flux-admission.dev", Version: "v1alpha1"}

// Kind is the only kind of this package.
const Kind = "AdmissionPolicy"

// Name is the only name that an AdmissionPolicy may have.
const Name = "default"

// Mode says whether the gate refuses at all.
// +kubebuilder:validation:Enum=Enforce;AuditOnly
type Mode string

// The modes.
const (
	Enforce   Mode = "Enforce"
	AuditOnly Mode = "AuditOnly"
)

// Action is what is done about a finding.
// +kubebuilder:validation:Enum=Off;Audit;Warn;Deny
type Action string

// The actions, mildest first.
const (
	Off   Action = "Off"
	Audit Action = "Audit"
	Warn  Action = "Warn"
	Deny  Action = "Deny"
)

// Answer is what is done where there is no verdict.
// +kubebuilder:validation:Enum=Allow;Warn;Deny
type Answer string

// The answers.
const (
	AnswerAllow Answer = "Allow"
	AnswerWarn  Answer = "Warn"
	AnswerDeny  Answer = "Deny"
)

// Switch turns something on or off.
// +kubebuilder:validation:Enum=Enabled;Disabled
type Switch string

// The two positions of a Switch.
const (
	Enabled  Switch = "Enabled"
	Disabled Switch = "Disabled"
)

// AdmissionPolicy says what flux-admission does about what its rules find. There is one in a cluster, and its name is `default`. Without it
// the policy that ships with flux-admission is in force.
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=fap
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Accepted")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'default'",message="the one AdmissionPolicy of a cluster is named default"
type AdmissionPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	// +kubebuilder:default={}
	Spec AdmissionPolicySpec `json:"spec,omitempty"`
	// +optional
	Status AdmissionPolicyStatus `json:"status,omitempty"`
}

// AdmissionPolicyList is a list of AdmissionPolicies.
// +kubebuilder:object:root=true
type AdmissionPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AdmissionPolicy `json:"items"`
}

// AdmissionPolicySpec is what is wanted.
type AdmissionPolicySpec struct {
	// Mode is Enforce, or AuditOnly: nothing is refused, warned about or changed, and everything is recorded.
	// +kubebuilder:default=Enforce
	// +optional
	Mode Mode `json:"mode,omitempty"`
	// OnError is what is done when a rule cannot run, because of an error or a panic inside it.
	// +kubebuilder:default=Allow
	// +optional
	OnError Answer `json:"onError,omitempty"`
	// Ratchet: when Enabled, an update is not refused for a problem that the stored object has already; it is warned about instead.
	// +kubebuilder:default=Enabled
	// +optional
	Ratchet Switch `json:"ratchet,omitempty"`
	// Rules says what each rule does, by the rule's name. A rule that is not named here warns at most, so that a new release with new rules
	// refuses nothing by itself.
	// +optional
	Rules map[string]apiextensionsv1.JSON `json:"rules,omitempty"`
	// Mutations are the settings of each mutation, by its name. One that is not named here does nothing.
	// +optional
	Mutations map[string]apiextensionsv1.JSON `json:"mutations,omitempty"`
	// Overrides give named rules another action in some namespaces. Where several fit, the last one counts.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Overrides []Override `json:"overrides,omitempty"`
	// Exemptions take objects out of rules: what is found there is recorded and nothing else. They stand here and nowhere else: an object
	// cannot except itself.
	// +kubebuilder:validation:MaxItems=256
	// +listType=atomic
	// +optional
	Exemptions []Exemption `json:"exemptions,omitempty"`
}

// RuleSettings is the part of a rule's settings that all rules have; the rule's own parameters stand beside it.
type RuleSettings struct {
	// Action is what is done about a finding. The default is the rule's own: Deny for an error, Warn for a warning, Audit for the rest.
	// +optional
	Action Action `json:"action,omitempty"`
	// OnUnknown is what is done when the rule cannot tell, because something could not be seen.
	// +kubebuilder:default=Allow
	// +optional
	OnUnknown Answer `json:"onUnknown,omitempty"`
}

// Override gives rules another action in some namespaces.
type Override struct {
	// NamespaceSelector selects namespaces by their labels. An empty selector selects every namespace.
	NamespaceSelector metav1.LabelSelector `json:"namespaceSelector"`
	// Rules are names of rules.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	Rules []string `json:"rules"`
	// Action is what these rules do there.
	Action Action `json:"action"`
}

// Exemption takes objects out of rules.
type Exemption struct {
	// Rules are names of rules.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	Rules []string `json:"rules"`
	// Match selects the objects. Every field that is set has to fit; at least one is.
	Match ExceptionMatch `json:"match"`
	// Reason says why, for whoever reads the policy in a year.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`\S`
	Reason string `json:"reason"`
	// Expires ends the exemption at that time, RFC 3339.
	// +optional
	Expires *metav1.Time `json:"expires,omitempty"`
}

// ExceptionMatch selects objects.
// +kubebuilder:validation:MinProperties=1
type ExceptionMatch struct {
	// Kinds are kinds of objects, such as HelmRelease.
	// +kubebuilder:validation:MaxItems=16
	// +listType=set
	// +optional
	Kinds []string `json:"kinds,omitempty"`
	// Namespaces are exact names of namespaces.
	// +kubebuilder:validation:MaxItems=256
	// +listType=set
	// +optional
	Namespaces []string `json:"namespaces,omitempty"`
	// Names are exact names of objects.
	// +kubebuilder:validation:MaxItems=256
	// +listType=set
	// +optional
	Names []string `json:"names,omitempty"`
	// Selector selects by the object's labels.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// AdmissionPolicyStatus is what became of it.
type AdmissionPolicyStatus struct {
	// ObservedGeneration is the generation that the conditions speak of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Conditions: Accepted tells whether this generation is in force. When it is not, the last good one still is.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// ActiveRules are the rules that run, with their actions.
	// +listType=map
	// +listMapKey=name
	// +optional
	ActiveRules []ActiveRule `json:"activeRules,omitempty"`
	// InactiveRules are the rules that do not run, and why.
	// +listType=map
	// +listMapKey=name
	// +optional
	InactiveRules []InactiveRule `json:"inactiveRules,omitempty"`
}

// ActiveRule is a rule that runs.
type ActiveRule struct {
	Name string `json:"name"`
	// Action is what it does where no override says otherwise, with the mode taken into account.
	Action Action `json:"action"`
}

// InactiveRule is a rule that does not run.
type InactiveRule struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// ConditionAccepted is the type of the condition that tells whether a policy is in force.
const ConditionAccepted = "Accepted"
