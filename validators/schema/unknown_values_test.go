package schema

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
)

// An unknown value is not evaluated; the one next to it is.
func TestValuesThatAreNotKnown(t *testing.T) {
	kinds, err := kindschema.NewSet(kindschema.Options{})
	if err != nil {
		t.Fatal(err)
	}
	suite, err := validators.NewSuite(InvalidValue)
	if err != nil {
		t.Fatal(err)
	}
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1",
		"kind":       "Deployment",
		"spec":       map[string]any{"replicas": "${REPLICAS}", "minReadySeconds": "ten"},
	}}
	res := suite.Evaluate(
		t.Context(),
		validators.Request{Object: o, Unresolved: []validators.Path{validators.NewPath("spec", "replicas")}},
		lookup.WithKinds(lookup.NewMemory(), kinds),
	)
	if len(res.Findings) != 1 || res.Findings[0].Message != "spec.minReadySeconds must be an integer, is a string" {
		t.Errorf("findings %v, want the one on spec.minReadySeconds", res.Findings)
	}
	if len(res.Skipped) != 1 || !res.Skipped[0].Unknown {
		t.Errorf("skipped %v, want one that is unknown", res.Skipped)
	}
}
