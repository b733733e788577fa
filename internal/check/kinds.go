package check

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/kindschema/catalog"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/manifests"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
	"github.com/flux-admission/flux-admission/validators/helmrelease"
)

// knownKinds returns the kinds of Kubernetes, of the definitions that the tree applies, that its charts install or that
// are given, and of the CRD catalog.
func knownKinds(
	ctx context.Context, c *kustomization.Cluster, look validators.Lookup, installed, given []Definition,
) (*kindschema.Set, error) {
	crds, err := catalog.New()
	if err != nil {
		return nil, fmt.Errorf("reading the CRD catalog: %w", err)
	}
	set, err := kindschema.NewSet(kindschema.Options{
		Catalog: crds.ForFlux(fluxRelease(c.Objects)), Complete: installsAll(ctx, c, look, len(given)+len(installed)),
	})
	if err != nil {
		return nil, fmt.Errorf("reading the schemas of Kubernetes: %w", err)
	}
	for _, group := range fluxGroups() {
		set.AssumeInstalled(group)
	}
	for _, object := range c.Objects {
		if object.GroupVersionKind().GroupKind() == kindschema.CustomResourceDefinition {
			// An invalid definition leaves its kind unknown.
			_ = set.Add(object.Origin.File, object.Unstructured)
		}
	}
	for _, d := range installed {
		// As above.
		_ = set.Add(d.Origin, d.Object)
	}
	// The version of this program is that of the definition.
	own := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(manifests.PolicyCRD, &own.Object); err != nil {
		return nil, fmt.Errorf("reading the definition of %s: %w", v1alpha1.Kind, err)
	}
	if err := set.Add("flux-admission", own); err != nil {
		return nil, fmt.Errorf("adding the definition of %s: %w", v1alpha1.Kind, err)
	}
	for _, d := range given {
		if err := set.AddExternal(d.Origin, d.Object); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// fluxGroups returns the API groups whose kinds are installed before anything of the tree is applied: those of Flux,
// and this project's.
func fluxGroups() []string {
	return []string{
		"source.toolkit.fluxcd.io", "source.extensions.fluxcd.io", "kustomize.toolkit.fluxcd.io", "helm.toolkit.fluxcd.io",
		"notification.toolkit.fluxcd.io", "image.toolkit.fluxcd.io", "fluxcd.controlplane.io", v1alpha1.GroupVersion.Group,
	}
}

// installsAll reports whether everything that may install a kind is known, so that a kind that nothing installs is
// missing. A tree without any definition, with no others, leaves them to somebody else.
func installsAll(ctx context.Context, c *kustomization.Cluster, look validators.Lookup, others int) bool {
	crds, presence, _ := look.List(ctx, kindschema.CustomResourceDefinition, "")
	if presence != validators.Present || len(crds)+others == 0 {
		return false
	}
	for _, k := range c.Kustomizations {
		if k.State != kustomization.Built {
			return false
		}
	}
	releases, presence, _ := look.List(ctx, flux.HelmRelease, "")
	return presence == validators.Present && !slices.ContainsFunc(releases, func(release *unstructured.Unstructured) bool {
		return helmrelease.Templated(ctx, look, release) == nil
	})
}
