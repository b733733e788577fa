// Package v1alpha1 contains the API types of the AdmissionPolicy.
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

// Kind is the kind of an AdmissionPolicy.
const Kind = "AdmissionPolicy"

// Name is the only name that an AdmissionPolicy may have.
const Name = "default"

// Mode selects whether findings are enforced.
// +kubebuilder:validation:Enum=Enforce;AuditOnly
type Mode string

// The modes.
const (
	// ModeEnforce applies the action of each rule.
	ModeEnforce Mode = "Enforce"
	// ModeAuditOnly limits every action to Audit and applies no mutation.
	ModeAuditOnly Mode = "AuditOnly"
)

// Action is what happens with a finding: Off < Audit < Warn < Deny.
// +kubebuilder:validation:Enum=Off;Audit;Warn;Deny
type Action string

// The actions, mildest first.
const (
	// ActionOff disables the rule.
	ActionOff Action = "Off"
	// ActionAudit records the finding in the audit log and in metrics.
	ActionAudit Action = "Audit"
	// ActionWarn returns the finding to the client as a warning.
	ActionWarn Action = "Warn"
	// ActionDeny rejects the request.
	ActionDeny Action = "Deny"
)

// FailureAction is what happens when a rule has no result: Allow < Warn < Deny. Allow still records the failure.
// +kubebuilder:validation:Enum=Allow;Warn;Deny
type FailureAction string

// The failure actions, mildest first.
const (
	// FailureActionAllow allows the request and records the failure.
	FailureActionAllow FailureAction = "Allow"
	// FailureActionWarn allows the request and returns a warning to the client.
	FailureActionWarn FailureAction = "Warn"
	// FailureActionDeny rejects the request.
	FailureActionDeny FailureAction = "Deny"
)

// RatchetMode selects how updates treat findings that the stored object already has.
// +kubebuilder:validation:Enum=Enabled;Disabled
type RatchetMode string

// The ratchet modes.
const (
	// RatchetEnabled downgrades Deny to Warn for findings that the stored object already has.
	RatchetEnabled RatchetMode = "Enabled"
	// RatchetDisabled treats all findings alike.
	RatchetDisabled RatchetMode = "Disabled"
)

// AdmissionPolicy configures which rules and mutations flux-admission applies. A cluster has at most one AdmissionPolicy, named "default".
// Without one, the default policy built into flux-admission applies.
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=fap
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.status.mode`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'default'",message="an AdmissionPolicy must be named default"
type AdmissionPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the desired behavior.
	// +optional
	// +kubebuilder:default={}
	Spec AdmissionPolicySpec `json:"spec,omitempty"`
	// Status reports whether the policy is in effect.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status AdmissionPolicyStatus `json:"status,omitempty"`
}

// AdmissionPolicyList is a list of AdmissionPolicies.
// +kubebuilder:object:root=true
type AdmissionPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AdmissionPolicy `json:"items"`
}

// AdmissionPolicySpec is the desired behavior of an AdmissionPolicy.
type AdmissionPolicySpec struct {
	// Mode is Enforce or AuditOnly. With AuditOnly, findings are recorded, but no request is denied, warned about or mutated.
	// Defaults to Enforce.
	// +kubebuilder:default=Enforce
	// +optional
	Mode Mode `json:"mode,omitempty"`
	// OnError is what happens when a rule fails with an error or a panic. Defaults to Allow.
	// +kubebuilder:default=Allow
	// +optional
	OnError FailureAction `json:"onError,omitempty"`
	// Ratchet downgrades Deny to Warn for findings that the stored object already has, so that an update is not rejected for a problem
	// that it does not introduce. Defaults to Enabled.
	// +kubebuilder:default=Enabled
	// +optional
	Ratchet RatchetMode `json:"ratchet,omitempty"`
	// Rules are the settings of each rule, by rule name. A rule that is not listed has its default settings, unless it is newer than ruleset.
	// +optional
	Rules map[string]apiextensionsv1.JSON `json:"rules,omitempty"`
	// Ruleset is the release up to which rules that are not listed have their default actions. Those of later releases are limited to Warn. It
	// is stored when the policy is created, so that an upgrade denies nothing new until it is raised. Defaults to the release of the CRD.
	// +kubebuilder:validation:Pattern=`^v[0-9]+\.[0-9]+\.[0-9]+$`
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:default=v0.1.0
	// +optional
	Ruleset string `json:"ruleset,omitempty"`
	// Mutations are the settings of each mutation, by mutation name. A mutation that is not listed is disabled.
	// +optional
	Mutations map[string]apiextensionsv1.JSON `json:"mutations,omitempty"`
	// Overrides set another action for rules in selected namespaces. If several overrides match, the last one applies.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Overrides []Override `json:"overrides,omitempty"`
	// Exemptions exclude objects from rules. Their findings are audited but never warned about or denied. Objects cannot exempt
	// themselves.
	// +kubebuilder:validation:MaxItems=256
	// +listType=atomic
	// +optional
	Exemptions []Exemption `json:"exemptions,omitempty"`
}

// RuleSettings are the settings that all rules share. Each rule adds its own parameters.
type RuleSettings struct {
	// Action is what happens with a finding. Defaults to the rule's action in the default policy.
	// +optional
	Action Action `json:"action,omitempty"`
	// OnUnknown is what happens when the rule is inconclusive because an object that it depends on could not be read. It is limited to
	// the rule's action. Defaults to Allow.
	// +kubebuilder:default=Allow
	// +optional
	OnUnknown FailureAction `json:"onUnknown,omitempty"`
}

// Override sets another action for rules in selected namespaces.
// +kubebuilder:validation:XValidation:rule="has(self.namespaces) || has(self.namespaceSelector)",message="set namespaces, namespaceSelector or both"
type Override struct {
	// NamespaceSelector selects namespaces by label. An empty selector selects every namespace.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	// Namespaces are names of namespaces; * matches any characters. A namespace must match the names and the selector if both are set.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=63
	// +listType=set
	// +optional
	Namespaces []string `json:"namespaces,omitempty"`
	// Rules are names or IDs of rules; * means all rules.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	Rules []string `json:"rules"`
	// Action replaces the action of the rules in the selected namespaces.
	Action Action `json:"action"`
}

// Exemption excludes objects from rules.
type Exemption struct {
	// Rules are names or IDs of rules; * means all rules.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	Rules []string `json:"rules"`
	// Match selects the exempt objects. An object must match every field that is set, and at least one field must be set.
	Match ExemptionMatch `json:"match"`
	// Reason documents why the objects are exempt.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`\S`
	Reason string `json:"reason"`
	// Expires is the time (RFC 3339) from which the exemption no longer applies. Without it, the exemption does not expire.
	// +optional
	Expires *metav1.Time `json:"expires,omitempty"`
}

// ExemptionMatch selects objects.
// +kubebuilder:validation:MinProperties=1
type ExemptionMatch struct {
	// Kinds are kinds of objects, such as HelmRelease.
	// +kubebuilder:validation:MaxItems=16
	// +listType=set
	// +optional
	Kinds []string `json:"kinds,omitempty"`
	// Namespaces are names of namespaces; * matches any characters.
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=63
	// +listType=set
	// +optional
	Namespaces []string `json:"namespaces,omitempty"`
	// NamespaceSelector selects the namespaces of the objects by label. Labels of the objects themselves exempt nothing, because their authors
	// set them.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	// Names are names of objects, or of files for rules on files; * matches any characters.
	// +kubebuilder:validation:MaxItems=256
	// +listType=set
	// +optional
	Names []string `json:"names,omitempty"`
	// Paths are files of a Git tree, relative to its root, as a report names them; * matches any characters, slashes too. An exemption with
	// paths applies in checks of a tree only: at admission, an object has no file.
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=1024
	// +listType=set
	// +optional
	Paths []string `json:"paths,omitempty"`
	// Clusters are clusters of a Git tree by the directory of their entry point, or the end of it; * matches any characters, slashes too. An
	// exemption with clusters applies in checks of a tree only: the webhook does not know the name of its cluster.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=1024
	// +listType=set
	// +optional
	Clusters []string `json:"clusters,omitempty"`
}

// AdmissionPolicyStatus is the observed state of an AdmissionPolicy.
type AdmissionPolicyStatus struct {
	// ObservedGeneration is the generation that the conditions refer to.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Conditions of the policy. Accepted reports whether all parts of this generation can be used; the message names what cannot, and what applies
	// instead. Ready reports whether this generation is in force in every replica, without a part that cannot be used. Stalled is present if it
	// will not become ready without a change.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Mode is the mode in force.
	// +optional
	Mode Mode `json:"mode,omitempty"`
	// Replicas are the webhook servers and what each has in force.
	// +listType=map
	// +listMapKey=name
	// +optional
	Replicas []ReplicaStatus `json:"replicas,omitempty"`
	// ActiveRules are the rules that are evaluated, with their actions.
	// +listType=map
	// +listMapKey=name
	// +optional
	ActiveRules []ActiveRule `json:"activeRules,omitempty"`
	// InactiveRules are the rules that are not evaluated, with the reasons.
	// +listType=map
	// +listMapKey=name
	// +optional
	InactiveRules []InactiveRule `json:"inactiveRules,omitempty"`
	// Audit is the summary of the background audit.
	// +optional
	Audit *AuditStatus `json:"audit,omitempty"`
}

// AuditStatus is the summary of the background audit. It is written at most once a minute, and not while it stays the same.
type AuditStatus struct {
	// LastCompleteTime is when all objects had been evaluated, for the first time with this summary.
	LastCompleteTime metav1.Time `json:"lastCompleteTime"`
	// Objects is the number of stored objects that were evaluated.
	Objects int64 `json:"objects"`
	// Inconclusive is the number of those of which a rule could not be evaluated.
	// +optional
	Inconclusive int64 `json:"inconclusive,omitempty"`
	// Findings are the numbers of findings, by the action that the mode Enforce would take.
	Findings AuditCounts `json:"findings"`
	// Rules are the numbers by rule, those with the most denials first; at most 50.
	// +listType=map
	// +listMapKey=name
	// +optional
	Rules []NamedAuditCounts `json:"rules,omitempty"`
	// Namespaces are the numbers by namespace, those with the most denials first; at most 50. The name is empty for objects without a
	// namespace.
	// +listType=map
	// +listMapKey=name
	// +optional
	Namespaces []NamedAuditCounts `json:"namespaces,omitempty"`
	// OmittedRules is the number of rules with findings that are not listed.
	// +optional
	OmittedRules int64 `json:"omittedRules,omitempty"`
	// OmittedNamespaces is the number of namespaces with findings that are not listed.
	// +optional
	OmittedNamespaces int64 `json:"omittedNamespaces,omitempty"`
	// Roots is the number of objects that somebody has to repair so that others become ready.
	// +optional
	Roots int64 `json:"roots,omitempty"`
}

// AuditCounts are numbers of findings on stored objects, by the action that the mode Enforce would take.
type AuditCounts struct {
	// Deny is the number of findings for which objects would be refused.
	// +optional
	Deny int64 `json:"deny,omitempty"`
	// Warn is the number of findings that would be warnings.
	// +optional
	Warn int64 `json:"warn,omitempty"`
	// Audit is the number of findings that are only recorded.
	// +optional
	Audit int64 `json:"audit,omitempty"`
}

// NamedAuditCounts are the numbers of a rule or a namespace.
type NamedAuditCounts struct {
	// Name is the name of the rule or the namespace.
	Name        string `json:"name"`
	AuditCounts `json:",inline"`
}

// ReplicaStatus is what one webhook server has in force.
type ReplicaStatus struct {
	// Name identifies the replica.
	Name string `json:"name"`
	// Version is the version of the program.
	Version string `json:"version"`
	// ObservedGeneration is the generation of the policy in force; 0 if the policy is not this one.
	ObservedGeneration int64 `json:"observedGeneration"`
	// Mode is the mode in force.
	Mode Mode `json:"mode"`
	// Problems is the number of parts of the policy that this version cannot use.
	// +optional
	Problems int32 `json:"problems,omitempty"`
}

// ActiveRule is a rule that is evaluated.
type ActiveRule struct {
	// Name is the name of the rule.
	Name string `json:"name"`
	// Action is what happens with the rule's findings, limited by the mode. Overrides are not considered.
	Action Action `json:"action"`
}

// InactiveRule is a rule that is not evaluated.
type InactiveRule struct {
	// Name is the name of the rule.
	Name string `json:"name"`
	// Reason is why the rule is not evaluated.
	Reason string `json:"reason"`
}

// The types of the conditions of an AdmissionPolicy.
const (
	// ConditionAccepted reports whether all parts of a policy can be used.
	ConditionAccepted = "Accepted"
	// ConditionReady reports whether all of a policy is in force in every replica. It is read by kstatus, and so by Flux and kubectl wait.
	ConditionReady = "Ready"
	// ConditionMutationsApplied reports whether the API server sends what the policy mutates to the mutating webhook, and whether all objects have what
	// the policy sets. It is absent from a policy that mutates nothing and for which no mutating webhook is registered.
	ConditionMutationsApplied = "MutationsApplied"
	// ConditionStalled reports that a policy will not become ready without a change. It is absent otherwise.
	ConditionStalled = "Stalled"
)
