package kindschema

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
)

// invalidService checks a Service (pkg/apis/core/validation: ValidateService, validateServicePort).
func invalidService(o *unstructured.Unstructured) []validators.InvalidValue {
	at := validators.NewPath("spec")
	spec, ok := decode[corev1.ServiceSpec](o, at)
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
			v.required(at.Child("externalName"), " for the type ExternalName")
		}
	case len(spec.Ports) == 0 && spec.ClusterIP != corev1.ClusterIPNone:
		v.required(at.Child("ports"), ", unless clusterIP is None")
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
			v.required(at.Child("name"), " for a Service with several ports")
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

// invalidIngress checks hosts, paths and backends (pkg/apis/networking/validation: ValidateIngressSpec).
func invalidIngress(o *unstructured.Unstructured) []validators.InvalidValue {
	if o.GroupVersionKind().Version != "v1" {
		return nil
	}
	at := validators.NewPath("spec")
	spec, ok := decode[networkingv1.IngressSpec](o, at)
	if !ok {
		return nil
	}
	v := &violations{}
	if len(spec.Rules) == 0 && spec.DefaultBackend == nil {
		v.required(at.Child("rules"), ", unless defaultBackend is set")
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
			v.required(at.Child("http", "paths"), "")
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
		v.required(at.Child("pathType"), "")
	case unresolved.String(string(*p.PathType)):
	case !slices.Contains(pathTypes, *p.PathType):
		v.report(at.Child("pathType"), "must be Exact, Prefix or ImplementationSpecific")
	case !absolute && (p.Path != "" || *p.PathType != networkingv1.PathTypeImplementationSpecific):
		v.report(at.Child("path"), "must begin with /")
	}
	service := p.Backend.Service
	switch at = at.Child("backend"); {
	case service == nil && p.Backend.Resource == nil:
		v.required(at.Child("service"), "")
	case service != nil && p.Backend.Resource != nil:
		v.report(at.Child("resource"), "must not be set beside service")
	case service != nil && service.Name == "":
		v.required(at.Child("service", "name"), "")
	case service != nil && service.Port.Name == "" && service.Port.Number == 0:
		v.required(at.Child("service", "port"), ": a name or a number")
	case service != nil && service.Port.Name != "" && service.Port.Number != 0:
		v.report(at.Child("service", "port", "name"), "must not be set beside number")
	}
}
