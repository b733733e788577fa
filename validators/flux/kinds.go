// Package flux names the kinds of Flux that rules look at.
package flux

import "k8s.io/apimachinery/pkg/runtime/schema"

// The Flux kinds with an object that is applied, and the kinds of their sources.
var (
	Kustomization  = schema.GroupKind{Group: "kustomize.toolkit.fluxcd.io", Kind: "Kustomization"}
	HelmRelease    = schema.GroupKind{Group: "helm.toolkit.fluxcd.io", Kind: "HelmRelease"}
	HelmRepository = schema.GroupKind{Group: "source.toolkit.fluxcd.io", Kind: "HelmRepository"}
	HelmChart      = schema.GroupKind{Group: "source.toolkit.fluxcd.io", Kind: "HelmChart"}
	GitRepository  = schema.GroupKind{Group: "source.toolkit.fluxcd.io", Kind: "GitRepository"}
	OCIRepository  = schema.GroupKind{Group: "source.toolkit.fluxcd.io", Kind: "OCIRepository"}
	Bucket         = schema.GroupKind{Group: "source.toolkit.fluxcd.io", Kind: "Bucket"}
)
