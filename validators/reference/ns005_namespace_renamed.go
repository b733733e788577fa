package reference

import (
	"context"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
)

// NamespaceRenamed is the rule namespace-renamed.
//
// kustomize's namespace transformer sets metadata.namespace of namespaced objects, and metadata.name of a Namespace
// (sigs.k8s.io/kustomize/api/filters/namespace, NamespaceFilter.metaNamespaceHack). The targetNamespace of a Flux Kustomization
// is that transformer. Two Namespaces that become one are refused by kustomize, which kustomization-build-failed reports.
var NamespaceRenamed = &validators.Rule{
	Meta: validators.Meta{
		ID:       "NS005",
		Name:     "namespace-renamed",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{namespaceKind}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Namespace is renamed by the build",
			Why: "The targetNamespace of a Flux Kustomization renames Namespace objects too: the namespace of the file " +
				"is never created, and its labels and annotations are those of the other one.",
			Fix:   "Apply the Namespace with a Kustomization that sets no targetNamespace, or remove it.",
			Since: "v0.1.0",
		},
	},
	Check: checkNamespaceRenamed,
}

func checkNamespaceRenamed(ctx context.Context, p *validators.Pass) error {
	at, name := validators.NewPath("metadata", "name"), p.Object.GetName()
	from := p.Provenance
	if from == nil || from.DeclaredName == "" || from.DeclaredName == name || unresolved.HasVariable(from.DeclaredName) {
		return nil
	}
	if strings.Contains(name, from.DeclaredName) {
		return nil // a prefix or a suffix
	}
	if build, presence, _ := p.Lookup.Build(ctx, from.Kustomization); presence == validators.Present && !build.Complete {
		return nil // two Namespaces become one: another rule reports it
	}
	p.Report(at, name, "Namespace %q in the file is renamed to %q, the targetNamespace", from.DeclaredName, name).Key = from.DeclaredName
	return nil
}
