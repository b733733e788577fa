package kustomization

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// PruneMove is the rule kustomization-prune-move.
//
// kustomize-controller identifies its objects by kind, namespace and name: when a setting changes these for all of
// them, it creates them again and prunes those in its inventory
// (https://fluxcd.io/flux/components/kustomize/kustomizations/#prune). Without prune they stay, and nothing manages
// them.
var PruneMove = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS011",
		Name:     "kustomization-prune-move",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Admission: v1alpha1.ActionWarn, Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Change makes Flux delete applied objects",
			Why: "Another targetNamespace, namePrefix or nameSuffix gives every object another identity: Flux " +
				"creates all of them again and deletes the old ones, including volumes and their data.",
			Fix: "To keep the old objects, set prune: false first, or move the data before. Objects with the " +
				"annotation kustomize.toolkit.fluxcd.io/prune: disabled are not deleted.",
			Since: "v0.1.0",
		},
	},
	Check: checkPruneMove,
}

func checkPruneMove(_ context.Context, p *validators.Pass) error {
	if p.Old == nil {
		return nil
	}
	if prune, _, _ := unstructured.NestedBool(p.Old.Object, "spec", "prune"); !prune {
		return nil
	}
	if prune, _, _ := unstructured.NestedBool(p.Object.Object, "spec", "prune"); !prune {
		return nil // pruning is disabled with the move: the old objects stay
	}
	entries, _, _ := unstructured.NestedSlice(p.Old.Object, "status", "inventory", "entries")
	if len(entries) == 0 {
		return nil // nothing has been applied yet
	}
	for _, field := range []string{"targetNamespace", "namePrefix", "nameSuffix"} {
		was, _, _ := unstructured.NestedString(p.Old.Object, "spec", field)
		is, _, _ := unstructured.NestedString(p.Object.Object, "spec", field)
		if was == is {
			continue
		}
		moved := inventory(entries, field == "targetNamespace", was)
		if len(moved) == 0 {
			continue
		}
		f := p.Report(
			validators.NewPath("spec", field),
			is,
			"%s changes from %q to %q: Flux will delete %s",
			field,
			was,
			is,
			summary(moved),
		)
		f.Key = field + " " + was + " " + is
	}
	return nil
}

// inventory returns the applied objects as "Kind namespace/name". If namespaced is set, it returns only those in the
// namespace; in any if that is empty.
func inventory(entries []any, namespaced bool, namespace string) []string {
	var out []string
	for _, e := range entries {
		entry, _ := e.(map[string]any)
		id, _ := entry["id"].(string)
		// namespace_name_group_kind, with an empty namespace for what has none
		part := strings.Split(id, "_")
		if len(part) != 4 || namespaced && (part[0] == "" || namespace != "" && part[0] != namespace) {
			continue
		}
		name := part[1]
		if part[0] != "" {
			name = part[0] + "/" + name
		}
		out = append(out, part[3]+" "+name)
	}
	return out
}

// maxListed is how many objects a message names.
const maxListed = 3

// summary names the first objects and counts the others.
func summary(objects []string) string {
	if len(objects) <= maxListed {
		return strings.Join(objects, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(objects[:maxListed], ", "), len(objects)-maxListed)
}
