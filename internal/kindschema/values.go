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
	switch gvk := o.GroupVersionKind(); gvk.Group {
	case "":
		switch gvk.Kind {
		case "ConfigMap", "Secret":
			return invalidKeys(o)
		case "Service":
			return invalidPorts(o, validators.NewPath("spec", "ports"), "port")
		case "Pod":
			return invalidPodPorts(o, validators.NewPath("spec"))
		case "ReplicationController":
			return invalidPodPorts(o, validators.NewPath("spec", "template", "spec"))
		}
	case "apps":
		switch gvk.Kind {
		case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet":
			return append(unselectedTemplate(o), invalidPodPorts(o, validators.NewPath("spec", "template", "spec"))...)
		}
	case "batch":
		switch gvk.Kind {
		case "Job":
			return invalidPodPorts(o, validators.NewPath("spec", "template", "spec"))
		case "CronJob":
			return invalidPodPorts(o, validators.NewPath("spec", "jobTemplate", "spec", "template", "spec"))
		}
	}
	return nil
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

// invalidPorts checks the port numbers of a list (pkg/apis/core/validation: validateServicePort, validateContainerPorts).
func invalidPorts(o *unstructured.Unstructured, at validators.Path, name string) []validators.InvalidValue {
	list, _ := at.Lookup(o.Object).([]any)
	var out []validators.InvalidValue
	for i, item := range list {
		port, _ := item.(map[string]any)
		if n, ok := port[name].(int64); ok {
			if errs := validation.IsValidPortNum(int(n)); len(errs) > 0 {
				out = append(out, validators.InvalidValue{Path: at.Index(i).Child(name), Message: strings.Join(errs, "; ")})
			}
		}
	}
	return out
}

func invalidPodPorts(o *unstructured.Unstructured, spec validators.Path) []validators.InvalidValue {
	var out []validators.InvalidValue
	for _, field := range []string{"containers", "initContainers"} {
		at := spec.Child(field)
		list, _ := at.Lookup(o.Object).([]any)
		for i := range list {
			out = append(out, invalidPorts(o, at.Index(i).Child("ports"), "containerPort")...)
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
