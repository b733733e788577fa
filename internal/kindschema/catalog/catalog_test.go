package catalog_test

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/kindschema/catalog"
)

var (
	helmRelease = schema.GroupKind{Group: "helm.toolkit.fluxcd.io", Kind: "HelmRelease"}
	certificate = schema.GroupKind{Group: "cert-manager.io", Kind: "Certificate"}
	cnpgCluster = schema.GroupKind{Group: "postgresql.cnpg.io", Kind: "Cluster"}
)

func TestForFlux(t *testing.T) {
	tests := map[string]struct {
		gk        schema.GroupKind
		release   string
		origin    string
		asOf      string
		installed bool
		uncertain bool
	}{
		"unknown":             {gk: helmRelease, release: "", origin: "Flux 2.10", asOf: "Flux 2.10"},
		"any":                 {gk: helmRelease, release: "2.x", origin: "Flux 2.10", asOf: "Flux 2.10"},
		"packed":              {gk: helmRelease, release: "v2.8.3", origin: "Flux 2.8", installed: true},
		"range":               {gk: helmRelease, release: "2.7.x", origin: "Flux 2.7", installed: true},
		"newest":              {gk: helmRelease, release: "2.10.0", origin: "Flux 2.10", installed: true},
		"newer":               {gk: helmRelease, release: "2.11", origin: "Flux 2.10", asOf: "Flux 2.10"},
		"older":               {gk: helmRelease, release: "v0.24.0", origin: "Flux 2.2", asOf: "Flux 2.2"},
		"before the kind":     {gk: schema.GroupKind{Group: "source.extensions.fluxcd.io", Kind: "ArtifactGenerator"}, release: "2.6", origin: "Flux 2.7", asOf: "Flux 2.7"},
		"another project":     {gk: cnpgCluster, release: "2.8", origin: "CloudNativePG 1.30.0", asOf: "CloudNativePG 1.30.0"},
		"third-party project": {gk: certificate, release: "2.8", origin: "cert-manager 1.21.2", asOf: "cert-manager 1.21.2", uncertain: true},
	}
	c, err := catalog.New()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d, err := c.ForFlux(tt.release).CRD(tt.gk)
			if err != nil || d == nil {
				t.Fatal(d, err)
			}
			if d.Origin != tt.origin || d.AsOf != tt.asOf || d.Installed != tt.installed || d.Uncertain != tt.uncertain {
				t.Errorf("origin %q, as of %q, installed %t, uncertain %t", d.Origin, d.AsOf, d.Installed, d.Uncertain)
			}
		})
	}
}

func TestUnknownKind(t *testing.T) {
	c, err := catalog.New()
	if err != nil {
		t.Fatal(err)
	}
	if d, err := c.CRD(schema.GroupKind{Group: "example.com", Kind: "Nothing"}); d != nil || err != nil {
		t.Error(d, err)
	}
}

// Every definition compiles as an API server compiles it, and holds every kind of Flux.
func TestDefinitionsCompile(t *testing.T) {
	c, err := catalog.New()
	if err != nil {
		t.Fatal(err)
	}
	set, err := kindschema.NewSet(kindschema.Options{Catalog: c})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, gk := range c.Kinds() {
		kind, _, _ := set.Kind(t.Context(), gk)
		if kind == nil {
			t.Errorf("%s is not known", gk)
			continue
		}
		kinds = append(kinds, gk.Kind)
		for _, v := range kind.Served {
			if _, err := kind.Schemas.Schema(v); err != nil {
				t.Errorf("%s: %v", gk, err)
			}
		}
	}
	for _, want := range []string{
		"Kustomization", "HelmRelease", "GitRepository", "OCIRepository", "HelmRepository", "HelmChart", "Bucket", "ExternalArtifact", "ArtifactGenerator",
		"Alert", "Provider", "Receiver", "ImagePolicy", "ImageRepository", "ImageUpdateAutomation", "FluxInstance", "FluxReport", "ResourceSet", "ResourceSetInputProvider",
	} {
		if !slices.Contains(kinds, want) {
			t.Errorf("%s is missing", want)
		}
	}
}

// TestCatalog_KindsOfFluxOperator checks that Alerts and Receivers may name the kinds that Flux Operator adds to them.
func TestCatalog_KindsOfFluxOperator(t *testing.T) {
	c, err := catalog.New()
	if err != nil {
		t.Fatal(err)
	}
	for kind, list := range map[string]string{"Alert": "eventSources", "Receiver": "resources"} {
		for _, release := range []string{"2.2", "2.7", "2.10"} {
			d, err := c.ForFlux(release).CRD(schema.GroupKind{Group: "notification.toolkit.fluxcd.io", Kind: kind})
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range d.CRD.Spec.Versions {
				enum := v.Schema.OpenAPIV3Schema.Properties["spec"].Properties[list].Items.Schema.Properties["kind"].Enum
				var names []string
				for _, value := range enum {
					names = append(names, string(value.Raw))
				}
				for _, want := range []string{`"FluxInstance"`, `"ResourceSet"`, `"ResourceSetInputProvider"`, `"HelmRelease"`} {
					if !slices.Contains(names, want) {
						t.Errorf("%s %s of Flux %s: %v lacks %s", kind, v.Name, release, names, want)
					}
				}
			}
		}
	}
}
