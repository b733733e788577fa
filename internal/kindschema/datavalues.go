package kindschema

import (
	"encoding/base64"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/flux-admission/flux-admission/validators"
)

// invalidKeys checks the keys of data (pkg/apis/core/validation: ValidateConfigMap, ValidateSecret).
func invalidKeys(o *unstructured.Unstructured) []validators.InvalidValue {
	var out []validators.InvalidValue
	for _, field := range []string{"data", "binaryData", "stringData"} {
		m, _ := o.Object[field].(map[string]any)
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if errs := validation.IsConfigMapKey(k); len(errs) > 0 {
				out = append(out, validators.InvalidValue{
					Path: validators.NewPath(field, k), Message: "has an invalid key: " + strings.Join(errs, "; "),
				})
			}
		}
	}
	return out
}

// oversized reports data that is larger than the API server allows (core.MaxSecretSize, for ConfigMaps too).
func oversized(o *unstructured.Unstructured) []validators.InvalidValue {
	plain, _ := o.Object["stringData"].(map[string]any)
	size := 0
	for _, field := range []string{"data", "stringData", "binaryData"} {
		m, _ := o.Object[field].(map[string]any)
		for k, value := range m {
			text, _ := value.(string)
			switch _, replaced := plain[k]; {
			case field == "data" && replaced: // stringData has the value
			case field == "binaryData", field == "data" && o.GetKind() == "Secret":
				decoded, err := base64.StdEncoding.DecodeString(text)
				if err != nil {
					return nil // reported as a wrong type
				}
				size += len(decoded)
			default:
				size += len(text)
			}
		}
	}
	if size <= corev1.MaxSecretSize {
		return nil
	}
	return []validators.InvalidValue{{Path: validators.NewPath("data"), Message: "is too large: at most 1048576 bytes together"}}
}

// copyFrom is the annotation by which Flux Operator fills the data of a Secret of a ResourceSet before it applies it
// (https://fluxoperator.dev/docs/crd/resourceset/#copying-data-from-existing-configmaps-and-secrets).
const copyFrom = "fluxcd.controlplane.io/copyFrom"

// missingSecretKeys checks the keys that a type of Secret requires (pkg/apis/core/validation: ValidateSecret).
func missingSecretKeys(o *unstructured.Unstructured) []validators.InvalidValue {
	if _, copied := o.GetAnnotations()[copyFrom]; copied || merged(o) {
		return nil
	}
	kind, _ := o.Object["type"].(string)
	data, _ := o.Object["data"].(map[string]any)
	plain, _ := o.Object["stringData"].(map[string]any)
	has := func(key string) bool {
		_, a := data[key]
		_, b := plain[key]
		return a || b
	}
	var required []string
	switch corev1.SecretType(kind) {
	case corev1.SecretTypeOpaque, corev1.SecretTypeServiceAccountToken, corev1.SecretTypeBootstrapToken:
	case corev1.SecretTypeTLS:
		required = []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey}
	case corev1.SecretTypeDockerConfigJson:
		required = []string{corev1.DockerConfigJsonKey}
	case corev1.SecretTypeDockercfg:
		required = []string{corev1.DockerConfigKey}
	case corev1.SecretTypeSSHAuth:
		required = []string{corev1.SSHAuthPrivateKey}
	case corev1.SecretTypeBasicAuth:
		if !has(corev1.BasicAuthPasswordKey) {
			required = []string{corev1.BasicAuthUsernameKey}
		}
	}
	var out []validators.InvalidValue
	for _, key := range required {
		if !has(key) {
			out = append(out, validators.InvalidValue{Path: validators.NewPath("data", key), Message: "is required for a Secret of this type", Incomplete: true})
		}
	}
	return out
}
