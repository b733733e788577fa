package check

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/validators"
)

// Admission evaluates objects as the admission webhook of a cluster does when they are applied.
type Admission struct {
	policy  *policy.Policy
	look    validators.Lookup
	cluster string
}

// Admission returns the evaluation of a cluster's objects by the policy of a file, by that which the cluster applies, or
// by the default policy.
func (t *Tree) Admission(file string, c *kustomization.Cluster) (*Admission, error) {
	parsed, err := admissionPolicy(file, c)
	if err != nil {
		return nil, err
	}
	compiled, err := compile(parsed, nil)
	if err != nil {
		return nil, err
	}
	return &Admission{policy: compiled, look: c.Lookup(t.chartsOf(c)), cluster: nameOfCluster(c)}, nil
}

func admissionPolicy(file string, c *kustomization.Cluster) (*v1alpha1.AdmissionPolicy, error) {
	if file != "" {
		return parsePolicy(file, validators.StageAdmission)
	}
	if own := policyOf(c); own != nil {
		return objectPolicy(own, validators.StageAdmission)
	}
	return policy.DefaultAt(validators.StageAdmission, allRules())
}

// Review returns what the webhook would report about the creation of an object, or about its update if old is not nil.
func (a *Admission) Review(ctx context.Context, object *kustomization.Object, old *unstructured.Unstructured) []report.Finding {
	r := validators.Request{Operation: validators.Create, Stage: validators.StageAdmission, Object: object.Unstructured, Unresolved: object.Unresolved}
	if old != nil {
		r.Operation, r.Old = validators.Update, old
	}
	if !a.policy.Handles(object.GroupVersionKind().GroupKind()) {
		return nil
	}
	d := a.policy.Evaluate(ctx, r, a.look)
	var out []report.Finding
	for _, list := range []struct {
		action   v1alpha1.Action
		findings []*validators.Finding
	}{{v1alpha1.ActionDeny, d.Deny}, {v1alpha1.ActionWarn, d.Warn}} {
		for _, f := range list.findings {
			at := object.Locate(f.Path).Position
			finding := report.Finding{
				Cluster: a.cluster, Rule: f.Rule.Name, ID: f.Rule.ID, Severity: f.Rule.Severity, Action: list.action, Object: nameOf(object.Unstructured),
				Path: f.Path.String(), File: at.File, Line: at.Line, Column: at.Column, Message: f.Message, Fix: f.Fix, Key: f.Key,
			}
			if object.Kustomization != nil {
				finding.Kustomization = object.Kustomization.Key.String()
			}
			out = append(out, finding)
		}
	}
	return out
}
