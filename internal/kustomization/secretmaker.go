package kustomization

import (
	"slices"
	"strings"

	"github.com/flux-admission/flux-admission/validators/flux"
)

// secretMaker is a custom resource whose controller may create Secrets: one with a field such as spec.secretName.
// Controllers name the Secret after that field, often together with the name of the resource.
type secretMaker struct {
	object *Object
	names  []string
}

// secretMakerOf returns the names of Secrets in the fields of a custom resource; false if it has none, and for kinds of
// Kubernetes and Flux, which only read the Secrets that they name.
func secretMakerOf(o *Object) (secretMaker, bool) {
	group := o.GroupVersionKind().Group
	if !strings.Contains(group, ".") || strings.HasSuffix(group, ".k8s.io") || strings.HasSuffix(group, fluxGroups) ||
		group == flux.HelmRelease.Group || o.Kustomization != nil && o.Kustomization.RemoteCluster() {
		return secretMaker{}, false
	}
	m := secretMaker{object: o}
	m.collect(o.Object["spec"])
	return m, len(m.names) > 0
}

func (m *secretMaker) collect(v any) {
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

// mayMake reports whether the controller may create a Secret of the name.
func (m *secretMaker) mayMake(secret string) bool {
	own := m.object.GetName()
	return slices.ContainsFunc(m.names, func(name string) bool {
		return secret == name || secret == name+"-"+own || secret == own+"-"+name
	})
}
