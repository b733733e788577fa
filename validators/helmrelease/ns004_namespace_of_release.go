package helmrelease

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

var namespaceKind = schema.GroupKind{Kind: "Namespace"}

// NamespaceOfRelease is the rule namespace-of-release-too-late.
//
// kustomize-controller dry-runs all objects of a Kustomization before it applies any that is no Namespace or
// CustomResourceDefinition, and the API server refuses an object in a namespace that does not exist. A namespace that a
// release of the same Kustomization creates, by its chart or by install.createNamespace, exists only once the release is
// installed. The rule is silent if a Kustomization applies the namespace. A release in the namespace itself does not count
// as what creates it: the namespace was made by hand, or the release could not have been applied.
var NamespaceOfRelease = &validators.Rule{
	Meta: validators.Meta{
		ID:       "NS004",
		Name:     "namespace-of-release-too-late",
		Scope:    validators.Scope{AnyKind: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Namespace is created by a later release",
			Why: "The dry-run of the Kustomization fails with \"namespace not found\" until the release is " +
				"installed, but the release is only applied once that dry-run has succeeded: a new cluster never " +
				"starts.",
			Fix: "Move the object to a Kustomization of its own that dependsOn the one with the release, with wait: " +
				"true there, or apply the Namespace in this Kustomization.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{namespaceKind, flux.HelmRelease, flux.Kustomization},
	},
	Check: checkNamespaceOfRelease,
}

func checkNamespaceOfRelease(ctx context.Context, p *validators.Pass) error {
	name := p.Object.GetNamespace()
	if p.Provenance == nil || p.Provenance.Kustomization.Name == "" || name == "" || unresolved.String(name) ||
		name == "default" || strings.HasPrefix(name, "kube-") {
		return nil
	}
	me := p.Provenance.Kustomization
	build, presence, _ := p.Lookup.Build(ctx, me)
	if presence != validators.Present || !build.Complete {
		return nil
	}
	owners, presence, _ := p.Lookup.Owners(ctx, namespaceKind, types.NamespacedName{Name: name})
	if presence == validators.Unknown || len(owners) > 0 {
		return nil // another rule compares the order of Kustomizations
	}
	_, found, _ := p.Lookup.Namespace(ctx, name) // of a chart, as no Kustomization applies it
	var names []string
	for _, ref := range build.Applies {
		if ref.Kind != flux.HelmRelease.Kind || ref.Group != flux.HelmRelease.Group {
			continue
		}
		key := types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
		o, presence, _ := p.Lookup.Get(ctx, flux.HelmRelease, key)
		if presence != validators.Present || !creates(ctx, p.Lookup, o, name, found == validators.Present) {
			continue
		}
		if build.Bootstrap.Installs("", o.GetName(), identityOf(o).name) {
			return nil
		}
		names = append(names, "HelmRelease "+key.String())
	}
	if len(names) == 0 {
		return nil
	}
	f := p.Report(
		validators.NewPath("metadata", "namespace"), name, "%s, which creates namespace %q, is installed after Kustomization %s, which applies this object",
		strings.Join(names, ", "), name, me,
	)
	f.Key = name
	return nil
}

// creates reports whether a release creates a namespace other than its own: Helm does, or one of its templates if charts
// are to be looked at.
func creates(ctx context.Context, look validators.Lookup, o *unstructured.Unstructured, name string, charts bool) bool {
	if _, remote, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "kubeConfig"); remote || o.GetNamespace() == name {
		return false
	}
	if create, _, _ := unstructured.NestedBool(o.Object, "spec", "install", "createNamespace"); create && Namespace(o) == name {
		return true
	}
	if !charts {
		return false
	}
	out := Templated(ctx, look, o)
	return out != nil && slices.ContainsFunc(out.Objects, func(r validators.TemplatedObject) bool {
		return r.Object.GroupVersionKind().GroupKind() == namespaceKind && r.Object.GetName() == name
	})
}
