package catalog_test

import (
	"fmt"
	"slices"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/kindschema/catalog"
)

// Every field of every kind of Flux 2.7 to 2.10 is known for a cluster of its release, and those of the newest release where the release is
// unknown, the status included. Values are of the right type only; test/crdsamples has valid ones, without the status.
func TestMatrix_Fields(t *testing.T) {
	c, err := catalog.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, release := range []string{"2.7", "2.8", "2.9", "2.10", ""} {
		t.Run("Flux "+release, func(t *testing.T) {
			of := c.ForFlux(release)
			set, err := kindschema.NewSet(kindschema.Options{Catalog: of})
			if err != nil {
				t.Fatal(err)
			}
			samples := 0
			for _, gk := range fluxKinds(c) {
				d, err := of.CRD(gk)
				if err != nil {
					t.Fatal(err)
				}
				if release != "" && !d.Installed {
					continue // a kind that this release does not have yet
				}
				kind, _, _ := set.Kind(t.Context(), gk)
				for _, v := range d.CRD.Spec.Versions {
					if !v.Served {
						continue
					}
					o, _ := sample(v.Schema.OpenAPIV3Schema).(map[string]any)
					o["apiVersion"], o["kind"], o["metadata"] = gk.Group+"/"+v.Name, gk.Kind, map[string]any{"name": "x"}
					s, err := kind.Schemas.Schema(v.Name)
					if err != nil {
						t.Fatal(err)
					}
					for _, f := range s.UnknownFields(&unstructured.Unstructured{Object: o}) {
						t.Errorf("%s %s: %s is unknown", gk, v.Name, f.Path)
					}
					samples++
				}
			}
			if samples < 14 {
				t.Errorf("%d samples", samples)
			}
		})
	}
}

// A version that some release served and this one does not is retired, for a known and for an unknown release.
func TestMatrix_RemovedVersions(t *testing.T) {
	c, err := catalog.New()
	if err != nil {
		t.Fatal(err)
	}
	releases := []string{"2.2", "2.3", "2.4", "2.5", "2.6", "2.7", "2.8", "2.9", "2.10"}
	for _, gk := range fluxKinds(c) {
		served := map[string]bool{}
		for _, release := range releases {
			of := c.ForFlux(release)
			set, err := kindschema.NewSet(kindschema.Options{Catalog: of})
			if err != nil {
				t.Fatal(err)
			}
			kind, _, _ := set.Kind(t.Context(), gk)
			if d, _ := of.CRD(gk); d == nil || !d.Installed {
				continue
			}
			for v := range served {
				if !slices.Contains(kind.Served, v) && kind.Retired[v] == "" {
					t.Errorf("%s %s is gone in Flux %s, and the table of removed versions does not know", gk, v, release)
				}
			}
			for _, v := range kind.Served {
				served[v] = true
			}
		}
	}
}

func fluxKinds(c *catalog.Catalog) []schema.GroupKind {
	var out []schema.GroupKind
	for _, e := range c.Entries() {
		if gk := (schema.GroupKind{Group: e.Group, Kind: e.Kind}); e.Project == "Flux" && !slices.Contains(out, gk) {
			out = append(out, gk)
		}
	}
	return out
}

// sample returns a value with every property that the schema has.
func sample(s *apiextensionsv1.JSONSchemaProps) any {
	switch s.Type {
	case "object":
		out := map[string]any{}
		for name, p := range s.Properties {
			out[name] = sample(&p)
		}
		if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
			out["key"] = sample(s.AdditionalProperties.Schema)
		}
		return out
	case "array":
		return []any{sample(s.Items.Schema)}
	case "boolean":
		return true
	case "integer", "number":
		return int64(1)
	case "string":
		return fmt.Sprintf("%s value", s.Type)
	}
	return nil
}
