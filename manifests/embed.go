// Package manifests holds the manifests for a cluster, and embeds the two that the program itself needs.
package manifests

import _ "embed"

// DefaultPolicy is the default policy, as YAML.
//
//go:embed policy/default.yaml
var DefaultPolicy []byte

// PolicyCRD is the CustomResourceDefinition of AdmissionPolicy, as YAML.
//
//go:embed crd/flux-admission.dev_admissionpolicies.yaml
var PolicyCRD []byte
