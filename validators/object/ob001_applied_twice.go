// Package object holds the rules on objects of any kind and on who applies them.
package object

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

var externalSecret = schema.GroupKind{Group: "external-secrets.io", Kind: "ExternalSecret"}

// AppliedTwice is the rule object-applied-twice.
//
// The first by name of several Kustomizations that apply an object counts as its owner, and the others are reported.
// A Secret that an ExternalSecret owns (creationPolicy Owner, the default:
// https://external-secrets.io/latest/guides/ownership-deletion-policy/) has two owners too.
var AppliedTwice = &validators.Rule{
	Meta: validators.Meta{
		ID:       "OB001",
		Name:     "object-applied-twice",
		Scope:    validators.Scope{AnyKind: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Object has more than one owner",
			Why: "Each owner overwrites the object with its own version at every interval. When one of them is " +
				"pruned, it deletes the object although the other still manages it.",
			Fix:   "Let one of them apply the object, and remove it from the other.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{externalSecret},
	},
	Check: checkAppliedTwice,
}

func checkAppliedTwice(ctx context.Context, p *validators.Pass) error {
	if p.Provenance == nil {
		return nil
	}
	gk := p.Object.GroupVersionKind().GroupKind()
	me := p.Provenance.Kustomization
	by, presence, _ := p.Lookup.Owners(
		ctx,
		gk,
		types.NamespacedName{Namespace: p.Object.GetNamespace(), Name: p.Object.GetName()},
	)
	if presence == validators.Present && len(by) > 1 && slices.Index(by, me) > 0 {
		f := p.Report(
			validators.NewPath("metadata", "name"),
			p.Object.GetName(),
			"Kustomizations %s each apply this object",
			joined(by),
		)
		f.Key = "applied"
	}
	switch gk {
	case schema.GroupKind{Kind: "Secret"}:
		return checkSecret(ctx, p)
	case externalSecret:
		return checkExternalSecret(ctx, p)
	}
	return nil
}

// joined returns the names of Kustomizations.
func joined(list []types.NamespacedName) string {
	var out []string
	for _, k := range list {
		out = append(out, k.String())
	}
	return strings.Join(out, ", ")
}

func checkSecret(ctx context.Context, p *validators.Pass) error {
	list, _, _ := p.Lookup.List(ctx, externalSecret, p.Object.GetNamespace())
	for _, o := range list {
		if target, owns := ownedSecret(o); owns && target == p.Object.GetName() {
			f := p.Report(
				validators.NewPath("metadata", "name"),
				target,
				"ExternalSecret %s/%s creates a Secret of this name too",
				o.GetNamespace(),
				o.GetName(),
			)
			f.Key = "ExternalSecret " + o.GetName()
		}
	}
	return nil
}

// checkExternalSecret reports all but the first of the ExternalSecrets that own the same Secret.
func checkExternalSecret(ctx context.Context, p *validators.Pass) error {
	target, owns := ownedSecret(p.Object)
	if !owns {
		return nil
	}
	list, _, _ := p.Lookup.List(ctx, externalSecret, p.Object.GetNamespace())
	var names []string
	for _, o := range list {
		if t, owns := ownedSecret(o); owns && t == target {
			names = append(names, o.GetName())
		}
	}
	slices.Sort(names)
	if i := slices.Index(names, p.Object.GetName()); i > 0 {
		at := validators.NewPath("spec", "target", "name")
		if at.Lookup(p.Object.Object) == nil {
			at = validators.NewPath("metadata", "name")
		}
		f := p.Report(at, target, "ExternalSecret %s/%s creates Secret %s too", p.Object.GetNamespace(), names[0], target)
		f.Key = target
	}
	return nil
}

// ownedSecret returns the name of the Secret that an ExternalSecret creates, and whether the ExternalSecret owns it.
func ownedSecret(o *unstructured.Unstructured) (name string, owns bool) {
	name, _, _ = unstructured.NestedString(o.Object, "spec", "target", "name")
	if name == "" {
		name = o.GetName()
	}
	policy, _, _ := unstructured.NestedString(o.Object, "spec", "target", "creationPolicy")
	return name, policy == "" || policy == "Owner"
}
