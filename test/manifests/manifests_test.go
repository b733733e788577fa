// Package manifests_test applies every overlay that ships to a real API server.
package manifests_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

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

// certManagerCRDs are those that cert-manager's module ships.
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
func TestOverlaysApplyStrictly(t *testing.T) {
	if err := plane.InstallCRDs(t.Context(), certManagerCRDs(t)); err != nil {
		t.Fatal(err)
	}
	for name, dir := range overlays(t) {
		t.Run(name, func(t *testing.T) {
			// CRDs and namespaces first, as kubectl and Flux sort them, and wait for the CRD; then as anybody would.
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
			if after := versions(t, dir); after != before {
				t.Errorf("a second apply changes something:\n%s\nwas\n%s", after, before)
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

// No overlay carries a CA: it would be one more secret thing in Git that runs out.
func TestNoCABundleInGit(t *testing.T) {
	for name, dir := range overlays(t) {
		out, _, err := plane.Kubectl(t.Context(), nil, "kustomize", dir)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out, "caBundle") {
			t.Errorf("%s has a caBundle", name)
		}
	}
}

// The component takes away exactly the permission to read Secrets.
func TestWithoutSecrets(t *testing.T) {
	dir := t.TempDir()
	root, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "manifests"), os.DirFS(filepath.Join(root, "manifests"))); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(dir, "mine")
	if err := os.Mkdir(mine, 0o750); err != nil {
		t.Fatal(err)
	}
	text := "resources: [../manifests/overlays/self-managed]\ncomponents: [../manifests/components/no-secrets]\n"
	if err := os.WriteFile(filepath.Join(mine, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	left, kept := 0, 0
	if err := plane.InstallManifests(t.Context(), mine, func(o *unstructured.Unstructured) {
		kept++
		if o.GetName() == "flux-admission-secrets" {
			left++
		}
	}); err != nil {
		t.Fatal(err)
	}
	if left > 0 || kept < 10 {
		t.Errorf("%d objects, %d of them still let Secrets be read", kept, left)
	}
}
