package reference

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/validators"
)

// rbacGroup is the API group of roles and their bindings.
const rbacGroup = "rbac.authorization.k8s.io"

var (
	role               = schema.GroupKind{Group: rbacGroup, Kind: "Role"}
	clusterRole        = schema.GroupKind{Group: rbacGroup, Kind: "ClusterRole"}
	roleBinding        = schema.GroupKind{Group: rbacGroup, Kind: "RoleBinding"}
	clusterRoleBinding = schema.GroupKind{Group: rbacGroup, Kind: "ClusterRoleBinding"}
)

// binding adds the role and the service accounts of a RoleBinding or ClusterRoleBinding. The API server stores a
// binding of a role that does not exist, and it grants nothing. Subjects without a namespace and in system namespaces
// are skipped: the API server rejects the former, and the control plane creates the latter.
func (c *collector) binding() {
	ref := validators.NewPath("roleRef")
	switch ref.Child("kind").Lookup(c.root) {
	case clusterRole.Kind:
		if name, _ := ref.Child("name").Lookup(c.root).(string); !providedRole(name) {
			c.add(ref.Child("name"), clusterRole, "")
		}
	case role.Kind:
		c.add(ref.Child("name"), role, c.pass.Object.GetNamespace())
	}
	c.each(validators.NewPath("subjects"), func(at validators.Path) {
		namespace, _ := at.Child("namespace").Lookup(c.root).(string)
		if at.Child("kind").Lookup(c.root) == serviceAccount.Kind && namespace != "" && !strings.HasPrefix(namespace, "kube-") {
			c.add(at.Child("name"), serviceAccount, namespace)
		}
	})
}

// mayBeCreatedByOperator reports whether the subject of a binding may be a service account that an operator creates for
// its custom resources: there are releases in its namespace, and the account exists in no other one. What is installed
// in the namespaces of Flux and in the default one is rarely in the tree as a whole.
func mayBeCreatedByOperator(ctx context.Context, p *validators.Pass, r reference) bool {
	gk := p.Object.GroupVersionKind().GroupKind()
	if gk != roleBinding && gk != clusterRoleBinding || len(namespacesOf(ctx, p.Lookup, r)) > 0 {
		return false
	}
	if r.key.Namespace == "default" || r.key.Namespace == "flux-system" {
		return true
	}
	return slices.ContainsFunc(releases(ctx, p), func(o *unstructured.Unstructured) bool {
		return effectiveNamespace(o) == r.key.Namespace
	})
}

// providedRole reports whether a ClusterRole exists in every cluster, or comes with Flux: the user-facing roles, those
// of the control plane, and those of a Flux installation.
func providedRole(name string) bool {
	return slices.Contains([]string{"cluster-admin", "admin", "edit", "view"}, name) || strings.Contains(name, ":") ||
		strings.HasPrefix(name, "flux-") || strings.HasPrefix(name, "crd-controller")
}

// sharesWord reports whether the name of an object shares a word with the release or its chart, as the objects of
// charts and operators do. Words that say nothing about the application do not count.
func sharesWord(o *unstructured.Unstructured, name string) bool {
	common := []string{"role", "cluster", "controller", "operator", "manager", "reader", "viewer", "editor", "admin"}
	words := wordsOf(name)
	return slices.ContainsFunc(append(wordsOf(chartName(o)), wordsOf(o.GetName())...), func(word string) bool {
		return !slices.Contains(common, word) && slices.Contains(words, word)
	})
}
