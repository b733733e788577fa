package schema

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// CRDWithoutWait is the rule crd-dependency-without-wait.
//
// A Kustomization is ready when its objects are stored, unless spec.wait or spec.healthChecks make it wait for them
// (kustomize-controller: checkHealth). A dependency on the Kustomization with the release that installs a kind does
// not wait for the release then. The Kustomization fails and is retried until the kind exists, so that the finding is
// a hint only.
var CRDWithoutWait = &validators.Rule{
	Meta: validators.Meta{
		ID:       "SC006",
		Name:     "crd-dependency-without-wait",
		Scope:    validators.Scope{AnyKind: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityInfo,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionAudit},
		Doc: validators.Doc{
			Title: "Dependency does not wait for the CRD's release",
			Why: "The Kustomization with the HelmRelease is ready as soon as the HelmRelease is stored, long before " +
				"it is installed. What depends on it fails with \"no matches for kind\" until a later retry.",
			Fix: "Set spec.wait: true, or spec.healthChecks with the HelmRelease, in the Kustomization that applies " +
				"it.",
			Since: since,
		},
		Reads: []k8sschema.GroupKind{flux.HelmRelease, flux.Kustomization},
	},
	Check: checkWithoutWait,
}

func checkWithoutWait(ctx context.Context, p *validators.Pass) error {
	gk, ok := customKind(p)
	if !ok {
		return nil
	}
	kind, _, _ := p.Lookup.Kind(ctx, gk)
	if kind == nil || kind.BuiltIn || kind.External {
		return nil
	}
	me, presence, _ := p.Lookup.Get(ctx, flux.Kustomization, p.Provenance.Kustomization)
	_, listed, _ := p.Lookup.List(ctx, flux.HelmRelease, "")
	if presence != validators.Present || listed != validators.Present {
		return nil
	}
	build, _, _ := p.Lookup.Build(ctx, p.Provenance.Kustomization)
	if build != nil && build.Bootstrap.Installs(gk.Group, chartsOf(gk.Group)...) {
		return nil
	}
	depends := dependenciesOf(ctx, p.Lookup, me)
	for _, release := range releasesOf(ctx, p.Lookup, gk.Group, kind.Origin) {
		key := types.NamespacedName{Namespace: release.GetNamespace(), Name: release.GetName()}
		if build != nil && build.Bootstrap.Installs(gk.Group, namesOf(release)...) {
			return nil
		}
		owners, presence, _ := p.Lookup.Owners(ctx, flux.HelmRelease, key)
		if presence != validators.Present || len(owners) == 0 {
			return nil
		}
		var direct *unstructured.Unstructured
		for _, k := range depends {
			switch {
			case waitsFor(k, key, owners):
				return nil
			case slices.Contains(owners, keyOf(k)):
				direct = k
			}
		}
		if direct == nil {
			continue
		}
		p.Report(
			validators.NewPath("kind"), gk.Kind, "Kustomization %s does not wait for HelmRelease %s, which installs %s (%s)",
			keyOf(direct), key, gk.Kind, gk.Group,
		).Key = key.String()
		return nil
	}
	return nil
}

func keyOf(o *unstructured.Unstructured) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// dependenciesOf returns the Kustomizations that another one depends on, without those with a readyExpr, which may wait
// for anything.
func dependenciesOf(ctx context.Context, look validators.Lookup, k *unstructured.Unstructured) []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	list, _, _ := unstructured.NestedSlice(k.Object, "spec", "dependsOn")
	for _, item := range list {
		m, _ := item.(map[string]any)
		name, _ := m["name"].(string)
		namespace, _ := m["namespace"].(string)
		if namespace == "" {
			namespace = k.GetNamespace()
		}
		other, presence, _ := look.Get(ctx, flux.Kustomization, types.NamespacedName{Namespace: namespace, Name: name})
		if presence == validators.Present && m["readyExpr"] == nil {
			out = append(out, other)
		}
	}
	return out
}

// waitsFor reports whether a Kustomization is ready only after a release is.
func waitsFor(k *unstructured.Unstructured, release types.NamespacedName, owners []types.NamespacedName) bool {
	if wait, _, _ := unstructured.NestedBool(k.Object, "spec", "wait"); wait {
		return slices.Contains(owners, keyOf(k))
	}
	checks, _, _ := unstructured.NestedSlice(k.Object, "spec", "healthChecks")
	return slices.ContainsFunc(checks, func(item any) bool {
		m, _ := item.(map[string]any)
		return m["kind"] == flux.HelmRelease.Kind && m["name"] == release.Name && m["namespace"] == release.Namespace
	})
}
