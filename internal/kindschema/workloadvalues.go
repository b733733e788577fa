package kindschema

import (
	"slices"
	"strings"

	"github.com/robfig/cron/v3"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
)

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

// invalidStrategy checks how a Deployment replaces its Pods (pkg/apis/apps/validation: ValidateDeploymentStrategy).
func invalidStrategy(o *unstructured.Unstructured) []validators.InvalidValue {
	at := validators.NewPath("spec", "strategy")
	strategy, ok := decode[appsv1.DeploymentStrategy](o, at)
	if !ok || o.GetKind() != "Deployment" {
		return nil
	}
	switch strategy.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if strategy.RollingUpdate != nil {
			return []validators.InvalidValue{{Path: at.Child("rollingUpdate"), Message: "must not be set for the type Recreate: null removes it in a patch"}}
		}
	case "", appsv1.RollingUpdateDeploymentStrategyType:
	default:
		return []validators.InvalidValue{{Path: at.Child("type"), Message: "must be Recreate or RollingUpdate"}}
	}
	return nil
}

// invalidSchedule checks the schedule of a CronJob (pkg/apis/batch/validation: validateScheduleFormat) with the parser that the API server uses.
func invalidSchedule(o *unstructured.Unstructured) []validators.InvalidValue {
	at := validators.NewPath("spec", "schedule")
	text, ok := at.Lookup(o.Object).(string)
	switch {
	case merged(o) || at.Lookup(o.Object) != nil && !ok || strings.Contains(text, "TZ"): // a time zone in the schedule depends on the release
		return nil
	case text == "":
		return []validators.InvalidValue{{Path: at, Message: "is required", Incomplete: true}}
	}
	if _, err := cron.ParseStandard(text); err != nil {
		return []validators.InvalidValue{{Path: at, Message: "is no schedule: five fields of cron, or a name such as @daily"}}
	}
	return nil
}

// invalidAutoscaler checks the numbers of a HorizontalPodAutoscaler (pkg/apis/autoscaling/validation: validateHorizontalPodAutoscalerSpec).
func invalidAutoscaler(o *unstructured.Unstructured) []validators.InvalidValue {
	if o.GroupVersionKind().Version != "v2" {
		return nil
	}
	at := validators.NewPath("spec")
	spec, ok := decode[autoscalingv2.HorizontalPodAutoscalerSpec](o, at)
	if !ok {
		return nil
	}
	switch {
	case spec.MaxReplicas == 0 && at.Child("maxReplicas").Lookup(o.Object) == nil:
		return []validators.InvalidValue{{Path: at.Child("maxReplicas"), Message: "is required", Incomplete: true}}
	case spec.MaxReplicas < 1:
		return []validators.InvalidValue{{Path: at.Child("maxReplicas"), Message: "must be at least 1"}}
	case spec.MinReplicas != nil && spec.MaxReplicas < *spec.MinReplicas:
		return []validators.InvalidValue{{Path: at.Child("maxReplicas"), Message: "must be at least minReplicas"}}
	}
	return nil
}

// invalidBudget checks a PodDisruptionBudget (pkg/apis/policy/validation: ValidatePodDisruptionBudgetSpec).
func invalidBudget(o *unstructured.Unstructured) []validators.InvalidValue {
	at := validators.NewPath("spec")
	spec, ok := decode[policyv1.PodDisruptionBudgetSpec](o, at)
	if ok && spec.MinAvailable != nil && spec.MaxUnavailable != nil {
		return []validators.InvalidValue{{Path: at.Child("maxUnavailable"), Message: "must not be set beside minAvailable"}}
	}
	return nil
}

// invalidClaim checks a PersistentVolumeClaim (pkg/apis/core/validation: ValidatePersistentVolumeClaimSpec).
func invalidClaim(o *unstructured.Unstructured) []validators.InvalidValue {
	at := validators.NewPath("spec")
	spec, ok := decode[corev1.PersistentVolumeClaimSpec](o, at)
	if !ok {
		return nil
	}
	v := &violations{}
	if len(spec.AccessModes) == 0 {
		v.required(at.Child("accessModes"), "")
	}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOncePod}
	for i, m := range spec.AccessModes {
		if !slices.Contains(modes, m) && !unresolved.String(string(m)) {
			v.report(at.Child("accessModes").Index(i), "must be ReadWriteOnce, ReadOnlyMany, ReadWriteMany or ReadWriteOncePod")
		}
	}
	size, ok := spec.Resources.Requests[corev1.ResourceStorage]
	switch at = at.Child("resources", "requests", "storage"); {
	case !ok:
		v.required(at, "")
	case size.Sign() <= 0:
		v.report(at, "must be more than zero")
	}
	return v.out
}
