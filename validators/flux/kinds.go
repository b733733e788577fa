// Package flux names the kinds of Flux, and has what rules on several of them share.
package flux

import "k8s.io/apimachinery/pkg/runtime/schema"

// The kinds of Flux that rules match or look up.
var (
	Kustomization  = schema.GroupKind{Group: "kustomize.toolkit.fluxcd.io", Kind: "Kustomization"}
	HelmRelease    = schema.GroupKind{Group: "helm.toolkit.fluxcd.io", Kind: "HelmRelease"}
	HelmRepository = schema.GroupKind{Group: "source.toolkit.fluxcd.io", Kind: "HelmRepository"}
	HelmChart      = schema.GroupKind{Group: "source.toolkit.fluxcd.io", Kind: "HelmChart"}
	GitRepository  = schema.GroupKind{Group: "source.toolkit.fluxcd.io", Kind: "GitRepository"}
	OCIRepository  = schema.GroupKind{Group: "source.toolkit.fluxcd.io", Kind: "OCIRepository"}
	Bucket         = schema.GroupKind{Group: "source.toolkit.fluxcd.io", Kind: "Bucket"}

	ExternalArtifact = schema.GroupKind{Group: "source.toolkit.fluxcd.io", Kind: "ExternalArtifact"}

	ImageRepository       = schema.GroupKind{Group: "image.toolkit.fluxcd.io", Kind: "ImageRepository"}
	ImagePolicy           = schema.GroupKind{Group: "image.toolkit.fluxcd.io", Kind: "ImagePolicy"}
	ImageUpdateAutomation = schema.GroupKind{Group: "image.toolkit.fluxcd.io", Kind: "ImageUpdateAutomation"}

	Alert    = schema.GroupKind{Group: "notification.toolkit.fluxcd.io", Kind: "Alert"}
	Provider = schema.GroupKind{Group: "notification.toolkit.fluxcd.io", Kind: "Provider"}
	Receiver = schema.GroupKind{Group: "notification.toolkit.fluxcd.io", Kind: "Receiver"}
)
