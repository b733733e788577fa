package helmrelease

import (
	"context"
	"regexp"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// PostRendererUnmatched is the rule helm-post-renderer-unmatched.
//
// helm-controller applies the patches of spec.postRenderers to the objects that the chart templates, with kustomize, which
// reports no patch that selects nothing. The rule needs the chart and all values. Targets that are patterns, or select by
// labels alone, are not reported.
var PostRendererUnmatched = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR017",
		Name:     "helm-post-renderer-unmatched",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Post-renderer patches no object",
			Why: "The release is installed without an error and without the patch: its target is misspelled, or the " +
				"chart names the object differently.",
			Fix:   "Set the kind and the name of an object that the chart creates, or remove the patch.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{{Kind: "ConfigMap"}, {Kind: "Secret"}},
	},
	Check: checkPostRenderers,
}

// literalTarget matches the kind or name of a target that is no pattern.
var literalTarget = regexp.MustCompile(`^[A-Za-z0-9-]+$`)

func checkPostRenderers(ctx context.Context, p *validators.Pass) error {
	renderers, _ := validators.NewPath("spec", "postRenderers").Lookup(p.Object.Object).([]any)
	if len(renderers) == 0 {
		return nil
	}
	out := Templated(ctx, p.Lookup, p.Object)
	if out == nil {
		return nil // another rule records why
	}
	for i := range renderers {
		at := validators.NewPath("spec", "postRenderers").Index(i).Child("kustomize", "patches")
		patches, _ := at.Lookup(p.Object.Object).([]any)
		for j := range patches {
			target, _ := at.Index(j).Child("target").Lookup(p.Object.Object).(map[string]any)
			kind, name := text(target, "kind"), text(target, "name")
			if kind == "" || !literalTarget.MatchString(kind) || name != "" && !literalTarget.MatchString(name) || unresolved.Value(target) {
				continue
			}
			if slices.ContainsFunc(out.Objects, func(o validators.TemplatedObject) bool {
				return o.Object.GetKind() == kind && (name == "" || o.Object.GetName() == name)
			}) {
				continue
			}
			reportPostRenderer(p, at.Index(j).Child("target"), kind, name, out.Objects)
		}
	}
	return nil
}

func reportPostRenderer(p *validators.Pass, at validators.Path, kind, name string, objects []validators.TemplatedObject) {
	var kinds, names []string
	for _, o := range objects {
		kinds = append(kinds, o.Object.GetKind())
		if o.Object.GetKind() == kind {
			names = append(names, o.Object.GetName())
		}
	}
	if name == "" || len(names) == 0 {
		f := p.Report(at.Child("kind"), kind, "the patch selects nothing: the chart creates no %s", kind)
		if near := suggest.Nearest(kind, kinds); near != "" {
			f.Message += "; did you mean " + near + "?"
		}
		return
	}
	f := p.Report(at.Child("name"), name, "the patch selects nothing: the chart creates no %s %s", kind, name)
	slices.Sort(names)
	switch near := suggest.Nearest(name, names); {
	case near != "":
		f.Message += "; did you mean " + near + "?"
	case len(names) == 1:
		f.Message += "; its " + kind + " is " + names[0]
	}
}
