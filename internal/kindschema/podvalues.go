package kindschema

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
)

// The values of spec.restartPolicy that a kind allows in its Pods; the first one is the default, unless it is empty.
var (
	anyRestart       = []corev1.RestartPolicy{corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}
	alwaysRestart    = []corev1.RestartPolicy{corev1.RestartPolicyAlways}
	neverOrOnFailure = []corev1.RestartPolicy{"", corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}
)

// podValues collects what the API server rejects of a Pod or a Pod template.
type podValues struct {
	violations
	volumes map[string]bool
	// open means that the name of a volume is not known.
	open bool
}

// invalidPod checks a Pod, or the Pod template of another kind at a path (pkg/apis/core/validation: ValidatePodSpec; for restartPolicy
// also pkg/apis/apps/validation and pkg/apis/batch/validation). What does not decode is reported as a wrong type elsewhere.
func invalidPod(o *unstructured.Unstructured, template validators.Path, restart []corev1.RestartPolicy) []validators.InvalidValue {
	at := template.Child("spec")
	spec, ok := decode[corev1.PodSpec](o, at)
	if !ok {
		return nil
	}
	v := &podValues{volumes: map[string]bool{}}
	v.addVolumes(o, at, spec)
	if len(spec.Containers) == 0 {
		v.required(at.Child("containers"), ": a Pod has at least one container")
	}
	policy := spec.RestartPolicy
	if policy == "" {
		policy = restart[0]
	}
	switch {
	case unresolved.String(string(policy)):
	case policy == "":
		v.required(at.Child("restartPolicy"), " for a Job: OnFailure or Never; the default, Always, is not allowed")
	case !slices.Contains(restart, policy):
		v.report(at.Child("restartPolicy"), "must be "+oneOf(restart))
	}
	for i := range spec.InitContainers {
		v.container(&spec.InitContainers[i], at.Child("initContainers").Index(i))
	}
	for i := range spec.Containers {
		c, at := &spec.Containers[i], at.Child("containers").Index(i)
		v.container(c, at)
		// Only the readiness of a Pod may take several successes (validateLivenessProbe, validateStartupProbe).
		for name, probe := range map[string]*corev1.Probe{"livenessProbe": c.LivenessProbe, "startupProbe": c.StartupProbe} {
			if probe != nil && probe.SuccessThreshold > 1 {
				v.report(at.Child(name, "successThreshold"), "must be 1")
			}
		}
	}
	return v.out
}

func oneOf(policies []corev1.RestartPolicy) string {
	var names []string
	for _, p := range policies {
		if p != "" {
			names = append(names, string(p))
		}
	}
	return strings.Join(names, " or ")
}

// addVolumes reads the names of volumes, those that a StatefulSet claims among them, and reports those of two types.
func (v *podValues) addVolumes(o *unstructured.Unstructured, at validators.Path, spec *corev1.PodSpec) {
	add := func(name string) {
		v.volumes[name] = true
		v.open = v.open || unresolved.String(name)
	}
	list, _ := at.Child("volumes").Lookup(o.Object).([]any)
	for i := range spec.Volumes {
		add(spec.Volumes[i].Name)
		at := at.Child("volumes").Index(i)
		if name := spec.Volumes[i].Name; !unresolved.String(name) {
			if errs := validation.IsDNS1123Label(name); len(errs) > 0 {
				v.report(at.Child("name"), "is no name of a volume: "+strings.Join(errs, "; "))
			}
		}
		fields, _ := list[i].(map[string]any)
		sources := 0
		for k, value := range fields {
			if k != "name" && value != nil {
				sources++
			}
		}
		if sources > 1 {
			v.report(at, "must have one type of volume, has more")
		}
	}
	claims, _ := validators.NewPath("spec", "volumeClaimTemplates").Lookup(o.Object).([]any)
	for _, c := range claims {
		claim, _ := c.(map[string]any)
		name, _ := validators.NewPath("metadata", "name").Lookup(claim).(string)
		add(name)
	}
}

// container checks a container (pkg/apis/core/validation: validateContainerCommon).
func (v *podValues) container(c *corev1.Container, at validators.Path) {
	if c.Name == "" {
		v.required(at.Child("name"), "")
	} else if errs := validation.IsDNS1123Label(c.Name); len(errs) > 0 && !unresolved.String(c.Name) {
		v.report(at.Child("name"), "is no name of a container: "+strings.Join(errs, "; "))
	}
	if c.Image == "" {
		v.required(at.Child("image"), "")
	}
	v.ports(c.Ports, at.Child("ports"))
	for i := range c.Env {
		v.env(&c.Env[i], at.Child("env").Index(i))
	}
	for i := range c.VolumeMounts {
		m, at := &c.VolumeMounts[i], at.Child("volumeMounts").Index(i)
		if !v.open && !unresolved.String(m.Name) && !v.volumes[m.Name] {
			v.out = append(v.out, validators.InvalidValue{Path: at.Child("name"), Message: "names no volume of the Pod", Incomplete: true})
		}
		if m.MountPath == "" {
			v.required(at.Child("mountPath"), "")
		}
		for _, sub := range []struct{ field, path string }{{"subPath", m.SubPath}, {"subPathExpr", m.SubPathExpr}} {
			if strings.HasPrefix(sub.path, "/") || slices.Contains(strings.Split(sub.path, "/"), "..") {
				v.report(at.Child(sub.field), "must be a relative path without '..'")
			}
		}
	}
	for name, request := range c.Resources.Requests {
		if limit, ok := c.Resources.Limits[name]; ok && request.Cmp(limit) > 0 {
			v.report(at.Child("resources", "requests", string(name)), "must not be more than the limit")
		}
	}
	for name, probe := range map[string]*corev1.Probe{
		"livenessProbe": c.LivenessProbe, "readinessProbe": c.ReadinessProbe, "startupProbe": c.StartupProbe,
	} {
		if probe != nil {
			v.probe(&probe.ProbeHandler, at.Child(name))
		}
	}
}

// probe checks that a probe has one handler, with a port (pkg/apis/core/validation: validateHandler).
func (v *podValues) probe(h *corev1.ProbeHandler, at validators.Path) {
	handlers := 0
	port := func(name string, value intstr.IntOrString) {
		handlers++
		var errs []string
		if value.Type == intstr.Int {
			errs = validation.IsValidPortNum(value.IntValue())
		} else if !unresolved.String(value.StrVal) {
			errs = validation.IsValidPortName(value.StrVal)
		}
		if len(errs) > 0 {
			v.report(at.Child(name, "port"), strings.Join(errs, "; "))
		}
	}
	if h.Exec != nil {
		handlers++
		if len(h.Exec.Command) == 0 {
			v.required(at.Child("exec", "command"), "")
		}
	}
	if h.HTTPGet != nil {
		port("httpGet", h.HTTPGet.Port)
	}
	if h.TCPSocket != nil {
		port("tcpSocket", h.TCPSocket.Port)
	}
	if h.GRPC != nil {
		port("grpc", intstr.FromInt32(h.GRPC.Port))
	}
	switch {
	case handlers == 0:
		v.required(at, " to have one of exec, httpGet, tcpSocket and grpc")
	case handlers > 1:
		v.report(at, "must have one of exec, httpGet, tcpSocket and grpc, has more: null removes one in a patch")
	}
}

// ports checks the ports of a container (validateContainerPorts).
func (v *podValues) ports(ports []corev1.ContainerPort, at validators.Path) {
	names := map[string]bool{}
	for i := range ports {
		p, at := &ports[i], at.Index(i)
		if errs := validation.IsValidPortNum(int(p.ContainerPort)); len(errs) > 0 {
			v.report(at.Child("containerPort"), strings.Join(errs, "; "))
		}
		if errs := validation.IsValidPortNum(int(p.HostPort)); p.HostPort != 0 && len(errs) > 0 {
			v.report(at.Child("hostPort"), strings.Join(errs, "; "))
		}
		if !knownProtocol(p.Protocol) {
			v.report(at.Child("protocol"), "must be TCP, UDP or SCTP")
		}
		if p.Name == "" || unresolved.String(p.Name) {
			continue
		}
		if errs := validation.IsValidPortName(p.Name); len(errs) > 0 {
			v.report(at.Child("name"), "is no name of a port: "+strings.Join(errs, "; "))
		} else if names[p.Name] {
			v.report(at.Child("name"), "duplicates the name of another port in the list")
		}
		names[p.Name] = true
	}
}

func knownProtocol(p corev1.Protocol) bool {
	return p == "" || unresolved.String(string(p)) || slices.Contains([]corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}, p)
}

// env checks an environment variable (ValidateEnv).
func (v *podValues) env(e *corev1.EnvVar, at validators.Path) {
	if e.Name == "" {
		v.required(at.Child("name"), "")
	} else if errs := validation.IsRelaxedEnvVarName(e.Name); len(errs) > 0 {
		v.report(at.Child("name"), "is no name of an environment variable: "+strings.Join(errs, "; "))
	}
	if e.ValueFrom == nil {
		return
	}
	f, sources := e.ValueFrom, 0
	for _, set := range []bool{f.FieldRef != nil, f.ResourceFieldRef != nil, f.ConfigMapKeyRef != nil, f.SecretKeyRef != nil, f.FileKeyRef != nil} {
		if set {
			sources++
		}
	}
	at = at.Child("valueFrom")
	switch {
	case sources == 0:
		v.required(at, " to have one of fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef and fileKeyRef")
	case e.Value != "":
		v.report(at, "must not be set beside value")
	case sources > 1:
		v.report(at, "must have one source, has more")
	}
	if f.ConfigMapKeyRef != nil && f.ConfigMapKeyRef.Key == "" {
		v.required(at.Child("configMapKeyRef", "key"), "")
	}
	if f.SecretKeyRef != nil && f.SecretKeyRef.Key == "" {
		v.required(at.Child("secretKeyRef", "key"), "")
	}
}
