package kustomization

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// SuspendedAwaited is the rule kustomization-suspended-awaited.
//
// The CRDs of Flux give a new object the status observedGeneration: -1, and a change of spec.suspend makes the
// generation newer than the observed one: kstatus takes a suspended object for one in progress. A HelmRepository of type
// oci has no status, and is never reconciled. The finding is at spec.suspend, which is usually left over.
var SuspendedAwaited = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS016",
		Name:     "kustomization-suspended-awaited",
		Scope:    validators.Scope{Kinds: awaited()},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Kustomization waits for a suspended object",
			Why: "With spec.wait or a health check, the Kustomization is ready once the object is. A suspended object " +
				"is not reconciled and never becomes ready: the Kustomization fails at spec.timeout, again and again, " +
				"and what depends on it is not applied.",
			Fix: "Resume the object, suspend the Kustomization instead, or name the other objects in spec.healthChecks " +
				"in place of spec.wait.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.Kustomization},
	},
	Check: checkSuspended,
}

// awaited returns the kinds of Flux that are reconciled and can be suspended.
func awaited() []schema.GroupKind {
	return []schema.GroupKind{
		flux.Kustomization, flux.HelmRelease, flux.GitRepository, flux.OCIRepository, flux.Bucket, flux.HelmRepository, flux.HelmChart,
		flux.ImageRepository, flux.ImageUpdateAutomation, flux.Receiver,
	}
}

func checkSuspended(ctx context.Context, p *validators.Pass) error {
	at := validators.NewPath("spec", "suspend")
	gk := p.Object.GroupVersionKind().GroupKind()
	if suspended, _ := at.Lookup(p.Object.Object).(bool); !suspended ||
		gk == flux.HelmRepository && validators.NewPath("spec", "type").Lookup(p.Object.Object) == "oci" {
		return nil
	}
	self := types.NamespacedName{Namespace: p.Object.GetNamespace(), Name: p.Object.GetName()}
	owners, _, _ := p.Lookup.Owners(ctx, gk, self)
	for _, owner := range owners {
		k, presence, _ := p.Lookup.Get(ctx, flux.Kustomization, owner)
		if presence != validators.Present || gk == flux.Kustomization && owner == self {
			continue
		}
		if wait, _, _ := unstructured.NestedBool(k.Object, "spec", "wait"); wait && waits(k) {
			f := p.Report(at, true, "Kustomization %s has wait: true, and a suspended object never becomes ready", owner)
			f.Key = owner.String()
		}
	}
	list, _, _ := p.Lookup.List(ctx, flux.Kustomization, "")
	for _, k := range list {
		// With wait: true Flux ignores the health checks.
		if wait, _, _ := unstructured.NestedBool(k.Object, "spec", "wait"); wait || !waits(k) || !namesHealthCheck(k, gk, self) {
			continue
		}
		key := types.NamespacedName{Namespace: k.GetNamespace(), Name: k.GetName()}
		f := p.Report(at, true, "Kustomization %s has a health check of it, and a suspended object never becomes ready", key)
		f.Key = key.String()
	}
	return nil
}

// waits reports whether a Kustomization is reconciled in this cluster.
func waits(k *unstructured.Unstructured) bool {
	suspended, _, _ := unstructured.NestedBool(k.Object, "spec", "suspend")
	_, remote, _ := unstructured.NestedFieldNoCopy(k.Object, "spec", "kubeConfig")
	return !suspended && !remote
}

func namesHealthCheck(k *unstructured.Unstructured, gk schema.GroupKind, key types.NamespacedName) bool {
	list, _, _ := unstructured.NestedSlice(k.Object, "spec", "healthChecks")
	for _, item := range list {
		entry, _ := item.(map[string]any)
		text := func(field string) string { s, _ := entry[field].(string); return s }
		gv, err := schema.ParseGroupVersion(text("apiVersion"))
		if err == nil && gv.Group == gk.Group && text("kind") == gk.Kind && text("namespace") == key.Namespace && text("name") == key.Name {
			return true
		}
	}
	return false
}
