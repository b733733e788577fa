package hostile

import "fmt"

// Kustomization returns a valid Kustomization with further fields of its spec.
func Kustomization(ns, name, extra string) string {
	return fmt.Sprintf(`apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: %s, namespace: %s}
spec:
  interval: 10m
  path: ./apps
  prune: true
  sourceRef: {kind: GitRepository, name: flux-system}
%s`, name, ns, extra)
}

// Release returns a HelmRelease of the chart of Index in a HelmRepository, with further fields of its spec.
func Release(ns, name, source, extra string) string {
	return fmt.Sprintf(`apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: %s, namespace: %s}
spec:
  interval: 10m
  chart: {spec: {chart: c, version: 1.0.0, sourceRef: {kind: HelmRepository, name: %s}}}
%s`, name, ns, source, extra)
}

// Repository returns a HelmRepository.
func Repository(ns, name, url string) string {
	return fmt.Sprintf(`apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmRepository
metadata: {name: %s, namespace: %s}
spec: {interval: 1h, url: %q}
`, name, ns, url)
}
