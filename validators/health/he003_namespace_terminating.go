package health

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/condition"
	"github.com/flux-admission/flux-admission/internal/finalizers"
	"github.com/flux-admission/flux-admission/validators"
)

// NamespaceTerminating is the rule namespace-terminating.
//
// The namespace controller writes what remains into conditions, again and again until nothing does: kinds with the number of their
// objects, and finalizers with the number of objects that have them. Objects are named only where they may be listed. That a
// controller is gone is reported only if all workloads are known and none is its own: that something takes long proves nothing.
var NamespaceTerminating = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HE003",
		Name:     "namespace-terminating",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{namespaceKind}},
		Stages:   validators.StageAudit,
		Deletion: true,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Audit: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Deletion of the namespace does not end",
			Why: "Nothing can be created in a namespace that is being deleted. Flux fails to apply what belongs into it until the " +
				"last object is gone, and that waits for whoever removes its finalizers.",
			Fix: "Repair or reinstall the controller of the finalizers, so that it cleans up; remove a finalizer by hand only if its " +
				"controller is gone for good.",
			Since: "v0.1.0",
		},
		Params: after(15 * time.Minute),
	},
	Check: checkNamespaceTerminating,
}

var (
	// remainingShape is an entry of NamespaceContentRemaining, with a dot at the end for the core group.
	remainingShape = regexp.MustCompile(`([a-z0-9-]+)\.([a-z0-9.-]*) has (\d+) resource instances`)
	// finalizerShape is an entry of NamespaceFinalizersRemaining.
	finalizerShape = regexp.MustCompile(`([^\s,]+) in (\d+) resource instances`)
)

// coreResources are kinds of Kubernetes that often hold a namespace. Others are looked up by their CustomResourceDefinition.
var coreResources = map[string]schema.GroupKind{
	"pods.": {Kind: "Pod"}, "persistentvolumeclaims.": {Kind: "PersistentVolumeClaim"}, "services.": {Kind: "Service"},
}

func checkNamespaceTerminating(ctx context.Context, p *validators.Pass) error {
	deleted := p.Object.GetDeletionTimestamp().Time
	if !p.Elapsed(deleted, p.Params.(*AfterParams).after) {
		return nil
	}
	workloads := readControllers(ctx, p)
	var parts []string
	for _, c := range condition.Of(p.Object) {
		if c.Status != "True" || !strings.HasPrefix(c.Type, "Namespace") {
			continue
		}
		switch c.Type {
		case "NamespaceContentRemaining":
			for _, m := range remainingShape.FindAllStringSubmatch(c.Message, -1) {
				part := fmt.Sprintf("%s %s remain", m[3], strings.TrimSuffix(m[1]+"."+m[2], "."))
				if held := workloads.held(instances(ctx, p, m[1]+"."+m[2])); held != "" {
					part += " (" + held + ")"
				}
				parts = append(parts, part)
			}
		case "NamespaceFinalizersRemaining":
			for _, m := range finalizerShape.FindAllStringSubmatch(c.Message, -1) {
				parts = append(parts, m[2]+" objects have finalizer "+workloads.describe(groupOf(p.Object, m[1]), m[1]))
			}
		default:
			parts = append(parts, describe(c))
		}
	}
	message := "is being deleted since " + stamp(deleted)
	if len(parts) == 0 {
		parts = append(parts, "its conditions do not show what remains")
	}
	slices.Sort(parts)
	f := p.Report(validators.NewPath("metadata", "deletionTimestamp"), nil, "%s: %s", message, strings.Join(parts, "; "))
	f.Key = "terminating"
	return nil
}

// groupOf returns the API group of the objects with a finalizer of Flux, which all its kinds share: that of the only kind of Flux
// that remains; empty if there are several.
func groupOf(namespace *unstructured.Unstructured, finalizer string) string {
	group := ""
	c := condition.Find(condition.Of(namespace), "NamespaceContentRemaining")
	if finalizer != "finalizers.fluxcd.io" || !c.Is("True") {
		return ""
	}
	for _, m := range remainingShape.FindAllStringSubmatch(c.Message, -1) {
		if len(finalizers.FluxControllers(m[2])) == 0 || m[2] == group {
			continue
		}
		if group != "" {
			return ""
		}
		group = m[2]
	}
	return group
}

// instances returns the objects of a resource in the namespace, PLURAL.GROUP as the conditions have it; none if they cannot be read.
func instances(ctx context.Context, p *validators.Pass, resource string) []*unstructured.Unstructured {
	gk, ok := coreResources[resource]
	if !ok {
		crd, presence, _ := p.Lookup.Get(ctx, definitionKind, types.NamespacedName{Name: resource})
		if presence != validators.Present {
			return nil
		}
		gk = schema.GroupKind{Group: text(crd, "spec", "group"), Kind: text(crd, "spec", "names", "kind")}
	}
	if gk.Kind == "" {
		return nil
	}
	list, _, _ := p.Lookup.List(ctx, gk, p.Object.GetName())
	return list
}
