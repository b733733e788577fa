// Package rbac holds the rules on roles and their bindings.
package rbac

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// SubjectNamespace is the rule cluster-role-binding-subject-namespace.
//
// The API server requires the namespace of a ServiceAccount in a ClusterRoleBinding; in a RoleBinding it is that of the
// binding by default (Kubernetes: pkg/apis/rbac/validation, ValidateRoleBindingSubject). kustomize sets the namespace of
// subjects only if the ServiceAccount is among its resources, or is called default.
var SubjectNamespace = &validators.Rule{
	Meta: validators.Meta{
		ID:       "RB001",
		Name:     "cluster-role-binding-subject-namespace",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{{Group: "rbac.authorization.k8s.io", Kind: "ClusterRoleBinding"}}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "ServiceAccount of a ClusterRoleBinding has no namespace",
			Why: "The API server rejects a ClusterRoleBinding whose subject is a ServiceAccount without a namespace, and the " +
				"whole Kustomization with it. kustomize's namespace fills it in only for a ServiceAccount that is " +
				"among the same resources.",
			Fix:   "Set the namespace of the subject to that of the ServiceAccount.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{serviceAccount},
	},
	Check: checkSubjects,
}

var serviceAccount = schema.GroupKind{Kind: "ServiceAccount"}

func checkSubjects(ctx context.Context, p *validators.Pass) error {
	at := validators.NewPath("subjects")
	list, _ := at.Lookup(p.Object.Object).([]any)
	for i, item := range list {
		subject, _ := item.(map[string]any)
		name, _ := subject["name"].(string)
		namespace, _ := subject["namespace"].(string)
		if subject["kind"] != "ServiceAccount" || name == "" || namespace != "" {
			continue
		}
		f := p.Report(at.Index(i), nil, "the subject ServiceAccount %s has no namespace", name)
		f.Key = name
		accounts, _, _ := p.Lookup.List(ctx, serviceAccount, "")
		accounts = slices.DeleteFunc(slices.Clone(accounts), func(o *unstructured.Unstructured) bool { return o.GetName() != name })
		if len(accounts) == 1 {
			own := accounts[0].GetNamespace()
			f.Message += "; one exists in namespace " + own
			f.Edits = []validators.Edit{flux.Set(p.Object.Object, at.Index(i).Child("namespace"), own)}
		}
	}
	return nil
}
