// Package manifests holds what is applied to a cluster. The two files that the program itself needs are embedded from here, so that there is
// one copy of them.
package manifests

import _ "embed"

// DefaultPolicy is the AdmissionPolicy that ships, as YAML.
//
//go:embed policy/default.yaml
var DefaultPolicy []byte

// PolicyCRD is the CustomResourceDefinition of AdmissionPolicy, as YAML.
//
//go:embed crd/flux-admission.dev_admissionpolicies.yaml
var PolicyCRD []byte
