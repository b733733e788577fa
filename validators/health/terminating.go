package health

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/finalizers"
	"github.com/flux-admission/flux-admission/validators"
)

// The kinds that hold a deletion, and those that run controllers.
var (
	namespaceKind  = schema.GroupKind{Kind: "Namespace"}
	definitionKind = schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}
	workloadKinds  = []schema.GroupKind{{Group: "apps", Kind: "Deployment"}, {Group: "apps", Kind: "StatefulSet"}, {Group: "apps", Kind: "DaemonSet"}}
)

// controllers describes the states of the controllers of finalizers.
type controllers struct {
	workloads []*unstructured.Unstructured
	complete  bool
}

// readControllers lists the workloads of the cluster. Where they may not be listed, or not be named, no controller is alive or gone.
func readControllers(ctx context.Context, p *validators.Pass) *controllers {
	if p.Confined {
		return &controllers{}
	}
	c := &controllers{complete: true}
	for _, gk := range workloadKinds {
		list, presence, _ := p.Lookup.List(ctx, gk, "")
		c.complete = c.complete && presence == validators.Present
		c.workloads = append(c.workloads, list...)
	}
	return c
}

// describe returns a finalizer with the state of its controller: "x.io/y (controller alive: Deployment x/y)".
func (c *controllers) describe(group, finalizer string) string {
	state, reason := finalizers.OwnerOf(group, finalizer).State(c.workloads, c.complete)
	return fmt.Sprintf("%s (controller %s: %s)", finalizer, state, reason)
}

// maxHolders limits the instances that a finding names.
const maxHolders = 5

// held describes the objects that have finalizers and are being deleted: kind, name, finalizers.
func (c *controllers) held(list []*unstructured.Unstructured) string {
	var out []string
	holders := 0
	for _, o := range list {
		names := o.GetFinalizers()
		if len(names) == 0 || o.GetDeletionTimestamp() == nil {
			continue
		}
		if holders++; holders > maxHolders {
			continue
		}
		name := o.GetName()
		if ns := o.GetNamespace(); ns != "" {
			name = ns + "/" + name
		}
		described := make([]string, 0, len(names))
		for _, f := range names {
			described = append(described, c.describe(o.GroupVersionKind().Group, f))
		}
		slices.Sort(described)
		out = append(out, fmt.Sprintf("%s %s with finalizer %s", o.GetKind(), name, strings.Join(described, ", ")))
	}
	if holders > maxHolders {
		out = append(out, fmt.Sprintf("%d more", holders-maxHolders))
	}
	return strings.Join(out, "; ")
}
