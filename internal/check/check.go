// Package check evaluates a Git tree before it reaches a cluster: it renders the tree as Flux would, puts every rendered object to the same
// rules and the same policy as the webhook, and reports what they say with the file and line it stands on.
package check

import (
	"context"
	"fmt"

	"github.com/flux-admission/flux-admission/internal/crdschema"
	"github.com/flux-admission/flux-admission/internal/crdschema/builtin"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/render"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/validators"
)

// Options say what is checked by what.
type Options struct {
	// Policy decides what is done about findings.
	Policy *policy.Policy
	// Charts resolves charts; nil makes every chart unknown.
	Charts lookup.Charts
	// FoldRule is the name of a rule whose findings are folded into one for people; empty for none.
	FoldRule string
}

// Run evaluates what was rendered. Findings are in the report; an error means that nothing could be evaluated.
func Run(ctx context.Context, rendered *render.Result, o Options) (*report.Report, error) {
	r := &report.Report{Rules: o.Policy.Evaluated()}
	r.Summary.Files = rendered.Files
	said := map[string]bool{}
	for _, p := range rendered.Problems {
		addProblem(r, p, said)
	}
	for _, c := range rendered.Clusters {
		if err := cluster(ctx, r, c, o, said); err != nil {
			return nil, err
		}
	}
	r.Normalize()
	return r, nil
}

func cluster(ctx context.Context, r *report.Report, c *render.Cluster, o Options, said map[string]bool) error {
	kinds, err := knownKinds(c)
	if err != nil {
		return err
	}
	look := lookup.WithKinds(c.Lookup(o.Charts), kinds)
	r.Summary.Kustomizations += len(c.Kustomizations)
	for _, k := range c.Kustomizations {
		for _, p := range k.Problems {
			addProblem(r, p, said)
		}
	}
	for _, object := range c.Objects {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("checking %s: %w", object, err)
		}
		// What check itself implies has no place in Git, and what another cluster gets is that cluster's.
		if object.Origin.Implied || object.Kustomization != nil && object.Kustomization.Elsewhere() {
			continue
		}
		r.Summary.Objects++
		request := validators.Request{Operation: validators.Create, Object: object.Unstructured, Opaque: object.Unknown}
		add(r, object, o.Policy.Review(ctx, request, look), o.FoldRule, said)
	}
	return nil
}

// knownKinds are Kubernetes' own, those whose definitions the tree applies, and those that are built in.
func knownKinds(c *render.Cluster) (*crdschema.Set, error) {
	stock, err := builtin.New()
	if err != nil {
		return nil, fmt.Errorf("reading the schemas that are built in: %w", err)
	}
	set, err := crdschema.NewSet(crdschema.Options{Fallback: stock})
	if err != nil {
		return nil, fmt.Errorf("reading Kubernetes' own schemas: %w", err)
	}
	for _, object := range c.Objects {
		if object.GroupVersionKind().GroupKind() != crdschema.CustomResourceDefinition {
			continue
		}
		// A definition that cannot be used leaves its kind unknown.
		_ = set.Add(object.Origin.File, object.Unstructured)
	}
	return set, nil
}

func add(r *report.Report, object *render.Object, d policy.Decision, fold string, said map[string]bool) {
	for _, list := range []struct {
		action   validators.Action
		findings []*validators.Finding
	}{{policy.Deny, d.Deny}, {policy.Warn, d.Warn}, {policy.Audit, d.Audit}} {
		for _, f := range list.findings {
			r.Findings = append(r.Findings, finding(object, f, list.action, fold))
		}
	}
	for _, e := range d.Excepted {
		for i := range r.Findings {
			if f := &r.Findings[i]; f.ID == e.Finding.Rule.ID && f.Path == e.Finding.Path.String() && f.Message == e.Finding.Message && f.Object == named(object) {
				f.Suppressed = &report.Suppression{By: report.ByException, Reason: e.Reason}
			}
		}
	}
	for _, list := range [][]policy.Judged{d.Unknown, d.Skipped} {
		for _, j := range list {
			// The same reason is said once, however many objects it keeps from being judged.
			if key := j.Rule.ID + j.Reason; !said[key] {
				said[key] = true
				o := named(object)
				r.Skipped = append(r.Skipped, report.Skipped{Rule: j.Rule.Name, ID: j.Rule.ID, Object: &o, Reason: j.Reason, Unknown: true})
			}
		}
	}
	for _, j := range d.Errors {
		o := named(object)
		r.Errors = append(r.Errors, report.Error{Rule: j.Rule.Name, ID: j.Rule.ID, Object: &o, File: object.Origin.File, Message: j.Reason})
	}
}

func finding(object *render.Object, f *validators.Finding, action validators.Action, fold string) report.Finding {
	at := object.Locate(f.Path)
	out := report.Finding{
		Rule: f.Rule.Name, ID: f.Rule.ID, Severity: f.Rule.Severity, Action: action, Object: named(object), Path: f.Path.String(),
		File: at.Place.File, Line: at.Place.Line, Column: at.Place.Column, Message: f.Message, Fix: f.Fix, Fixable: len(f.Edits) > 0, Key: f.Key,
	}
	for _, s := range at.Others {
		out.Also = append(out.Also, report.Place{File: s.Place.File, Line: s.Place.Line, Column: s.Place.Column, Note: string(s.Role)})
	}
	if object.Kustomization != nil {
		out.Kustomization = object.Kustomization.Key.String()
	}
	if f.Rule.Name == fold {
		out.Fold = fold
	}
	return out
}

func named(object *render.Object) report.Object {
	return report.Object{APIVersion: object.GetAPIVersion(), Kind: object.GetKind(), Namespace: object.GetNamespace(), Name: object.GetName()}
}

// addProblem reports what rendering itself found: what cannot be known is skipped, everything else keeps Flux from applying the tree.
func addProblem(r *report.Report, p *render.Problem, said map[string]bool) {
	if said[p.String()] {
		return
	}
	said[p.String()] = true
	switch p.Kind {
	case render.RemoteBase, render.SourceUnknown, render.DecryptionMissing:
		r.Skipped = append(r.Skipped, report.Skipped{File: p.Place.File, Line: p.Place.Line, Reason: p.Message, Unknown: true})
	default:
		r.Errors = append(r.Errors, report.Error{File: p.Place.File, Line: p.Place.Line, Column: p.Place.Column, Message: p.Message})
	}
}
