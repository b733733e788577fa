package manifests_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/env"
)

// patchWebhooks is a strategic merge patch of the first webhook of a configuration.
func patchWebhooks(name, fields string) string {
	return fmt.Sprintf(`{"webhooks": [{"name": %q, %s}]}`, name, fields)
}

// The service account of the webhook server writes the caBundle under the permissions of the manifests, and changes
// nothing else of webhook configurations, even with all permissions of the cluster.
func TestCABundlePolicy(t *testing.T) {
	root, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{env.Overlay, "manifests/" + env.MutatingWebhook} {
		if err := plane.InstallManifests(t.Context(), filepath.Join(root, filepath.FromSlash(dir)), nil); err != nil {
			t.Fatal(err)
		}
	}
	config, err := plane.User(env.ServiceAccount, env.ServiceAccountGroups()...)
	if err != nil {
		t.Fatal(err)
	}
	server, err := client.New(config, client.Options{Scheme: scheme.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	admin, err := client.New(plane.Config(), client.Options{Scheme: scheme.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	validating := &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "flux-admission"}}
	mutating := &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "flux-admission"}}
	patch := func(o client.Object, data string) error {
		o = o.DeepCopyObject().(client.Object)
		return server.Patch(t.Context(), o, client.RawPatch(types.StrategicMergePatchType, []byte(data)))
	}
	const validate, mutate = "validate.flux-admission.dev", "mutate.flux-admission.dev"
	// The API server compiles a new policy a moment after it is stored.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for i := 0; ; i++ {
		err := patch(validating, patchWebhooks(validate, fmt.Sprintf(`"timeoutSeconds": %d`, 6+i%2)))
		if err != nil && strings.Contains(err.Error(), "flux-admission-ca-bundle") {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the policy is not in force: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
	for _, bundle := range []string{"Zmlyc3Q=", "c2Vjb25k"} {
		for _, c := range []struct {
			object client.Object
			name   string
		}{{validating, validate}, {mutating, mutate}} {
			if err := patch(c.object, patchWebhooks(c.name, `"clientConfig": {"caBundle": "`+bundle+`"}`)); err != nil {
				t.Errorf("the caBundle of %s cannot be written: %v", c.name, err)
			}
		}
	}
	all := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "everything"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: env.Namespace, Name: "flux-admission"}},
	}
	if err := admin.Create(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := admin.Delete(context.WithoutCancel(t.Context()), all); err != nil {
			t.Error(err) // other tests are about the permissions of the manifests
		}
	})
	secrets := `"rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"], "operations": ["CREATE"], "scope": "*"}]`
	for name, do := range map[string]func() error{
		"rules":                func() error { return patch(validating, patchWebhooks(validate, secrets)) },
		"rules of mutations":   func() error { return patch(mutating, patchWebhooks(mutate, secrets)) },
		"a failure policy":     func() error { return patch(validating, patchWebhooks(validate, `"failurePolicy": "Fail"`)) },
		"a namespace selector": func() error { return patch(mutating, patchWebhooks(mutate, `"namespaceSelector": null`)) },
		"an object selector": func() error {
			return patch(mutating, patchWebhooks(mutate, `"objectSelector": {"matchLabels": {"a": "b"}}`))
		},
		"match conditions":      func() error { return patch(validating, patchWebhooks(validate, `"matchConditions": null`)) },
		"a reinvocation policy": func() error { return patch(mutating, patchWebhooks(mutate, `"reinvocationPolicy": "IfNeeded"`)) },
		"the service": func() error {
			return patch(mutating, patchWebhooks(mutate, `"clientConfig": {"service": {"name": "other", "namespace": "default"}}`))
		},
		"a path": func() error {
			return patch(mutating, patchWebhooks(mutate, `"clientConfig": {"service": {"path": "/other"}}`))
		},
		"a URL": func() error {
			return patch(mutating, patchWebhooks(mutate, `"clientConfig": {"service": null, "url": "https://example.com"}`))
		},
		"rules beside the caBundle": func() error {
			return patch(mutating, patchWebhooks(mutate, `"clientConfig": {"caBundle": "dGhpcmQ="}, `+secrets))
		},
		"another webhook": func() error {
			return patch(mutating, patchWebhooks("other.example.com", `"clientConfig": {"url": "https://example.com"}, "sideEffects": "None", "admissionReviewVersions": ["v1"]`))
		},
		"no webhook":    func() error { return patch(validating, `{"webhooks": [{"$patch": "replace"}]}`) },
		"a label":       func() error { return patch(validating, `{"metadata": {"labels": {"a": "b"}}}`) },
		"no labels":     func() error { return patch(validating, `{"metadata": {"labels": null}}`) },
		"an annotation": func() error { return patch(mutating, `{"metadata": {"annotations": {"a": "b"}}}`) },
		"a finalizer":   func() error { return patch(mutating, `{"metadata": {"finalizers": ["example.com/a"]}}`) },
		"a deletion":    func() error { return server.Delete(t.Context(), mutating.DeepCopy()) },
		"a creation": func() error {
			return server.Create(t.Context(), &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "other"}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := do()
			if err == nil || !strings.Contains(err.Error(), "flux-admission-ca-bundle") {
				t.Errorf("error %v, want a denial by the policy flux-admission-ca-bundle", err)
			}
		})
	}
	// Everybody else is not concerned.
	label := client.RawPatch(types.MergePatchType, []byte(`{"metadata": {"labels": {"a": "b"}}}`))
	if err := admin.Patch(t.Context(), mutating.DeepCopy(), label); err != nil {
		t.Error(err)
	}
}
