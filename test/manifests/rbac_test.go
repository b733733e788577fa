package manifests_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/env"
)

// installDefault installs the default overlay. It returns the root of the repository and a client.
func installDefault(t *testing.T) (root string, c client.Client) {
	t.Helper()
	root, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	if err := plane.InstallManifests(t.Context(), filepath.Join(root, env.Overlay), nil); err != nil {
		t.Fatal(err)
	}
	c, err = client.New(plane.Config(), client.Options{Scheme: scheme.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	return root, c
}

// TestRBAC_LeastPrivilege checks with the API server's authorizer that the service account has the permissions that the
// webhook server uses, and none of those that it does not.
func TestRBAC_LeastPrivilege(t *testing.T) {
	_, c := installDefault(t)
	for name, tc := range map[string]struct {
		resource authorizationv1.ResourceAttributes
		want     map[string]bool
	}{
		"ConfigMaps are only read one by one": {
			authorizationv1.ResourceAttributes{Version: "v1", Resource: "configmaps", Namespace: "apps", Name: "values"},
			map[string]bool{"get": true},
		},
		"Secrets are inaccessible": {
			authorizationv1.ResourceAttributes{Version: "v1", Resource: "secrets", Namespace: "apps", Name: "values"},
			nil,
		},
		"the Secret of the CA is watched and written": {
			authorizationv1.ResourceAttributes{Version: "v1", Resource: "secrets", Namespace: env.Namespace, Name: "flux-admission-ca"},
			map[string]bool{"list": true, "watch": true, "create": true, "update": true},
		},
		"HelmReleases are read from an informer": {
			authorizationv1.ResourceAttributes{Group: "helm.toolkit.fluxcd.io", Version: "v2", Resource: "helmreleases", Namespace: "apps"},
			map[string]bool{"get": true, "list": true, "watch": true},
		},
		"the AdmissionPolicy is only read": {
			authorizationv1.ResourceAttributes{Group: "flux-admission.dev", Version: "v1alpha1", Resource: "admissionpolicies", Name: "default"},
			map[string]bool{"get": true, "list": true, "watch": true},
		},
		"the status of the AdmissionPolicy is only updated": {
			authorizationv1.ResourceAttributes{
				Group: "flux-admission.dev", Version: "v1alpha1", Resource: "admissionpolicies", Subresource: "status", Name: "default",
			},
			map[string]bool{"update": true},
		},
		"the caBundle of its own webhook configuration is patched": {
			authorizationv1.ResourceAttributes{
				Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations", Name: "flux-admission",
			},
			map[string]bool{"list": true, "watch": true, "patch": true},
		},
		"other webhook configurations are inaccessible": {
			authorizationv1.ResourceAttributes{
				Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations", Name: "other",
			},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) { grants(t, c, tc.resource, tc.want) })
	}
}

// grants checks that the service account has the verbs on a resource, and no others.
func grants(t *testing.T, c client.Client, resource authorizationv1.ResourceAttributes, want map[string]bool) {
	t.Helper()
	for _, verb := range []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"} {
		attributes := resource
		attributes.Verb = verb
		if verb == "create" {
			attributes.Name = "" // RBAC does not know the name of an object that is created
		}
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: env.ServiceAccount, Groups: env.ServiceAccountGroups(), ResourceAttributes: &attributes,
		}}
		if err := c.Create(t.Context(), review); err != nil {
			t.Fatal(err)
		}
		if got := review.Status.Allowed; got != want[verb] {
			t.Errorf("%s is allowed: %v; want %v (%s)", verb, got, want[verb], review.Status.Reason)
		}
	}
}

// TestRBAC_SecretsOfNamedNamespaces checks the RoleBinding of docs/authentication.md, then the component for all.
func TestRBAC_SecretsOfNamedNamespaces(t *testing.T) {
	root, c := installDefault(t)
	text, err := os.ReadFile(filepath.Join(root, "docs", "authentication.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "### Named namespaces\n")
	_, after, _ = strings.Cut(after, "```yaml\n")
	manifest, _, ok := strings.Cut(after, "```")
	if !ok || !strings.Contains(manifest, "kind: RoleBinding") {
		t.Fatalf("docs/authentication.md has no RoleBinding for named namespaces: %q", manifest)
	}
	namespaces := "apiVersion: v1\nkind: Namespace\nmetadata: {name: apps}\n---\n"
	if _, _, err := plane.Kubectl(t.Context(), strings.NewReader(namespaces+manifest), "apply", "--server-side", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	secrets := authorizationv1.ResourceAttributes{Version: "v1", Resource: "secrets", Namespace: "apps", Name: "values"}
	grants(t, c, secrets, map[string]bool{"get": true})
	secrets.Namespace = "other"
	grants(t, c, secrets, nil)
	mine := compose(t, "resources: [../manifests/overlays/self-managed]\ncomponents: [../manifests/components/read-secrets]\n")
	if err := plane.InstallManifests(t.Context(), mine, nil); err != nil {
		t.Fatal(err)
	}
	grants(t, c, secrets, map[string]bool{"get": true})
	// TestRBAC_LeastPrivilege is about the base.
	if _, _, err := plane.Kubectl(t.Context(), nil, "delete", "clusterrolebinding", "flux-admission-secrets"); err != nil {
		t.Fatal(err)
	}
}
