// Package audit evaluates the objects that a cluster has already: with the same rules and the same policy as the admission
// webhook, which sees them only when they are written.
package audit

import (
	"context"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/validators"
)

// evaluationTimeout limits the evaluation of one object, which may wait for a chart.
const evaluationTimeout = 90 * time.Second

// Kinds returns the kinds that rules evaluate in a cluster, each once.
func Kinds(rules []*validators.Meta) []schema.GroupKind {
	var out []schema.GroupKind
	for _, m := range rules {
		for _, gk := range m.KindsAt(validators.StageAudit) {
			if !slices.Contains(out, gk) {
				out = append(out, gk)
			}
		}
	}
	return out
}

// Reads returns the other kinds that rules look up when they evaluate objects of a cluster, each once.
func Reads(rules []*validators.Meta) []schema.GroupKind {
	var out []schema.GroupKind
	for _, m := range rules {
		if !m.Stages.Has(validators.StageAudit) {
			continue
		}
		for _, gk := range m.Reads {
			if !slices.Contains(out, gk) {
				out = append(out, gk)
			}
		}
	}
	return out
}

// Exempt reports whether there is nothing to report about an object, because its namespace is excluded, or none of the rules is
// evaluated for it: most are not for objects that are being deleted, of which the admission webhook denies no write.
func Exempt(rules []*validators.Meta, o *unstructured.Unstructured, excluded []string) bool {
	gk, deleted := o.GroupVersionKind().GroupKind(), o.GetDeletionTimestamp() != nil
	return slices.Contains(excluded, o.GetNamespace()) || !slices.ContainsFunc(rules, func(m *validators.Meta) bool {
		return m.Deletion == deleted && m.Evaluates(gk, validators.StageAudit)
	})
}

// Evaluate evaluates a stored object as admission would evaluate its creation, with its status. With confined, no finding names
// an object of another namespace that the object does not name itself.
func Evaluate(
	ctx context.Context, p *policy.Policy, o *unstructured.Unstructured, l validators.Lookup, confined bool, now time.Time,
) policy.Decision {
	ctx, cancel := context.WithTimeout(ctx, evaluationTimeout)
	defer cancel()
	return p.Evaluate(ctx, validators.Request{
		Operation: validators.Create, Stage: validators.StageAudit, Object: o, Confined: confined, Now: now,
	}, l)
}

// onUnknownFix is the fix of a finding on an inconclusive rule.
const onUnknownFix = "Give the audit what is missing, or set onUnknown: Allow for the rule in the policy."

// findings returns the findings of a decision with the actions of the mode Enforce: what AuditOnly only records is reported as
// what it would be.
func findings(o *unstructured.Unstructured, d policy.Decision) []report.Finding {
	var out []report.Finding
	add := func(f *validators.Finding, action v1alpha1.Action) *report.Finding {
		out = append(out, report.Finding{
			Rule: f.Rule.Name, ID: f.Rule.ID, Severity: f.Rule.Severity, Action: action, Object: nameOf(o), Path: f.Path.String(),
			Kustomization: appliedBy(o), Message: f.Message, Fix: f.Fix, Key: f.Key, Of: f,
		})
		return &out[len(out)-1]
	}
	for _, f := range d.Enforced() {
		added := add(f.Finding, f.Action)
		if f.Exemption != nil {
			added.Suppressed = &report.Suppression{By: report.ByExemption, Reason: f.Exemption.Reason}
		}
	}
	for _, u := range d.Unknown {
		if u.Action == v1alpha1.ActionDeny || u.Action == v1alpha1.ActionWarn {
			add(&validators.Finding{
				Rule: u.Rule, Key: "inconclusive",
				Diagnostic: validators.Diagnostic{Message: "inconclusive: " + u.Reason, Fix: onUnknownFix},
			}, u.Action)
		}
	}
	return out
}

// appliedBy returns the namespace/name of the Kustomization that applied an object, from the labels that kustomize-controller
// sets; empty if there is none.
func appliedBy(o *unstructured.Unstructured) string {
	labels := o.GetLabels()
	name := labels["kustomize.toolkit.fluxcd.io/name"]
	if name == "" {
		return ""
	}
	return labels["kustomize.toolkit.fluxcd.io/namespace"] + "/" + name
}

func nameOf(o *unstructured.Unstructured) report.Object {
	return report.Object{APIVersion: o.GetAPIVersion(), Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()}
}
