package check

import (
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/kustomization"
)

var fluxInstance = schema.GroupKind{Group: "fluxcd.controlplane.io", Kind: "FluxInstance"}

// The labels that `flux install` puts on everything that it makes (fluxcd/flux2, manifests/install/kustomization.yaml).
const (
	partOfLabel  = "app.kubernetes.io/part-of"
	versionLabel = "app.kubernetes.io/version"
)

// fluxRelease returns the version of Flux that the objects of a cluster show, as they write it: that of a FluxInstance, or else the
// version label of Flux' own manifests. It is empty if they show none.
func fluxRelease(objects []*kustomization.Object) string {
	labeled := ""
	for _, o := range objects {
		if o.GroupVersionKind().GroupKind() == fluxInstance {
			if v, _, _ := unstructured.NestedString(o.Object, "spec", "distribution", "version"); v != "" {
				return v
			}
		}
		if l := o.GetLabels(); labeled == "" && l[partOfLabel] == "flux" && strings.HasPrefix(l[versionLabel], "v") {
			labeled = l[versionLabel]
		}
	}
	return labeled
}
