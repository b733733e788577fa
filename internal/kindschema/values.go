package kindschema

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

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

// required reports a field that is missing, with what follows "is required" in the message.
func (v *violations) required(at validators.Path, detail string) {
	v.out = append(v.out, validators.InvalidValue{Path: at, Message: "is required" + detail, Incomplete: true})
}

// decode returns a field of the object as the Go type; false if it does not decode, which is reported as a wrong type elsewhere, or if Flux
// merges the object into another one.
func decode[T any](o *unstructured.Unstructured, at validators.Path) (*T, bool) {
	out := new(T)
	m, ok := at.Lookup(o.Object).(map[string]any)
	if !ok || merged(o) || runtime.DefaultUnstructuredConverter.FromUnstructured(m, out) != nil {
		return nil, false
	}
	return out, true
}

// merged reports whether Flux merges the object into the one in the cluster, so that it need not be complete
// (https://fluxcd.io/flux/components/kustomize/kustomizations/#controlling-the-apply-behavior-of-resources).
func merged(o *unstructured.Unstructured) bool {
	return strings.EqualFold(o.GetAnnotations()["kustomize.toolkit.fluxcd.io/ssa"], "Merge")
}
