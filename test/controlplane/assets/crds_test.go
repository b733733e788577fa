package assets

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCRDs_EverySet(t *testing.T) {
	for set := range crdSources() {
		t.Run(string(set), func(t *testing.T) {
			dirs, err := CRDs(t.Context(), set)
			if err != nil {
				t.Fatal(err)
			}
			files, err := filepath.Glob(filepath.Join(dirs[0], "*.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				data, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(string(data), "kind: CustomResourceDefinition") {
					return
				}
			}
			t.Errorf("no CRD in %s", dirs[0])
		})
	}
}

func TestCRDs_Order(t *testing.T) {
	dirs, err := CRDs(t.Context(), CloudNativePG, FluxSource)
	if err != nil {
		t.Fatal(err)
	}
	if len(dirs) != 2 || !strings.Contains(dirs[0], "cloudnative-pg@") || !strings.Contains(dirs[1], "source-controller@") {
		t.Errorf("got %q", dirs)
	}
}

func TestCRDs_UnknownSet(t *testing.T) {
	want := `no CRDs are named "cnpg": use one of cloudnative-pg, external-secrets, flux-helm, flux-kustomize, flux-source, volume-snapshots`
	if _, err := CRDs(t.Context(), "cnpg"); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestCRDs_ChecksumMissing(t *testing.T) {
	download := `{"Path": "example.org/m", "Version": "v1.0.0", "Dir": "/m", "Sum": "h1:other="}`
	p := pins{sums: map[string]bool{"example.org/m v1.0.0 h1:recorded=": true}}
	want := "example.org/m v1.0.0 has the checksum h1:other=, which test/controlplane/modules/crds/go.sum does not record"
	if _, err := readDownloads(download, p); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// The CRDs that are installed must be those of the controllers that run.
func TestCRDs_VersionsOfControllers(t *testing.T) {
	root, err := treeRoot()
	if err != nil {
		t.Fatal(err)
	}
	crds, err := readPins(t.Context(), filepath.Join(root, modulesDir, crdModule))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range fluxComponents() {
		controller, err := readPins(t.Context(), filepath.Join(root, modulesDir, c.module))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := crds.versions[c.pkg], controller.versions[c.pkg]; got != want || got == "" {
			t.Errorf("%s: the CRDs are of %q, the controller is %q", c.name, got, want)
		}
	}
}

// The controllers of cert-manager that run must be those of the module whose CRDs and types the product uses.
func TestCertManager_VersionOfTheProduct(t *testing.T) {
	root, err := treeRoot()
	if err != nil {
		t.Fatal(err)
	}
	product, err := readPins(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	controllers, err := readPins(t.Context(), filepath.Join(root, modulesDir, certManagerComponent().module))
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/cert-manager/cert-manager"
	if got, want := controllers.versions[module], product.versions[module]; got != want || got == "" {
		t.Errorf("the controllers are of %q, the product uses %q", got, want)
	}
}
