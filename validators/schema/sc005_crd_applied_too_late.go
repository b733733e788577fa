package schema

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
	"github.com/flux-admission/flux-admission/validators/helmrelease"
)

var crdKind = k8sschema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}

// CRDAppliedTooLate is the rule crd-applied-too-late.
//
// kustomize-controller dry-runs all objects of a Kustomization before it applies the first one, except for
// CustomResourceDefinitions and Namespaces: one object of a kind that does not exist yet blocks them all. A running
// cluster does not show it, a new one never starts. The rule reports only if something in the tree is known to
// install the kind, and everything that installs it, or may because its build is not known, comes after the object's
// own Kustomization. A chart or definition that a helmfile or script of the tree installs is there before Flux applies
// anything.
var CRDAppliedTooLate = &validators.Rule{
	Meta: validators.Meta{
		ID:       "SC005",
		Name:     "crd-applied-too-late",
		Scope:    validators.Scope{AnyKind: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Custom resource is applied before its CRD",
			Why: "The Kustomization fails with \"no matches for kind\" until the CustomResourceDefinition is " +
				"installed, but what installs it is only applied once that Kustomization has succeeded: a new " +
				"cluster cannot start.",
			Fix: "Move the object to a Kustomization of its own that dependsOn the one that installs the " +
				"CustomResourceDefinition. If something outside of Flux installs the definition first, give it to " +
				"check with --crds.",
			Since: since,
		},
		Reads: []k8sschema.GroupKind{crdKind, flux.HelmRelease, flux.Kustomization},
	},
	Check: checkTooLate,
}

// customKind returns the kind of an object that a Kustomization applies, if a CustomResourceDefinition of the tree may declare it.
func customKind(p *validators.Pass) (k8sschema.GroupKind, bool) {
	gk := p.Object.GroupVersionKind().GroupKind()
	applied := p.Provenance != nil && p.Provenance.Kustomization.Name != ""
	return gk, applied && gk != crdKind && gk.Group != "" && !bootstrapped(gk.Group)
}

func checkTooLate(ctx context.Context, p *validators.Pass) error {
	gk, ok := customKind(p)
	if !ok {
		return nil
	}
	kind, presence, _ := p.Lookup.Kind(ctx, gk)
	if kind != nil && (kind.BuiltIn || kind.External) || presence == validators.Absent {
		return nil // another rule reports a kind that is not installed
	}
	me := p.Provenance.Kustomization
	build, presence, _ := p.Lookup.Build(ctx, me)
	if presence != validators.Present || !build.Complete {
		return nil // it may contain the definition itself
	}
	origin := ""
	if kind != nil {
		origin = kind.Origin
	}
	installers, known := installers(ctx, p.Lookup, gk, origin, me, build)
	if !known || len(installers) == 0 {
		return nil
	}
	p.Report(
		validators.NewPath("kind"),
		gk.Kind,
		"%s, which installs %s (%s), is applied after Kustomization %s, which applies this object",
		strings.Join(installers, ", "),
		gk.Kind,
		gk.Group,
		me,
	)
	return nil
}

// bootstrapped reports whether the group's kinds exist before Flux applies anything: Flux's own, and those of the
// network that Flux needs.
func bootstrapped(group string) bool {
	return strings.HasSuffix(group, ".toolkit.fluxcd.io") || strings.HasSuffix(group, ".controlplane.io") ||
		group == "cilium.io" ||
		strings.HasSuffix(group, "projectcalico.org")
}

// chartsOf returns the names of the charts that install the kinds of an API group, for trees whose charts are
// unavailable. They are those of widely used projects, as of November 2026.
func chartsOf(group string) []string {
	switch group {
	case "external-secrets.io", "generators.external-secrets.io":
		return []string{"external-secrets"}
	case "postgresql.cnpg.io":
		return []string{"cloudnative-pg"}
	case "snapshot.storage.k8s.io", "groupsnapshot.storage.k8s.io":
		return []string{"snapshot-controller", "external-snapshotter"}
	case "monitoring.coreos.com":
		return []string{"kube-prometheus-stack", "prometheus-operator-crds", "victoria-metrics-k8s-stack"}
	case "ceph.rook.io", "objectbucket.io":
		return []string{"rook-ceph"}
	}
	return nil
}

// byInstalled finds the HelmReleases that install kinds of a group, by the definitions in their chart if it is available,
// and those of a chart.
var byInstalled = &validators.Index{
	Name: "installed-kinds", Kind: flux.HelmRelease,
	Keys: func(ctx context.Context, look validators.Lookup, o *unstructured.Unstructured) []string {
		ref, ok := helmrelease.ChartRef(o)
		if !ok {
			return nil
		}
		keys := []string{chartKey(chartName(ref))}
		if chart, presence, _ := look.Chart(ctx, ref); presence == validators.Present {
			for _, crd := range chart.CRDs() {
				if _, group, ok := strings.Cut(crd, "."); ok { // a definition is named PLURAL.GROUP
					keys = append(keys, groupKey(group))
				}
			}
		}
		return keys
	},
}

func chartKey(name string) string { return "chart " + name }

func groupKey(group string) string { return "group " + group }

// releasesOf returns the releases that are known to install kinds of the group, sorted: by the definitions in their
// chart if it is available, or by its name. The origin of a definition in the templates of a chart names its release.
func releasesOf(ctx context.Context, look validators.Lookup, group, origin string) []*unstructured.Unstructured {
	keys := []string{groupKey(group)}
	for _, name := range chartsOf(group) {
		keys = append(keys, chartKey(name))
	}
	var out []*unstructured.Unstructured
	for _, key := range keys {
		list, _, _ := validators.ByIndex(ctx, look, byInstalled, key)
		out = append(out, list...)
	}
	const of = " of HelmRelease "
	if i := strings.LastIndex(origin, of); i >= 0 {
		namespace, name, _ := strings.Cut(origin[i+len(of):], "/")
		key := types.NamespacedName{Namespace: namespace, Name: name}
		if o, presence, _ := look.Get(ctx, flux.HelmRelease, key); presence == validators.Present {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b *unstructured.Unstructured) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return slices.CompactFunc(out, func(a, b *unstructured.Unstructured) bool { return keyOf(a) == keyOf(b) })
}

// chartName returns the name of a chart, or of its source if that alone names the chart.
func chartName(ref validators.ChartRef) string {
	if ref.Chart == "" {
		return ref.Source.Name
	}
	return path.Base(ref.Chart)
}

// namesOf returns the names by which a helmfile or script may install a release.
func namesOf(release *unstructured.Unstructured) []string {
	out := []string{release.GetName()}
	if name, _, _ := unstructured.NestedString(release.Object, "spec", "releaseName"); name != "" {
		out = append(out, name)
	}
	if ref, ok := helmrelease.ChartRef(release); ok {
		out = append(out, chartName(ref))
	}
	return out
}

// installers returns the objects that install the kind if all of them come after the Kustomization; false if one may
// come before, or is not known.
func installers(
	ctx context.Context,
	look validators.Lookup,
	gk k8sschema.GroupKind,
	origin string,
	me types.NamespacedName,
	build *validators.Build,
) ([]string, bool) {
	var out []string
	after := build.Dependents
	if build.Bootstrap.Installs(gk.Group, chartsOf(gk.Group)...) {
		return nil, false
	}
	comesAfter := func(kind k8sschema.GroupKind, o *unstructured.Unstructured) bool {
		by, presence, _ := look.Owners(ctx, kind, types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()})
		if presence != validators.Present || len(by) == 0 {
			return false
		}
		for _, k := range by {
			if !after[k] {
				return false
			}
		}
		out = append(out, o.GetKind()+" "+o.GetNamespace()+"/"+o.GetName())
		return true
	}
	if _, presence, _ := look.List(ctx, flux.HelmRelease, ""); presence != validators.Present {
		return nil, false
	}
	for _, o := range releasesOf(ctx, look, gk.Group, origin) {
		if build.Bootstrap.Installs(gk.Group, namesOf(o)...) || !comesAfter(flux.HelmRelease, o) {
			return nil, false
		}
	}
	kustomizations, presence, _ := look.List(ctx, flux.Kustomization, "")
	if presence != validators.Present {
		return nil, false
	}
	for _, o := range kustomizations {
		key := types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
		if build, presence, _ := look.Build(ctx, key); presence == validators.Present && build.Complete {
			continue
		}
		if !after[key] {
			return nil, false // it may apply the definition
		}
	}
	definitions, _, _ := look.List(ctx, crdKind, "")
	for _, o := range definitions {
		group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
		name, _, _ := unstructured.NestedString(o.Object, "spec", "names", "kind")
		if group != gk.Group || name != gk.Kind {
			continue
		}
		// Within a Kustomization definitions are applied first.
		if by, _, _ := look.Owners(
			ctx,
			crdKind,
			types.NamespacedName{Name: o.GetName()},
		); slices.Contains(by, me) ||
			!comesAfter(crdKind, o) {
			return nil, false
		}
	}
	return out, true
}
