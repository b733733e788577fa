package kustomization

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// DependencyMissing is the rule kustomization-dependency-missing.
//
// kustomize-controller looks for a dependency in the namespace that dependsOn gives, or in the Kustomization's own, and retries for ever when it is not
// there. The name is right and the namespace wrong more often than not, so the message says where one of that name is.
var DependencyMissing = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS003",
		Name:     "kustomization-dependency-missing",
		Kinds:    []schema.GroupKind{flux.Kustomization},
		Severity: validators.SeverityError,
		Doc: validators.Doc{
			Title: "Flux Kustomization that depends on one that does not exist",
			Why: "The Kustomization waits for its dependency without an end, and everything behind it waits too. Without a namespace, dependsOn means the " +
				"Kustomization's own namespace.",
			Fix:   "Correct the name or the namespace of the dependency, or remove it.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.Kustomization},
	},
	Check: checkDependencies,
}

func checkDependencies(ctx context.Context, p *validators.Pass) error {
	at := validators.NewPath("spec", "dependsOn")
	list, _ := at.Lookup(p.Object.Object).([]any)
	for i, item := range list {
		entry, _ := item.(map[string]any)
		name, _ := entry["name"].(string)
		namespace, _ := entry["namespace"].(string)
		if name == "" {
			continue // the CRD refuses that
		}
		key := types.NamespacedName{Namespace: namespace, Name: name}
		if key.Namespace == "" {
			key.Namespace = p.Object.GetNamespace()
		}
		switch _, presence, err := p.Lookup.Get(ctx, flux.Kustomization, key); presence {
		case validators.Present:
		case validators.Unknown:
			p.Unknown("whether the dependency %s exists is not known: %v", key, err)
		case validators.Absent:
			reportDependency(ctx, p, at.Index(i), key)
		}
	}
	return nil
}

func reportDependency(ctx context.Context, p *validators.Pass, at validators.Path, key types.NamespacedName) {
	f := p.Report(at.Child("name"), key.Name, "the dependency %s does not exist", key)
	f.Key = key.String()
	others, _, _ := p.Lookup.List(ctx, flux.Kustomization, "")
	var namespaces []string
	for _, o := range others {
		if o.GetName() == key.Name {
			namespaces = append(namespaces, o.GetNamespace())
		}
	}
	if len(namespaces) == 0 {
		return
	}
	slices.Sort(namespaces)
	f.Message += "; one of that name is in namespace " + strings.Join(namespaces, ", ")
	f.Fix = "Set the dependency's namespace to the one that it is in."
	if len(namespaces) == 1 {
		where := at.Child("namespace")
		op := validators.EditReplace
		if where.Lookup(p.Object.Object) == nil {
			op = validators.EditAdd
		}
		f.Edits = []validators.Edit{{Op: op, Path: where, Value: namespaces[0]}}
	}
}
