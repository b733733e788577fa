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
// It warns: a namespace may be older than the tree, and a chart may create it.
var NamespaceMissing = &validators.Rule{
	Meta: validators.Meta{
		ID:       "NS001",
		Name:     "namespace-missing",
		Scope:    validators.Scope{AnyKind: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Namespace does not exist in the tree",
			Why: "Flux does not create namespaces by itself. If the namespace does not exist, the apply of the " +
				"whole Kustomization fails, and a Helm release is not installed.",
			Fix: "Correct the name, add the Namespace to the tree, or set spec.install.createNamespace: true for " +
				"the targetNamespace of a HelmRelease.",
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
		if create, _, _ := unstructured.NestedBool(
			p.Object.Object,
			"spec",
			"install",
			"createNamespace",
		); !create &&
			!remote(p.Object) {
			at = append(at, validators.NewPath("spec", "targetNamespace"))
		}
	case flux.Kustomization:
		if !remote(p.Object) {
			at = append(at, validators.NewPath("spec", "targetNamespace"))
		}
	}
	for _, path := range at {
		name, _ := path.Lookup(p.Object.Object).(string)
		if name == "" || unresolved.HasVariable(name) || builtIn(name) ||
			slices.ContainsFunc(p.Unresolved, func(o validators.Path) bool { return path.HasPrefix(o) }) {
			continue
		}
		_, presence, err := p.Lookup.Namespace(ctx, name)
		if presence == validators.Present || createdByRelease(ctx, p.Lookup, name) {
			continue
		}
		unlikely := isUnlikely(err)
		if presence == validators.Unknown && unlikely == nil {
			p.Unknown("cannot determine whether namespace %q exists: %v", name, err)
			continue
		}
		f := p.Report(path, name, "namespace %q does not exist in the tree", name)
		if near := nearNamespace(ctx, p.Lookup, name); near != "" {
			f.Message += "; did you mean " + near + "?"
		}
		f.Key = name
		if unlikely != nil {
			f.Message += "; unless it is in " + unlikely.Text
			f.Uncertain = true
		}
		return nil
	}
	return nil
}

// builtIn reports whether a namespace exists before a tree is applied: Kubernetes' own, and that of Flux.
func builtIn(name string) bool {
	return name == "default" || strings.HasPrefix(name, "kube-") || name == "flux-system"
}

// remote reports whether the object applies to another cluster.
func remote(o *unstructured.Unstructured) bool {
	_, found, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "kubeConfig")
	return found
}

// createdByRelease reports whether a HelmRelease with createNamespace installs into the namespace.
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
