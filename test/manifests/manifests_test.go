// Package manifests_test applies every overlay in manifests/overlays to a real API server.
package manifests_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
)

var plane *controlplane.ControlPlane

func TestMain(m *testing.M) {
	os.Exit(controlplane.Main(m, controlplane.Options{CRDSets: controlplane.DefaultCRDs()}, func(cp *controlplane.ControlPlane) error {
		plane = cp
		return nil
	}))
}

func overlays(t *testing.T) map[string]string {
	t.Helper()
	root, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob(filepath.Join(root, "manifests", "overlays", "*"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no overlays: %v", err)
	}
	out := map[string]string{}
	for _, d := range dirs {
		out[filepath.Base(d)] = d
	}
	return out
}

// installCertManagerCRDs installs the CRDs of cert-manager.
func installCertManagerCRDs(t *testing.T) {
	t.Helper()
	dir, err := env.CertManagerCRDs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := plane.InstallCRDs(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
}

// versions are the stored objects of an overlay with their resource versions.
func versions(t *testing.T, dir string) string {
	t.Helper()
	const each = `{range .items[*]}{.kind} {.metadata.name} {.metadata.resourceVersion}{"\n"}{end}`
	out, _, err := plane.Kubectl(t.Context(), nil, "get", "-k", dir, "-o", "jsonpath="+each)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Each overlay applies with strict validation on an empty cluster, and a second time it changes nothing.
func TestOverlays_ApplyStrictly(t *testing.T) {
	installCertManagerCRDs(t)
	for name, dir := range overlays(t) {
		t.Run(name, func(t *testing.T) {
			// First CRDs and namespaces, as kubectl and Flux sort them, with a wait for the CRD; then with kubectl.
			if err := plane.InstallManifests(t.Context(), dir, nil); err != nil {
				t.Fatal(err)
			}
			first, _, err := plane.Kubectl(t.Context(), nil, "apply", "--validate=strict", "-k", dir)
			if err != nil {
				t.Fatal(err)
			}
			before := versions(t, dir)
			if _, _, err := plane.Kubectl(t.Context(), nil, "apply", "--validate=strict", "-k", dir); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, versions(t, dir)); diff != "" {
				t.Errorf("a second apply changes objects (-first +second):\n%s", diff)
			}
			if strings.Count(first, "\n") < 10 {
				t.Errorf("only this was applied:\n%s", first)
			}
			if out, stderr, err := plane.Kubectl(t.Context(), nil, "apply", "--server-side", "--force-conflicts", "--validate=strict", "-k", dir); err != nil {
				t.Errorf("server-side: %v\n%s%s", err, out, stderr)
			}
		})
	}
}

// A CA in an overlay would expire in Git.
func TestOverlays_NoCABundle(t *testing.T) {
	for name, dir := range overlays(t) {
		built := objects(t, dir)
		if len(built) == 0 {
			t.Errorf("%s has no objects", name)
		}
		for key, o := range built {
			if hasField(o.Object, "caBundle") {
				t.Errorf("%s: %s has a caBundle", name, key)
			}
		}
	}
}

// hasField reports whether a field of this name is anywhere in a value.
func hasField(value any, name string) bool {
	switch v := value.(type) {
	case map[string]any:
		for k, inner := range v {
			if k == name || hasField(inner, name) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, func(inner any) bool { return hasField(inner, name) })
	}
	return false
}

// compose writes an overlay of a copy of the manifests, and returns its directory.
func compose(t *testing.T, kustomization string) string {
	t.Helper()
	root, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "manifests"), os.DirFS(filepath.Join(root, "manifests"))); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(dir, "mine")
	if err := os.Mkdir(mine, 0o750); err != nil {
		t.Fatal(err)
	}
	write(t, mine, kustomization)
	return mine
}

// write writes the kustomization.yaml of a directory.
func write(t *testing.T, dir, kustomization string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(kustomization), 0o600); err != nil {
		t.Fatal(err)
	}
}

// objects returns the objects that kustomize builds, by kind and name.
func objects(t *testing.T, dir string) map[string]*unstructured.Unstructured {
	t.Helper()
	text, stderr, err := plane.Kubectl(t.Context(), nil, "kustomize", dir)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	return decode(t, text)
}

// decode returns the objects of a stream, by kind and name.
func decode(t *testing.T, text string) map[string]*unstructured.Unstructured {
	t.Helper()
	out := map[string]*unstructured.Unstructured{}
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		o := &unstructured.Unstructured{}
		err := decoder.Decode(o)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(o.Object) > 0 {
			out[o.GetKind()+"/"+o.GetName()] = o
		}
	}
}

// components are the effects of each component of the manifests on the objects that are built.
func components() map[string]func(built map[string]*unstructured.Unstructured) bool {
	arg := func(want string) func(map[string]*unstructured.Unstructured) bool {
		return func(built map[string]*unstructured.Unstructured) bool {
			containers, _, _ := unstructured.NestedSlice(built["Deployment/flux-admission"].Object, "spec", "template", "spec", "containers")
			container, _ := containers[0].(map[string]any)
			args, _, _ := unstructured.NestedStringSlice(container, "args")
			return slices.Contains(args, want)
		}
	}
	policy := func(built map[string]*unstructured.Unstructured, field string) string {
		value, _, _ := unstructured.NestedString(built["AdmissionPolicy/default"].Object, "spec", field)
		return value
	}
	configurations := func(built map[string]*unstructured.Unstructured) []*unstructured.Unstructured {
		return []*unstructured.Unstructured{
			built["ValidatingWebhookConfiguration/flux-admission"], built["MutatingWebhookConfiguration/flux-admission"],
		}
	}
	return map[string]func(built map[string]*unstructured.Unstructured) bool{
		"strict": func(built map[string]*unstructured.Unstructured) bool {
			for _, o := range configurations(built) {
				hooks, _, _ := unstructured.NestedSlice(o.Object, "webhooks")
				if hook, _ := hooks[0].(map[string]any); hook["failurePolicy"] != "Fail" {
					return false
				}
			}
			return policy(built, "onError") == "Deny"
		},
		"cert-manager": func(built map[string]*unstructured.Unstructured) bool {
			for _, o := range configurations(built) {
				if o.GetAnnotations()["cert-manager.io/inject-ca-from"] != "flux-admission-system/flux-admission" {
					return false
				}
			}
			return built["ClusterRole/flux-admission-ca"] == nil && built["Role/flux-admission-ca"] == nil
		},
		"audit-only": func(built map[string]*unstructured.Unstructured) bool {
			return policy(built, "mode") == "AuditOnly" && arg("--default-mode=AuditOnly")(built)
		},
		"audit-builds": arg("--audit-build-dir=/builds"),
		"grafana-dashboard": func(built map[string]*unstructured.Unstructured) bool {
			o := built["ConfigMap/flux-admission-dashboard"]
			return o != nil && o.GetLabels()["grafana_dashboard"] == "1"
		},
		"audit-events":          arg("--audit-events"),
		"audit-health":          arg("--audit-health"),
		"audit-reports":         arg("--audit-reports=openreports"),
		"multi-tenant":          arg("--no-cross-namespace-refs"),
		"client-authentication": arg("--client-ca-file=/client-ca/ca.crt"),
		"read-secrets": func(built map[string]*unstructured.Unstructured) bool {
			return built["ClusterRoleBinding/flux-admission-secrets"] != nil
		},
	}
}

// Every small set of components, and nearly all of them, in either order, gives an installation that has the effects of each and of no other, on the
// webhooks of the base and on the mutating one.
func TestComponents_Combine(t *testing.T) {
	effects := components()
	names := slices.Sorted(maps.Keys(effects))
	root, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob(filepath.Join(root, "manifests", "components", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if !slices.Contains(names, filepath.Base(dir)) {
			t.Errorf("the effects of the component %s are not tested", filepath.Base(dir))
		}
	}
	dir := compose(t, "")
	for set := range uint(1) << len(names) {
		// Of more than three components, only those sets that leave out one at most: what two do to each other shows in smaller ones.
		if n := bits.OnesCount(set); n > 3 && n < len(names)-1 {
			continue
		}
		var chosen []string
		for i, name := range names {
			if set&(1<<i) != 0 {
				chosen = append(chosen, name)
			}
		}
		for range 2 {
			t.Run(strings.Join(chosen, "+"), func(t *testing.T) {
				write(t, dir, combination(chosen))
				built := objects(t, dir)
				for name, has := range effects {
					if got, want := has(built), slices.Contains(chosen, name); got != want {
						t.Errorf("%s: %v, want %v", name, got, want)
					}
				}
			})
			slices.Reverse(chosen)
		}
	}
}

// The API server takes each component, and all of them together.
func TestComponents_ApplyStrictly(t *testing.T) {
	installCertManagerCRDs(t)
	t.Cleanup(func() {
		// Other tests are about the permissions of the base.
		_, _, err := plane.Kubectl(context.WithoutCancel(t.Context()), nil, "delete", "--ignore-not-found", "clusterrolebinding", "flux-admission-secrets", "flux-admission-roots")
		if err != nil {
			t.Error(err)
		}
	})
	// A component has an object in the namespace of Flux.
	namespace := strings.NewReader("apiVersion: v1\nkind: Namespace\nmetadata: {name: flux-system}\n")
	if _, _, err := plane.Kubectl(t.Context(), namespace, "apply", "--server-side", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	names := slices.Sorted(maps.Keys(components()))
	sets := [][]string{nil, names}
	for _, name := range names {
		sets = append(sets, []string{name})
	}
	for _, chosen := range sets {
		t.Run(strings.Join(chosen, "+"), func(t *testing.T) {
			if err := plane.InstallManifests(t.Context(), compose(t, combination(chosen)), nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// combination returns a kustomization with the policy, the mutating webhook and components.
func combination(components []string) string {
	text := "resources: [../manifests/base, ../manifests/policy, ../manifests/" + env.MutatingWebhook + "]\ncomponents:\n"
	for _, name := range components {
		text += "- ../manifests/components/" + name + "\n"
	}
	return text
}

// Without the directory of the mutating webhook, nothing registers one.
func TestOverlays_OnlyValidate(t *testing.T) {
	for name, dir := range overlays(t) {
		for key, o := range objects(t, dir) {
			if o.GetKind() == "MutatingWebhookConfiguration" {
				t.Errorf("%s has %s", name, key)
			}
		}
	}
}
