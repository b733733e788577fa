package kustomization

import (
	"slices"
	"strings"
)

// secretSource is a custom resource whose controller may create Secrets: one with a field such as spec.secretName.
// Controllers name the Secret after that field, often together with the name of the resource.
type secretSource struct {
	object *Object
	names  []string
}

// settingsGroups are the API groups of widely used custom resources whose controllers install nothing in the namespace.
var settingsGroups = []string{
	"monitoring.coreos.com", "external-secrets.io", "generators.external-secrets.io", "cert-manager.io", "acme.cert-manager.io",
	"bitnami.com", "cilium.io", "gateway.envoyproxy.io", "traefik.io", "traefik.containo.us", "volsync.backube", "kyverno.io",
	"networking.istio.io", "security.istio.io", "metallb.io", "grafana.integreatly.org", "keda.sh", "velero.io",
}

// isCustom reports whether an object is a custom resource of neither Kubernetes nor Flux in the cluster of the tree.
func isCustom(o *Object) bool {
	group := o.GroupVersionKind().Group
	return strings.Contains(group, ".") && !strings.HasSuffix(group, ".k8s.io") && !strings.HasSuffix(group, fluxGroups) &&
		(o.Kustomization == nil || !o.Kustomization.RemoteCluster())
}

// installsWorkloads reports whether the controller of a custom resource may install workloads in its namespace.
func installsWorkloads(o *Object) bool {
	return isCustom(o) && !slices.Contains(settingsGroups, o.GroupVersionKind().Group)
}

// secretSourceOf returns the names of Secrets in the fields of a custom resource; false if it has none, and for kinds of
// Kubernetes and Flux, which only read the Secrets that they name.
func secretSourceOf(o *Object) (secretSource, bool) {
	if !isCustom(o) {
		return secretSource{}, false
	}
	m := secretSource{object: o}
	m.collect(o.Object["spec"])
	return m, len(m.names) > 0
}

func (m *secretSource) collect(v any) {
	switch v := v.(type) {
	case map[string]any:
		for field, child := range v {
			name, ok := child.(string)
			if ok && name != "" && strings.HasSuffix(strings.ToLower(field), "secretname") {
				m.names = append(m.names, name)
			}
			m.collect(child)
		}
	case []any:
		for _, child := range v {
			m.collect(child)
		}
	}
}

// mayCreate reports whether the controller may create a Secret of the name.
func (m *secretSource) mayCreate(secret string) bool {
	own := m.object.GetName()
	return slices.ContainsFunc(m.names, func(name string) bool {
		return secret == name || secret == name+"-"+own || secret == own+"-"+name
	})
}
