package source

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// CrossNamespace is the rule source-cross-namespace-denied.
//
// With --no-cross-namespace-refs Flux's controllers deny a reference to an object in another namespace
// (https://fluxcd.io/flux/installation/configuration/multitenancy/). The tree shows the flag in the arguments of the
// controllers' Deployments, and in a FluxInstance with multitenant: true, which sets it for all of them.
var CrossNamespace = &validators.Rule{
	Meta: validators.Meta{
		ID:   "SO002",
		Name: "source-cross-namespace-denied",
		Scope: validators.Scope{Kinds: []schema.GroupKind{
			flux.Kustomization, flux.HelmRelease, flux.ImagePolicy, flux.ImageUpdateAutomation, flux.Receiver, flux.Alert,
		}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "Multi-tenancy lockdown denies the cross-namespace reference",
			Why: "The controllers of this cluster run with --no-cross-namespace-refs. They deny a reference to an " +
				"object in another namespace, and the object stalls with AccessDenied.",
			Fix: "Create the referenced object in the namespace of the object that refers to it, and remove the " +
				"namespace of the reference.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{fluxInstance, deployment},
	},
	Check: checkCrossNamespace,
}

var (
	fluxInstance = schema.GroupKind{Group: "fluxcd.controlplane.io", Kind: "FluxInstance"}
	deployment   = schema.GroupKind{Group: "apps", Kind: "Deployment"}
)

func checkCrossNamespace(ctx context.Context, p *validators.Pass) error {
	own := p.Object.GetNamespace()
	if own == "" || unresolved.HasVariable(own) {
		return nil
	}
	by := ""
	for _, r := range references(p) {
		if r.Local || r.Key.Namespace == own || unresolved.HasVariable(r.Key.Namespace) {
			continue
		}
		if by == "" {
			if by = lockdown(ctx, p.Lookup, controllerOf(p.Object.GroupVersionKind().GroupKind())); by == "" {
				return nil
			}
		}
		f := p.Report(
			r.At.Child("namespace"), r.Key.Namespace, "%s is in another namespace than %s, and %s denies cross-namespace references",
			r.To.Kind+" "+r.Key.String(), own, by,
		)
		f.Key = r.To.Kind + " " + r.Key.String()
	}
	return nil
}

// controllerOf returns the name of the controller that reconciles a kind.
func controllerOf(gk schema.GroupKind) string {
	switch gk {
	case flux.Kustomization:
		return "kustomize-controller"
	case flux.HelmRelease:
		return "helm-controller"
	case flux.ImagePolicy:
		return "image-reflector-controller"
	case flux.ImageUpdateAutomation:
		return "image-automation-controller"
	}
	return "notification-controller"
}

// lockdown returns what denies cross-namespace references in the tree; empty if nothing does.
func lockdown(ctx context.Context, look validators.Lookup, controller string) string {
	instances, _, _ := look.List(ctx, fluxInstance, "")
	for _, o := range instances {
		if on, _, _ := unstructured.NestedBool(o.Object, "spec", "cluster", "multitenant"); on {
			return "FluxInstance " + o.GetNamespace() + "/" + o.GetName() + " (multitenant: true)"
		}
	}
	deployments, _, _ := look.List(ctx, deployment, "")
	for _, o := range deployments {
		if o.GetName() != controller || o.GetLabels()["app.kubernetes.io/part-of"] != "flux" {
			continue
		}
		containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
		for _, item := range containers {
			m, _ := item.(map[string]any)
			args, _, _ := unstructured.NestedStringSlice(m, "args")
			if slices.ContainsFunc(args, deniesReferences) {
				return "Deployment " + o.GetNamespace() + "/" + o.GetName()
			}
		}
	}
	return ""
}

func deniesReferences(arg string) bool {
	flag, value, set := strings.Cut(arg, "=")
	return flag == "--no-cross-namespace-refs" && (!set || value == "true")
}
