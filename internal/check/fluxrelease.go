package check

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/kindschema/catalog"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/validators"
)

var fluxInstance = schema.GroupKind{Group: "fluxcd.controlplane.io", Kind: "FluxInstance"}

// The labels that `flux install` puts on everything that it makes (fluxcd/flux2, manifests/install/kustomization.yaml).
const (
	partOfLabel  = "app.kubernetes.io/part-of"
	versionLabel = "app.kubernetes.io/version"
)

// versionComment is the comment that `flux install` and `flux bootstrap` put at the start of gotk-components.yaml
// (fluxcd/flux2, pkg/manifestgen/install/templates.go).
var versionComment = regexp.MustCompile(`(?m)^# Flux [Vv]ersion: *(v?[0-9]+\.[0-9]+\.[0-9]+\S*)`)

// maxComment is how much of the start of a file is searched for the comment.
const maxComment = 1 << 10

// fluxRelease returns the version of Flux that the objects of a cluster show, as they write it: that of a FluxInstance, or else the
// version label of Flux' own manifests, or else the comment at the start of their file. It is empty if they show none, or if the
// FluxInstance changes the definitions of that version.
func fluxRelease(objects []*kustomization.Object) string {
	labeled, commented := "", ""
	files := map[string]bool{}
	for _, o := range objects {
		if o.GroupVersionKind().GroupKind() == fluxInstance {
			if v, _, _ := unstructured.NestedString(o.Object, "spec", "distribution", "version"); v != "" {
				if patchesDefinitions(o.Unstructured) {
					return ""
				}
				return v
			}
		}
		if l := o.GetLabels(); labeled == "" && l[partOfLabel] == "flux" && strings.HasPrefix(l[versionLabel], "v") {
			labeled = l[versionLabel]
		}
		if file := o.Origin.File; commented == "" && !files[file] {
			files[file] = true
			text := o.FileText()
			if m := versionComment.FindSubmatch(text[:min(len(text), maxComment)]); m != nil {
				commented = string(m[1])
			}
		}
	}
	return cmp.Or(labeled, commented)
}

// patchesDefinitions reports whether a FluxInstance patches CustomResourceDefinitions: those in the cluster may then be of any release.
func patchesDefinitions(instance *unstructured.Unstructured) bool {
	patches, _, _ := unstructured.NestedSlice(instance.Object, "spec", "kustomize", "patches")
	return slices.ContainsFunc(patches, func(p any) bool {
		m, _ := p.(map[string]any)
		kind, _, _ := unstructured.NestedString(m, "target", "kind")
		text, _ := m["patch"].(string)
		return strings.Contains(kind, kindschema.CustomResourceDefinition.Kind) ||
			strings.Contains(text, "kind: "+kindschema.CustomResourceDefinition.Kind)
	})
}

// acceptsUnset reports whether a release of Flux may replace a variable without a value with the empty string: those
// before 2.9 do, unless a feature gate forbids it. A tree that does not show its release may be of any; one that follows
// all releases has the newest.
func acceptsUnset(text string) bool {
	release, ok := catalog.ParseRelease(text)
	if !ok {
		return text != "2.x" && text != "*"
	}
	strict, _ := catalog.ParseRelease("2.9")
	return release.Before(strict)
}

// markAccepted marks the problems that the cluster's release of Flux accepts.
func markAccepted(c *kustomization.Cluster) {
	if !acceptsUnset(fluxRelease(c.Objects)) {
		return
	}
	for _, k := range c.Kustomizations {
		for _, p := range k.Problems {
			if p.Kind == validators.ProblemVariableUnset {
				p.Uncertain = true
			}
		}
	}
}
