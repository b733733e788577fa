package reference

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// NamespaceMissing is the rule namespace-missing.
//
// It warns: a namespace may be older than the tree, and it may be made by a chart.
var NamespaceMissing = &validators.Rule{
	Meta: validators.Meta{
		ID:       "NS001",
		Name:     "namespace-missing",
		Scope:    validators.Scope{AnyKind: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Namespace that nothing in the tree creates",
			Why: "Flux creates no namespaces by itself. Where the namespace does not exist, the apply of the whole Kustomization fails, and a Helm release is " +
				"not installed.",
			Fix:   "Correct the name, add the Namespace to the tree, or set spec.install.createNamespace: true for a HelmRelease's targetNamespace.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{namespaceKind, flux.HelmRelease},
	},
	Check: checkNamespace,
}

var namespaceKind = schema.GroupKind{Kind: "Namespace"}

func checkNamespace(ctx context.Context, p *validators.Pass) error {
	at := []validators.Path{validators.NewPath("metadata", "namespace")}
	switch p.Object.GroupVersionKind().GroupKind() {
	case flux.HelmRelease:
		if create, _, _ := unstructured.NestedBool(p.Object.Object, "spec", "install", "createNamespace"); !create && !elsewhere(p.Object) {
			at = append(at, validators.NewPath("spec", "targetNamespace"))
		}
	case flux.Kustomization:
		if !elsewhere(p.Object) {
			at = append(at, validators.NewPath("spec", "targetNamespace"))
		}
	}
	for _, path := range at {
		name, _ := path.Lookup(p.Object.Object).(string)
		if name == "" || unresolved.HasVariable(name) || standing(name) || slices.ContainsFunc(p.Unresolved, func(o validators.Path) bool { return path.HasPrefix(o) }) {
			continue
		}
		_, presence, err := p.Lookup.Namespace(ctx, name)
		if presence == validators.Present || createdByRelease(ctx, p.Lookup, name) {
			continue
		}
		if presence == validators.Unknown {
			p.Unknown("whether namespace %s exists is not known: %v", name, err)
			continue
		}
		f := p.Report(path, name, "nothing in the tree creates namespace %s", name)
		if near := nearNamespace(ctx, p.Lookup, name); near != "" {
			f.Message += "; did you mean " + near + "?"
		}
		f.Key = name
		return nil
	}
	return nil
}

// standing tells whether a namespace is there before anything of a tree is applied: Kubernetes' own, and the one that Flux is installed in.
func standing(name string) bool {
	return name == "default" || strings.HasPrefix(name, "kube-") || name == "flux-system"
}

// elsewhere tells whether what the object installs goes to another cluster.
func elsewhere(o *unstructured.Unstructured) bool {
	_, found, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "kubeConfig")
	return found
}

// createdByRelease tells whether a HelmRelease that is to create the namespace installs into it.
func createdByRelease(ctx context.Context, look validators.Lookup, name string) bool {
	releases, _, _ := look.List(ctx, flux.HelmRelease, "")
	return slices.ContainsFunc(releases, func(o *unstructured.Unstructured) bool {
		create, _, _ := unstructured.NestedBool(o.Object, "spec", "install", "createNamespace")
		return create && effectiveNamespace(o) == name
	})
}

func nearNamespace(ctx context.Context, look validators.Lookup, name string) string {
	list, _, _ := look.List(ctx, namespaceKind, "")
	var names []string
	for _, o := range list {
		names = append(names, o.GetName())
	}
	return suggest.Nearest(name, names)
}
