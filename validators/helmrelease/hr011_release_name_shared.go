package helmrelease

import (
	"context"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// ReleaseNameShared is the rule helm-release-name-shared.
//
// Helm stores a release under its name in the storage namespace, and knows nothing of HelmRelease objects: two of them
// with the same name and storage namespace are one release (helm-controller/api v2: GetReleaseName,
// GetStorageNamespace). The first of them by namespace and name counts as its owner, and the others are reported.
var ReleaseNameShared = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR011",
		Name:     "helm-release-name-shared",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{
			Admission: v1alpha1.ActionWarn, Offline: v1alpha1.ActionWarn,
			Reason: "Nothing refuses the second object, and a release that moves to another object is both for a while.",
		},
		Doc: validators.Doc{
			Title: "Two HelmReleases are one Helm release",
			Why: "Helm identifies a release by its name and its storage namespace. Two HelmRelease objects with the " +
				"same ones upgrade the release in turn, each with its own chart and values, and when one is " +
				"deleted it uninstalls what the other manages.",
			Fix:   "Set another spec.releaseName or spec.storageNamespace, or remove one of the objects.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.HelmRelease},
	},
	Check: checkNameShared,
}

func checkNameShared(ctx context.Context, p *validators.Pass) error {
	own := storedAs(p.Object)
	if unresolved.String(own.name) || unresolved.String(own.storage) || unresolved.String(p.Object.GetNamespace()) {
		return nil
	}
	list, _, _ := validators.ByIndex(ctx, p.Lookup, byStoredRelease, own.key())
	for _, o := range list {
		if o.GetNamespace() == p.Object.GetNamespace() && o.GetName() == p.Object.GetName() {
			if p.Old == nil {
				return nil // the list is sorted: it is the first
			}
			continue
		}
		if !reflect.DeepEqual(cluster(o), cluster(p.Object)) {
			continue
		}
		at := validators.NewPath("metadata", "name")
		if named := validators.NewPath("spec", "releaseName"); named.Lookup(p.Object.Object) != nil {
			at = named
		}
		other := fmt.Sprintf("HelmRelease %s/%s", o.GetNamespace(), o.GetName())
		if p.Confined && o.GetNamespace() != p.Object.GetNamespace() {
			other = "a HelmRelease of another namespace"
		}
		f := p.Report(
			at,
			own.name,
			"%s is the same Helm release: %s in namespace %s",
			other,
			own.name,
			own.storage,
		)
		f.Key = o.GetNamespace() + "/" + o.GetName()
		return nil
	}
	return nil
}

// byStoredRelease finds the HelmReleases that Helm stores as the same release.
var byStoredRelease = &validators.Index{
	Name: "stored-release", Kind: flux.HelmRelease,
	Key: func(o *unstructured.Unstructured) string { return storedAs(o).key() },
}

func (i identity) key() string { return i.storage + "/" + i.name }

// storedAs returns the part of a release's identity that Helm stores it under.
func storedAs(o *unstructured.Unstructured) identity {
	id := identityOf(o)
	return identity{name: shortName(id.name), storage: id.storage}
}

// cluster returns what selects the cluster that a release is installed in; nil for the release's own. The Secret of a
// kubeConfig is in the namespace of the HelmRelease.
func cluster(o *unstructured.Unstructured) any {
	config := validators.NewPath("spec", "kubeConfig").Lookup(o.Object)
	if config == nil {
		return nil
	}
	return []any{o.GetNamespace(), config}
}
