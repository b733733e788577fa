package treediff

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/dryrun"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/manifest"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// CompareLive compares a cluster with what a tree applies to it. The error is that of the context, or of a policy that cannot
// be used.
func CompareLive(ctx context.Context, live *dryrun.Result, head *check.Tree, of *kustomization.Cluster, o Options) (*report.Diff, error) {
	d := &report.Diff{}
	base := &kustomization.Cluster{Complete: true, Kustomizations: live.Kustomizations}
	c := &comparison{Options: o, ctx: ctx, diff: d, base: newSide(base), head: newSide(of), reported: map[string]bool{}}
	for _, n := range live.NotRead {
		c.notCompared(n.Name, n.Reason)
	}
	c.addLive(live)
	c.reportUnbuilt()
	c.findChanges()
	c.findMoves()
	for _, change := range c.changes {
		d.Objects = append(d.Objects, c.objectChange(change))
	}
	c.addEffects()
	if err := c.addAdmission(head); err != nil {
		return nil, err
	}
	d.Normalize()
	return d, nil
}

// addLive makes what the cluster has the base, and what the API server would store the head.
func (c *comparison) addLive(live *dryrun.Result) {
	c.addGeneratedNames(live)
	owners := map[key]*kustomization.Kustomization{}
	pruned := map[key]*unstructured.Unstructured{}
	var order []key
	for _, k := range live.Kustomizations {
		for _, o := range k.Objects {
			id := identityOf(o.Unstructured)
			if owners[id] == nil {
				order = append(order, id)
			}
			// Of several, the one that applies it in the tree, too, is the owner.
			if e := c.head.entries[id]; owners[id] == nil || e != nil && e.ownerName() == k.Key.String() {
				owners[id], pruned[id] = k, o.Unstructured
			}
		}
	}
	unresolved := map[string]int{}
	c.head.order = slices.DeleteFunc(c.head.order, func(e *entry) bool {
		applied := live.Objects[e.built]
		id := identityOf(e.built.Unstructured)
		delete(pruned, id)
		if !c.setApplied(e, applied) {
			delete(c.head.entries, e.key)
			return true
		}
		if applied.Unresolved > 0 {
			unresolved[e.ownerName()] += applied.Unresolved
		}
		if before := c.liveEntry(e, applied); before != nil {
			if before.owner = owners[id]; before.owner == nil {
				before.owner = e.owner
			}
			c.base.add(before)
		}
		return false
	})
	for _, id := range order {
		if o := pruned[id]; o != nil {
			c.base.add(&entry{object: c.base.withoutHashes(stripped(o)), live: o, owner: owners[id], hashed: hashedName(c.base, o)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(unresolved)) {
		c.notCompared("Kustomization "+name, fmt.Sprintf("%d values are not in Git: encrypted, or variables of the cluster; those that the cluster has count as unchanged",
			unresolved[name]))
	}
}

// addGeneratedNames records the names with which the cluster has generated objects of the tree.
func (c *comparison) addGeneratedNames(live *dryrun.Result) {
	generated := map[string]bool{}
	for _, name := range c.head.names {
		generated[name] = true
	}
	for _, k := range live.Kustomizations {
		for _, o := range k.Objects {
			if name := hashSuffix.ReplaceAllString(o.GetName(), ""); name != o.GetName() && generated[name] {
				c.base.names[o.GetName()] = name
			}
		}
	}
}

// setApplied sets what the API server would store of an object. It returns false if that is unknown.
func (c *comparison) setApplied(e *entry, applied *dryrun.Object) bool {
	switch {
	case applied == nil:
		if e.owner == nil {
			c.notCompared(e.id(), "no Kustomization applies it")
		}
		return false // reported for its Kustomization
	case applied.Outcome == dryrun.Unknown:
		if applied.Reason != "" {
			c.notCompared(e.id(), applied.Reason)
		}
		return false
	case applied.Outcome == dryrun.Configured:
		e.object = c.head.withoutHashes(stripped(applied.After))
	case applied.Outcome == dryrun.Unchanged:
		e.object = c.head.withoutHashes(stripped(applied.Live))
	case applied.Live != nil:
		e.object = c.head.withoutHashes(stripped(dryrun.Overlay(applied.Live, e.built.Unstructured)))
	default:
		labels := manifest.OwnerLabels(flux.Kustomization, e.owner.Key)
		e.object = c.head.withoutHashes(manifest.WithLabels([]*unstructured.Unstructured{e.built.Unstructured}, labels)[0])
	}
	if applied.Outcome == dryrun.Refused {
		c.effect(e, report.Effect{
			Kind: report.EffectRefused, Severity: validators.SeverityError,
			Message: fmt.Sprintf("the API server refuses %s, so the Kustomization %s applies nothing of this change: %s", e.id(), e.ownerName(), applied.Reason),
		})
	}
	return true
}

// liveEntry returns an object of the head as it is in the cluster; nil if there is none.
func (c *comparison) liveEntry(e *entry, applied *dryrun.Object) *entry {
	if applied.Live == nil {
		return nil
	}
	object := applied.Live
	if applied.Outcome == dryrun.Configured {
		// Of a Secret, it has the values masked as those of the head are.
		object = applied.Before
	}
	return &entry{object: c.base.withoutHashes(stripped(object)), live: applied.Live, hashed: e.hashed}
}

func hashedName(s *side, o *unstructured.Unstructured) string {
	if s.names[o.GetName()] == "" {
		return ""
	}
	return o.GetName()
}

// identityOf returns what identifies an object of the cluster.
func identityOf(o *unstructured.Unstructured) key {
	gvk := o.GroupVersionKind()
	return key{group: gvk.Group, kind: gvk.Kind, namespace: o.GetNamespace(), name: o.GetName()}
}

// stripped returns an object without what the API server adds to every object.
func stripped(o *unstructured.Unstructured) *unstructured.Unstructured {
	o = o.DeepCopy()
	unstructured.RemoveNestedField(o.Object, "status")
	for _, field := range []string{"managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink"} {
		unstructured.RemoveNestedField(o.Object, "metadata", field)
	}
	unstructured.RemoveNestedField(o.Object, "metadata", "annotations", corev1.LastAppliedConfigAnnotation)
	return o
}
