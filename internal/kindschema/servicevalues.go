package kindschema

import (
	"encoding/base64"
	"net/netip"
	"slices"
	"strings"

	"github.com/robfig/cron/v3"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
)

// invalidService checks a Service (pkg/apis/core/validation: ValidateService, validateServicePort).
func invalidService(o *unstructured.Unstructured) []validators.InvalidValue {
	spec, at, ok := decode[corev1.ServiceSpec](o, "spec")
	if !ok {
		return nil
	}
	v := &violations{}
	types := []corev1.ServiceType{"", corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName}
	switch {
	case unresolved.String(string(spec.Type)):
	case !slices.Contains(types, spec.Type):
		v.report(at.Child("type"), "must be ClusterIP, NodePort, LoadBalancer or ExternalName")
	case spec.Type == corev1.ServiceTypeExternalName:
		if spec.ExternalName == "" {
			v.report(at.Child("externalName"), "is required for the type ExternalName")
		}
	case len(spec.Ports) == 0 && spec.ClusterIP != corev1.ClusterIPNone:
		v.report(at.Child("ports"), "is required, unless clusterIP is None")
	}
	at = at.Child("ports")
	names := map[string]bool{}
	for i := range spec.Ports {
		p, at := &spec.Ports[i], at.Index(i)
		if errs := validation.IsValidPortNum(int(p.Port)); len(errs) > 0 {
			v.report(at.Child("port"), strings.Join(errs, "; "))
		}
		if !knownProtocol(p.Protocol) {
			v.report(at.Child("protocol"), "must be TCP, UDP or SCTP")
		}
		switch {
		case p.Name == "" && len(spec.Ports) > 1:
			v.report(at.Child("name"), "is required for a Service with several ports")
		case p.Name == "" || unresolved.String(p.Name):
		case len(validation.IsDNS1123Label(p.Name)) > 0:
			v.report(at.Child("name"), "is no name of a port: "+strings.Join(validation.IsDNS1123Label(p.Name), "; "))
		case names[p.Name]:
			v.report(at.Child("name"), "duplicates the name of another port in the list")
		}
		names[p.Name] = true
		var errs []string
		switch {
		case p.TargetPort == intstr.IntOrString{} || unresolved.String(p.TargetPort.StrVal): // the default is the port
		case p.TargetPort.Type == intstr.Int:
			errs = validation.IsValidPortNum(p.TargetPort.IntValue())
		default:
			errs = validation.IsValidPortName(p.TargetPort.StrVal)
		}
		if len(errs) > 0 {
			v.report(at.Child("targetPort"), strings.Join(errs, "; "))
		}
	}
	return v.out
}

// invalidClaim checks a PersistentVolumeClaim (pkg/apis/core/validation: ValidatePersistentVolumeClaimSpec).
func invalidClaim(o *unstructured.Unstructured) []validators.InvalidValue {
	spec, at, ok := decode[corev1.PersistentVolumeClaimSpec](o, "spec")
	if !ok {
		return nil
	}
	v := &violations{}
	if len(spec.AccessModes) == 0 {
		v.report(at.Child("accessModes"), "is required")
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
		v.report(at, "is required")
	case size.Sign() <= 0:
		v.report(at, "must be more than zero")
	}
	return v.out
}

// invalidSchedule checks the schedule of a CronJob (pkg/apis/batch/validation: validateScheduleFormat) with the parser that the API server uses.
func invalidSchedule(o *unstructured.Unstructured) []validators.InvalidValue {
	at := validators.NewPath("spec", "schedule")
	text, ok := at.Lookup(o.Object).(string)
	switch {
	case merged(o) || at.Lookup(o.Object) != nil && !ok || strings.Contains(text, "TZ"): // a time zone in the schedule depends on the release
		return nil
	case text == "":
		return []validators.InvalidValue{{Path: at, Message: "is required"}}
	}
	if _, err := cron.ParseStandard(text); err != nil {
		return []validators.InvalidValue{{Path: at, Message: "is no schedule: five fields of cron, or a name such as @daily"}}
	}
	return nil
}

// invalidStrategy checks how a Deployment replaces its Pods (pkg/apis/apps/validation: ValidateDeploymentStrategy).
func invalidStrategy(o *unstructured.Unstructured) []validators.InvalidValue {
	strategy, at, ok := decode[appsv1.DeploymentStrategy](o, "spec", "strategy")
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

// invalidAutoscaler checks the numbers of a HorizontalPodAutoscaler (pkg/apis/autoscaling/validation: validateHorizontalPodAutoscalerSpec).
func invalidAutoscaler(o *unstructured.Unstructured) []validators.InvalidValue {
	if o.GroupVersionKind().Version != "v2" {
		return nil
	}
	spec, at, ok := decode[autoscalingv2.HorizontalPodAutoscalerSpec](o, "spec")
	if !ok {
		return nil
	}
	switch {
	case spec.MaxReplicas == 0 && at.Child("maxReplicas").Lookup(o.Object) == nil:
		return []validators.InvalidValue{{Path: at.Child("maxReplicas"), Message: "is required"}}
	case spec.MaxReplicas < 1:
		return []validators.InvalidValue{{Path: at.Child("maxReplicas"), Message: "must be at least 1"}}
	case spec.MinReplicas != nil && spec.MaxReplicas < *spec.MinReplicas:
		return []validators.InvalidValue{{Path: at.Child("maxReplicas"), Message: "must be at least minReplicas"}}
	}
	return nil
}

// invalidBudget checks a PodDisruptionBudget (pkg/apis/policy/validation: ValidatePodDisruptionBudgetSpec).
func invalidBudget(o *unstructured.Unstructured) []validators.InvalidValue {
	spec, at, ok := decode[policyv1.PodDisruptionBudgetSpec](o, "spec")
	if ok && spec.MinAvailable != nil && spec.MaxUnavailable != nil {
		return []validators.InvalidValue{{Path: at.Child("maxUnavailable"), Message: "must not be set beside minAvailable"}}
	}
	return nil
}

// invalidIngress checks hosts, paths and backends (pkg/apis/networking/validation: ValidateIngressSpec).
func invalidIngress(o *unstructured.Unstructured) []validators.InvalidValue {
	if o.GroupVersionKind().Version != "v1" {
		return nil
	}
	spec, at, ok := decode[networkingv1.IngressSpec](o, "spec")
	if !ok {
		return nil
	}
	v := &violations{}
	if len(spec.Rules) == 0 && spec.DefaultBackend == nil {
		v.report(at.Child("rules"), "is required, unless defaultBackend is set")
	}
	for i := range spec.Rules {
		rule, at := &spec.Rules[i], at.Child("rules").Index(i)
		if host := rule.Host; host != "" && !unresolved.String(host) {
			errs := validation.IsDNS1123Subdomain(host)
			if strings.Contains(host, "*") {
				errs = validation.IsWildcardDNS1123Subdomain(host)
			}
			if _, err := netip.ParseAddr(host); err == nil {
				errs = []string{"must be a name, not an IP address"}
			}
			if len(errs) > 0 {
				v.report(at.Child("host"), "is no name of a host: "+strings.Join(errs, "; "))
			}
		}
		if rule.HTTP == nil {
			continue
		}
		if len(rule.HTTP.Paths) == 0 {
			v.report(at.Child("http", "paths"), "is required")
		}
		for j := range rule.HTTP.Paths {
			v.ingressPath(&rule.HTTP.Paths[j], at.Child("http", "paths").Index(j))
		}
	}
	return v.out
}

func (v *violations) ingressPath(p *networkingv1.HTTPIngressPath, at validators.Path) {
	pathTypes := []networkingv1.PathType{networkingv1.PathTypeExact, networkingv1.PathTypePrefix, networkingv1.PathTypeImplementationSpecific}
	absolute := strings.HasPrefix(p.Path, "/") || unresolved.String(p.Path)
	switch {
	case p.PathType == nil:
		v.report(at.Child("pathType"), "is required")
	case unresolved.String(string(*p.PathType)):
	case !slices.Contains(pathTypes, *p.PathType):
		v.report(at.Child("pathType"), "must be Exact, Prefix or ImplementationSpecific")
	case !absolute && (p.Path != "" || *p.PathType != networkingv1.PathTypeImplementationSpecific):
		v.report(at.Child("path"), "must begin with /")
	}
	service := p.Backend.Service
	switch at = at.Child("backend"); {
	case service == nil && p.Backend.Resource == nil:
		v.report(at.Child("service"), "is required")
	case service != nil && p.Backend.Resource != nil:
		v.report(at.Child("resource"), "must not be set beside service")
	case service != nil && service.Name == "":
		v.report(at.Child("service", "name"), "is required")
	case service != nil && service.Port.Name == "" && service.Port.Number == 0:
		v.report(at.Child("service", "port"), "is required: a name or a number")
	case service != nil && service.Port.Name != "" && service.Port.Number != 0:
		v.report(at.Child("service", "port", "name"), "must not be set beside number")
	}
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
			out = append(out, validators.InvalidValue{Path: validators.NewPath("data", key), Message: "is required for a Secret of this type"})
		}
	}
	return out
}
