package kustomization

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// InputAppliedTooLate is the rule kustomization-input-applied-too-late.
//
// kustomize-controller needs the source, the variables, the key and the kubeconfig of a Kustomization before it applies
// anything of it. If only this Kustomization, or those that wait for it, apply such an object, a new cluster never starts; a
// running one does not show it. An entry point's own source and Kustomization are applied by hand. So is a decryption key that
// is encrypted in the tree: nothing in a new cluster could decrypt it.
var InputAppliedTooLate = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS017",
		Name:     "kustomization-input-applied-too-late",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Kustomization needs what it applies itself",
			Why: "kustomize-controller reads the variables, the source and the decryption key before it applies the " +
				"Kustomization. If the same Kustomization applies them, or one that waits for it, a new cluster never " +
				"starts.",
			Fix:   "Move the object to a Kustomization that this one names in spec.dependsOn.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.Kustomization, {Kind: "ConfigMap"}, {Kind: "Secret"}},
	},
	Check: checkInputs,
}

func checkInputs(ctx context.Context, p *validators.Pass) error {
	self := types.NamespacedName{Namespace: p.Object.GetNamespace(), Name: p.Object.GetName()}
	build, presence, _ := p.Lookup.Build(ctx, self)
	if presence != validators.Present {
		return nil
	}
	// Who applies an entry point applies what it needs.
	owners, presence, _ := p.Lookup.Owners(ctx, flux.Kustomization, self)
	if presence != validators.Present || !slices.ContainsFunc(owners, func(o types.NamespacedName) bool { return !build.Dependents[o] }) {
		return nil
	}
	spec := validators.NewPath("spec")
	from := spec.Child("postBuild", "substituteFrom")
	list, _ := from.Lookup(p.Object.Object).([]any)
	for i := range list {
		at := from.Index(i)
		if optional, _ := at.Child("optional").Lookup(p.Object.Object).(bool); optional {
			continue
		}
		kind, _ := at.Child("kind").Lookup(p.Object.Object).(string)
		checkInput(ctx, p, build, at.Child("name"), schema.GroupKind{Kind: kind}, self.Namespace)
	}
	if key := spec.Child("decryption", "secretRef", "name"); !isEncryptedSecret(ctx, p, self.Namespace, key) {
		checkInput(ctx, p, build, key, schema.GroupKind{Kind: "Secret"}, self.Namespace)
	}
	checkInput(ctx, p, build, spec.Child("kubeConfig", "secretRef", "name"), schema.GroupKind{Kind: "Secret"}, self.Namespace)
	source := flux.SourceOf(p.Object)
	for _, o := range owners {
		if parent, _, _ := p.Lookup.Get(ctx, flux.Kustomization, o); parent != nil && flux.SourceOf(parent) == source {
			return nil // what applies this Kustomization comes from the same source, which is there already
		}
	}
	checkInput(ctx, p, build, spec.Child("sourceRef", "name"), schema.GroupKind{Group: source.Group, Kind: source.Kind}, source.Namespace)
	return nil
}

// isEncryptedSecret reports whether the Secret that a field names is encrypted in the tree: its values are unknown then.
func isEncryptedSecret(ctx context.Context, p *validators.Pass, namespace string, at validators.Path) bool {
	name, _ := at.Lookup(p.Object.Object).(string)
	_, presence, _ := p.Lookup.Get(ctx, schema.GroupKind{Kind: "Secret"}, types.NamespacedName{Namespace: namespace, Name: name})
	return presence == validators.Unknown
}

// checkInput reports an object that is applied too late: all Kustomizations that apply it wait for this one.
func checkInput(
	ctx context.Context, p *validators.Pass, build *validators.Build, at validators.Path, gk schema.GroupKind, namespace string,
) {
	name, _ := at.Lookup(p.Object.Object).(string)
	if name == "" || gk.Kind == "" || unresolved.String(name) {
		return
	}
	self := types.NamespacedName{Namespace: p.Object.GetNamespace(), Name: p.Object.GetName()}
	owners, presence, _ := p.Lookup.Owners(ctx, gk, types.NamespacedName{Namespace: namespace, Name: name})
	if presence != validators.Present || len(owners) == 0 ||
		slices.ContainsFunc(owners, func(o types.NamespacedName) bool { return !build.Dependents[o] }) {
		return
	}
	var names []string
	for _, o := range owners {
		if above, _, _ := p.Lookup.Owners(ctx, flux.Kustomization, o); len(above) == 0 || slices.Contains(above, o) {
			return // an entry point: what is beside it is applied by hand with it
		}
		names = append(names, o.String())
	}
	by := "only this Kustomization applies it"
	if !slices.Contains(owners, self) {
		by = fmt.Sprintf("it is applied by %s, which waits for this Kustomization", strings.Join(names, ", "))
	}
	f := p.Report(at, name, "%s %s/%s is applied too late: %s", gk.Kind, namespace, name, by)
	f.Key = gk.Kind + " " + namespace + "/" + name
}
