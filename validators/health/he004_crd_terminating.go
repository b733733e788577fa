package health

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/condition"
	"github.com/flux-admission/flux-admission/validators"
)

// DefinitionTerminating is the rule crd-terminating.
//
// The API server deletes the instances of a CustomResourceDefinition and waits for their finalizers. Its condition Terminating names
// no instance: they are named where they may be listed.
var DefinitionTerminating = &validators.Rule{
	Meta: validators.Meta{
		ID:        "HE004",
		Name:      "crd-terminating",
		Scope:     validators.Scope{Kinds: []schema.GroupKind{definitionKind}},
		Stages:    validators.StageAudit,
		Deletion:  true,
		Component: Component,
		Severity:  validators.SeverityError,
		Defaults:  validators.Defaults{Audit: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Deletion of the CRD does not end",
			Why: "No object of the kind can be created while its CustomResourceDefinition is being deleted, and the deletion waits for " +
				"the finalizers of those that exist. Often the controller that removes them was deleted together with the CRD.",
			Fix: "Reinstall the controller of the finalizers, so that it cleans up; remove a finalizer by hand only if its controller " +
				"is gone for good.",
			Since: "v0.1.0",
		},
		Params: after(15 * time.Minute),
	},
	Check: checkDefinitionTerminating,
}

func checkDefinitionTerminating(ctx context.Context, p *validators.Pass) error {
	deleted := p.Object.GetDeletionTimestamp().Time
	if !p.Elapsed(deleted, p.Params.(*AfterParams).after) {
		return nil
	}
	gk := schema.GroupKind{Group: text(p.Object, "spec", "group"), Kind: text(p.Object, "spec", "names", "kind")}
	f := p.Report(validators.NewPath("metadata", "deletionTimestamp"), nil, "is being deleted since %s", stamp(deleted))
	f.Key = "terminating"
	if p.Confined { // the instances are in other namespaces
		f.Message += "; flux-admission audit names the instances that hold it"
		return nil
	}
	list, presence, err := p.Lookup.List(ctx, gk, "")
	held := readControllers(ctx, p).held(list)
	switch {
	case held != "":
		f.Message += ": it waits for " + held
	case presence == validators.Unknown:
		f.Message += "; its instances cannot be listed"
		if err != nil {
			f.Message += ": " + err.Error()
		}
	default:
		if c := condition.Find(condition.Of(p.Object), "Terminating"); c.Is("True") {
			f.Message += ": " + describe(c)
		}
	}
	return nil
}
