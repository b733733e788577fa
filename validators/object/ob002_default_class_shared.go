package object

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

var (
	storageClass  = schema.GroupKind{Group: "storage.k8s.io", Kind: "StorageClass"}
	ingressClass  = schema.GroupKind{Group: "networking.k8s.io", Kind: "IngressClass"}
	snapshotClass = schema.GroupKind{Group: "snapshot.storage.k8s.io", Kind: "VolumeSnapshotClass"}
)

// DefaultClassShared is the rule default-class-shared.
//
// The API server gives a claim the default StorageClass that was created last (kubernetes/plugin/pkg/admission/storage/
// storageclass/setdefault), rejects an Ingress without a class while two IngressClasses are the default, and the snapshot
// controller fails if two VolumeSnapshotClasses of a driver are. The first by name counts, and the others are reported.
var DefaultClassShared = &validators.Rule{
	Meta: validators.Meta{
		ID:       "OB002",
		Name:     "default-class-shared",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{storageClass, ingressClass, snapshotClass}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Two classes are the default",
			Why: "A volume claim without a class gets the default StorageClass that was created last, which differs " +
				"between clusters. An Ingress without a class is rejected, and a snapshot without one fails.",
			Fix:   "Mark one class as the default, and remove the annotation from the others.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{storageClass, ingressClass, snapshotClass},
	},
	Check: checkDefaultClass,
}

func checkDefaultClass(ctx context.Context, p *validators.Pass) error {
	gk := p.Object.GroupVersionKind().GroupKind()
	annotation, ok := defaultAnnotation(gk, p.Object)
	if !ok {
		return nil
	}
	list, _, _ := p.Lookup.List(ctx, gk, "")
	for _, other := range list {
		if other.GetName() >= p.Object.GetName() {
			continue
		}
		if _, ok := defaultAnnotation(gk, other); !ok || gk == snapshotClass && other.Object["driver"] != p.Object.Object["driver"] {
			continue
		}
		f := p.Report(
			validators.NewPath("metadata", "annotations", annotation), nil,
			"%s %s is the default class too", gk.Kind, other.GetName(),
		)
		f.Key = "default"
		return nil
	}
	return nil
}

// defaultAnnotation returns the annotation that makes a class the default; false if it has none.
func defaultAnnotation(gk schema.GroupKind, o *unstructured.Unstructured) (string, bool) {
	annotations := map[schema.GroupKind][]string{
		storageClass:  {"storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"},
		ingressClass:  {"ingressclass.kubernetes.io/is-default-class"},
		snapshotClass: {"snapshot.storage.kubernetes.io/is-default-class"},
	}
	for _, name := range annotations[gk] {
		if o.GetAnnotations()[name] == "true" {
			return name, true
		}
	}
	return "", false
}
