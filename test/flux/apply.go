package flux

import (
	"context"
	"fmt"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/normalize"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// FieldOwner is the field manager of everything kustomize-controller applies.
const FieldOwner = "kustomize-controller"

// applyConcurrency is the default of kustomize-controller's --concurrent-ssa.
const applyConcurrency = 4

// Apply applies the objects exactly as kustomize-controller 1.9.6 applies
// those of the Kustomization owner (its internal/controller, Reconcile and
// apply): each stage is dry-run as a whole by server-side apply, and nothing
// of it is applied when one object is refused. The objects are changed: they
// get the owner's labels and what the API server answered. The error is the
// one of fluxcd/pkg/ssa, not wrapped.
func Apply(ctx context.Context, config *rest.Config, owner client.ObjectKey, objects ...*unstructured.Unstructured) (*ssa.ChangeSet, error) {
	c, err := client.New(config, client.Options{})
	if err != nil {
		return nil, fmt.Errorf("connecting to the API server: %w", err)
	}
	manager := ssa.NewResourceManager(c, polling.NewStatusPoller(c, c.RESTMapper(), polling.Options{}), ssa.Owner{
		Field: FieldOwner,
		Group: kustomizev1.GroupVersion.Group,
	})
	manager.SetOwnerLabels(objects, owner.Name, owner.Namespace)
	manager.SetConcurrency(applyConcurrency)
	if err := normalize.UnstructuredList(objects); err != nil {
		return nil, err
	}
	return manager.ApplyAllStaged(ctx, objects, applyOptions())
}

// applyOptions are those of kustomize-controller for a Kustomization that sets
// neither force nor ignore.
func applyOptions() ssa.ApplyOptions {
	group := kustomizev1.GroupVersion.Group
	options := ssa.DefaultApplyOptions()
	options.ExclusionSelector = map[string]string{
		group + "/reconcile": kustomizev1.DisabledValue,
		group + "/ssa":       kustomizev1.IgnoreValue,
	}
	options.IfNotPresentSelector = map[string]string{group + "/ssa": kustomizev1.IfNotPresentValue}
	options.ForceSelector = map[string]string{group + "/force": kustomizev1.EnabledValue}
	options.Cleanup = ssa.ApplyCleanupOptions{
		Annotations: []string{
			corev1.LastAppliedConfigAnnotation,
			"kustomize.toolkit.fluxcd.io/checksum",
			"fluxcd.io/sync-checksum",
		},
		Labels: []string{"fluxcd.io/sync-gc-mark"},
		FieldManagers: []ssa.FieldManager{
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationApply},
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationUpdate},
			{Name: "before-first-apply", OperationType: metav1.ManagedFieldsOperationUpdate},
			{Name: FieldOwner, OperationType: metav1.ManagedFieldsOperationUpdate},
		},
		Exclusions: map[string]string{group + "/ssa": kustomizev1.MergeValue},
	}
	return options
}
