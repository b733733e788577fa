package kindschema

import (
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/flux-admission/flux-admission/validators"
)

// invalidBuiltIn returns values of built-in types that their Go types can hold and the API server rejects all the same. The API server's own
// checks are in k8s.io/kubernetes, which is not imported: each of these names its source there, as of Kubernetes 1.37.
func invalidBuiltIn(o *unstructured.Unstructured) []validators.InvalidValue {
	template := validators.NewPath("spec", "template")
	switch gvk := o.GroupVersionKind(); gvk.Group {
	case "":
		switch gvk.Kind {
		case "ConfigMap":
			return append(invalidKeys(o), oversized(o)...)
		case "Secret":
			return slices.Concat(invalidKeys(o), oversized(o), missingSecretKeys(o))
		case "Service":
			return invalidService(o)
		case "PersistentVolumeClaim":
			return invalidClaim(o)
		case "Pod":
			return invalidPod(o, nil, anyRestart)
		case "ReplicationController":
			return invalidPod(o, template, alwaysRestart)
		}
	case "apps":
		switch gvk.Kind {
		case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet":
			return slices.Concat(unselectedTemplate(o), invalidPod(o, template, alwaysRestart), invalidStrategy(o))
		}
	case "batch":
		switch gvk.Kind {
		case "Job":
			return invalidPod(o, template, neverOrOnFailure)
		case "CronJob":
			return append(invalidPod(o, validators.NewPath("spec", "jobTemplate", "spec", "template"), neverOrOnFailure), invalidSchedule(o)...)
		}
	case "autoscaling":
		if gvk.Kind == "HorizontalPodAutoscaler" {
			return invalidAutoscaler(o)
		}
	case "networking.k8s.io":
		if gvk.Kind == "Ingress" {
			return invalidIngress(o)
		}
	case "policy":
		if gvk.Kind == "PodDisruptionBudget" {
			return invalidBudget(o)
		}
	}
	return nil
}

// violations collects what the API server rejects of an object.
type violations struct{ out []validators.InvalidValue }

func (v *violations) report(at validators.Path, message string) {
	v.out = append(v.out, validators.InvalidValue{Path: at, Message: message})
}

// decode returns a field of the object as the Go type; false if it does not decode, which is reported as a wrong type elsewhere, or if Flux
// merges the object into another one.
func decode[T any](o *unstructured.Unstructured, fields ...string) (*T, validators.Path, bool) {
	at, out := validators.NewPath(fields...), new(T)
	m, ok := at.Lookup(o.Object).(map[string]any)
	if !ok || merged(o) || runtime.DefaultUnstructuredConverter.FromUnstructured(m, out) != nil {
		return nil, nil, false
	}
	return out, at, true
}

// merged reports whether Flux merges the object into the one in the cluster, so that it need not be complete
// (https://fluxcd.io/flux/components/kustomize/kustomizations/#controlling-the-apply-behavior-of-resources).
func merged(o *unstructured.Unstructured) bool {
	return strings.EqualFold(o.GetAnnotations()["kustomize.toolkit.fluxcd.io/ssa"], "Merge")
}

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

// unselectedTemplate reports a selector that does not select the object's own template (pkg/apis/apps/validation:
// ValidatePodTemplateSpecForReplicaSet and its like).
func unselectedTemplate(o *unstructured.Unstructured) []validators.InvalidValue {
	at := validators.NewPath("spec", "selector")
	m, ok := at.Lookup(o.Object).(map[string]any)
	if !ok {
		return nil
	}
	if _, ok := validators.NewPath("spec", "template").Lookup(o.Object).(map[string]any); !ok {
		return nil
	}
	parsed := &metav1.LabelSelector{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(m, parsed); err != nil {
		return nil // a wrong type, which is reported for its own
	}
	selector, err := metav1.LabelSelectorAsSelector(parsed)
	if err != nil {
		return []validators.InvalidValue{{Path: at, Message: "is no label selector"}}
	}
	if selector.Empty() {
		return []validators.InvalidValue{{Path: at, Message: "selects everything: an empty selector is not allowed"}}
	}
	template, _, err := unstructured.NestedStringMap(o.Object, "spec", "template", "metadata", "labels")
	if err != nil {
		return nil // as above
	}
	if !selector.Matches(labels.Set(template)) {
		return []validators.InvalidValue{{Path: at, Message: "must match the labels of the object's own template, spec.template.metadata.labels"}}
	}
	return nil
}
