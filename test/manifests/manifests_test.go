// Package manifests_test applies every overlay in manifests/overlays to a real API server.
package manifests_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
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

// certManagerCRDs returns the directory with the CRDs of cert-manager's module.
func certManagerCRDs(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/cert-manager/cert-manager").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "deploy", "crds")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("cert-manager's module has no %s any more", dir)
	}
	return dir
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
	if err := plane.InstallCRDs(t.Context(), certManagerCRDs(t)); err != nil {
		t.Fatal(err)
	}
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
	if err := os.WriteFile(filepath.Join(mine, "kustomization.yaml"), []byte(kustomization), 0o600); err != nil {
		t.Fatal(err)
	}
	return mine
}

// objects returns the objects that kustomize builds, by kind and name.
func objects(t *testing.T, dir string) map[string]*unstructured.Unstructured {
	t.Helper()
	text, stderr, err := plane.Kubectl(t.Context(), nil, "kustomize", dir)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
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
		out[o.GetKind()+"/"+o.GetName()] = o
	}
}

// Every set of components gives a valid installation that has the effects of each.
func TestComponents_Combine(t *testing.T) {
	if err := plane.InstallCRDs(t.Context(), certManagerCRDs(t)); err != nil {
		t.Fatal(err)
	}
	names := []string{"cert-manager", "strict", "audit-only"}
	for set := range 1 << len(names) {
		var chosen []string
		for i, name := range names {
			if set&(1<<i) != 0 {
				chosen = append(chosen, name)
			}
		}
		t.Run(strings.Join(chosen, "+"), func(t *testing.T) {
			text := "resources: [../manifests/base, ../manifests/policy]\ncomponents:\n"
			for _, name := range chosen {
				text += "- ../manifests/components/" + name + "\n"
			}
			dir := compose(t, text)
			built := objects(t, dir)
			for kind, has := range map[string]func(o *unstructured.Unstructured) bool{
				"strict": func(o *unstructured.Unstructured) bool {
					policy, _, _ := unstructured.NestedString(built["AdmissionPolicy/default"].Object, "spec", "onError")
					hooks, _, _ := unstructured.NestedSlice(o.Object, "webhooks")
					hook, _ := hooks[0].(map[string]any)
					return policy == "Deny" && hook["failurePolicy"] == "Fail"
				},
				"cert-manager": func(o *unstructured.Unstructured) bool {
					return o.GetAnnotations()["cert-manager.io/inject-ca-from"] == "flux-admission-system/flux-admission" &&
						built["ClusterRole/flux-admission-ca"] == nil && built["Role/flux-admission-ca"] == nil
				},
				"audit-only": func(*unstructured.Unstructured) bool {
					mode, _, _ := unstructured.NestedString(built["AdmissionPolicy/default"].Object, "spec", "mode")
					return mode == "AuditOnly"
				},
			} {
				if got, want := has(built["ValidatingWebhookConfiguration/flux-admission"]), slices.Contains(chosen, kind); got != want {
					t.Errorf("%s: %v, want %v", kind, got, want)
				}
			}
			if err := plane.InstallManifests(t.Context(), dir, nil); err != nil {
				t.Error(err)
			}
		})
	}
}
