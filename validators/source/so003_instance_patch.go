package source

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/boundedregexp"
	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
)

// InstancePatch is the rule flux-instance-patch-unmatched.
//
// The Flux Operator builds the manifests of Flux with the patches of spec.kustomize.patches, and a target that selects
// nothing is no error. What there is to patch follows from the FluxInstance: the components' objects, the source of
// spec.sync and its Kustomization. Names are compared for Deployments only, whose names are the components'.
var InstancePatch = &validators.Rule{
	Meta: validators.Meta{
		ID:       "SO003",
		Name:     "flux-instance-patch-unmatched",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{fluxInstance}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Patch of the FluxInstance selects nothing",
			Why: "The Flux Operator applies a patch to what its target selects, and to nothing without an error. The " +
				"setting has no effect.",
			Fix:   "Correct the kind or the name of the target, or remove the patch.",
			Since: "v0.1.0",
		},
	},
	Check: checkInstancePatches,
}

func checkInstancePatches(ctx context.Context, p *validators.Pass) error {
	at := validators.NewPath("spec", "kustomize", "patches")
	list, _ := at.Lookup(p.Object.Object).([]any)
	for i, item := range list {
		m, _ := item.(map[string]any)
		target, _ := m["target"].(map[string]any)
		kind, _ := target["kind"].(string)
		name, _ := target["name"].(string)
		if kind == "" || unresolved.HasVariable(kind) || unresolved.HasVariable(name) {
			continue
		}
		kinds := instanceKinds(p.Object)
		matched, err := matchesAny(ctx, kind, kinds)
		if err != nil {
			continue // the operator reports the pattern
		}
		if len(matched) == 0 {
			f := p.Report(at.Index(i).Child("target", "kind"), kind, "the FluxInstance creates no %s", kind)
			if near := suggest.Nearest(kind, kinds); near != "" {
				f.Message += "; did you mean " + near + "?"
			}
			continue
		}
		if name == "" || len(matched) != 1 || matched[0] != deployment.Kind {
			continue
		}
		names := controllers(p.Object)
		if matched, err := matchesAny(ctx, name, names); err != nil || len(matched) > 0 {
			continue
		}
		f := p.Report(at.Index(i).Child("target", "name"), name, "the FluxInstance creates no Deployment %s", name)
		if near := suggest.Nearest(name, names); near != "" {
			f.Message += "; did you mean " + near + "?"
		}
	}
	return nil
}

// matchesAny returns the texts that a pattern of a kustomize target matches as a whole.
func matchesAny(ctx context.Context, pattern string, texts []string) ([]string, error) {
	re, err := boundedregexp.Compile("^(?:" + pattern + ")$")
	if err != nil {
		return nil, fmt.Errorf("reading the target: %w", err)
	}
	var out []string
	for _, text := range texts {
		ok, err := re.Match(ctx, text)
		if err != nil {
			return nil, fmt.Errorf("matching the target: %w", err)
		}
		if ok {
			out = append(out, text)
		}
	}
	return out, nil
}

// instanceKinds returns the kinds of the objects that the Flux Operator creates for a FluxInstance.
func instanceKinds(o *unstructured.Unstructured) []string {
	out := []string{
		"Namespace", "CustomResourceDefinition", "ServiceAccount", "ResourceQuota", "Role", "RoleBinding", "ClusterRole",
		"ClusterRoleBinding", "Service", "Deployment", "NetworkPolicy", "PersistentVolumeClaim", "ConfigMap", "Secret",
	}
	if kind, _, _ := unstructured.NestedString(o.Object, "spec", "sync", "kind"); kind != "" {
		out = append(out, kind, "Kustomization")
	}
	return out
}

// controllers returns the names of the Deployments of a FluxInstance: its components, and those of each shard.
func controllers(o *unstructured.Unstructured) []string {
	components, _, _ := unstructured.NestedStringSlice(o.Object, "spec", "components")
	if len(components) == 0 {
		components = []string{"source-controller", "kustomize-controller", "helm-controller", "notification-controller"}
	}
	out := slices.Clone(components)
	shards, _, _ := unstructured.NestedStringSlice(o.Object, "spec", "sharding", "shards")
	for _, shard := range shards {
		for _, component := range components {
			out = append(out, component+"-"+shard)
		}
	}
	return out
}
