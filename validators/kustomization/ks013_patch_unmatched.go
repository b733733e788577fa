package kustomization

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// PatchUnmatched is the rule kustomization-patch-unmatched.
//
// kustomize applies a patch with a target to every object that the target selects, and to none without an error
// (api/internal/builtins/PatchTransformer.go). It selects before namespace, prefix and suffix of the same kustomization
// are set, and before Flux substitutes variables. Likewise for the targets of replacements, which are selected after that.
// Targets that are patterns are not reported, nor are the patches of components and those that a parent adds to all its
// children: they are shared. A target without a name is reported in a kustomization.yaml only, and not where it deletes.
var PatchUnmatched = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS013",
		Name:     "kustomization-patch-unmatched",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Patch or replacement selects no object",
			Why: "kustomize builds without an error and leaves the object as it is: the patch or the replacement has " +
				"no effect. The target is misspelled, or selects by a name or namespace that the object has only later.",
			Fix: "Select the object by the kind, name and namespace that it has among the resources, before the " +
				"namespace is set and variables are substituted, or remove the patch.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.Kustomization},
	},
	Check: func(ctx context.Context, p *validators.Pass) error {
		accept := func(problem validators.Problem) bool { return problem.Kind == validators.ProblemPatchUnmatched }
		reportProblems(ctx, p, accept, func(f *validators.Finding, problem validators.Problem) { f.Key = problem.Name })
		return nil
	},
}
