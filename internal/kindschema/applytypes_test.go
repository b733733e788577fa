package kindschema

import (
	"testing"

	yamlv3 "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
)

// text returns a type as text. Default values are maps of other Go types, depending on the library that decodes them.
func text(t *testing.T, a schema.Atom) string {
	t.Helper()
	out, err := yamlv3.Marshal(&a)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestApplyTypes compares the schemas with those of the API server's clients.
func TestApplyTypes(t *testing.T) {
	object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap"}}
	value, err := applyconfigurations.NewTypeConverter(scheme.Scheme).ObjectToTyped(object)
	if err != nil {
		t.Fatal(err)
	}
	types := value.Schema().Types
	if len(types) < 900 {
		t.Fatalf("%d types", len(types))
	}
	a := &applyTypes{}
	for i := range types {
		want := &types[i]
		root, err := a.of(want.Name)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := root.Schema.FindNamedType(want.Name)
		if got, want := text(t, got.Atom), text(t, want.Atom); got != want {
			t.Errorf("%s: %s, want %s; run make generate", types[i].Name, got, want)
		}
		for _, def := range root.Schema.Types {
			references(def.Atom, func(name string) {
				if _, ok := root.Schema.FindNamedType(name); !ok {
					t.Errorf("%s lacks %s", want.Name, name)
				}
			})
		}
	}
	if _, err := a.of("io.k8s.api.core.v1.Nothing"); err == nil {
		t.Error("a type that does not exist has a schema")
	}
}
