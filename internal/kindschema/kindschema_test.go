package kindschema_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/kindschema/catalog"
	"github.com/flux-admission/flux-admission/validators"
)

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	j, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(j); err != nil {
		t.Fatal(err)
	}
	return u
}

func set(t *testing.T, o kindschema.Options) *kindschema.Set {
	t.Helper()
	s, err := kindschema.NewSet(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newCatalog(t *testing.T) *catalog.Catalog {
	t.Helper()
	c, err := catalog.New()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const widget = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  names: {kind: Widget}
  versions:
    - {name: v1beta1, served: true, schema: {openAPIV3Schema: {type: object}}}
    - {name: v2, served: true, schema: {openAPIV3Schema: {type: object}}}
    - {name: v1, served: true, schema: {openAPIV3Schema: {properties: {spec: {type: object}}}}}
    - {name: v1alpha1, served: false}
`

var widgetKind = schema.GroupKind{Group: "example.com", Kind: "Widget"}

func TestSet_Add_InvalidDefinition(t *testing.T) {
	for name, tc := range map[string]struct{ crd, want string }{
		"an object of another kind":    {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}", "f.yaml: CustomResourceDefinition a: is a ConfigMap of v1; must be a CustomResourceDefinition of apiextensions.k8s.io/v1"},
		"a removed API version":        {"apiVersion: apiextensions.k8s.io/v1beta1\nkind: CustomResourceDefinition\nmetadata: {name: a}", "f.yaml: CustomResourceDefinition a: apiextensions.k8s.io/v1beta1 is not served since Kubernetes 1.22; use apiextensions.k8s.io/v1"},
		"a definition without a kind":  {"apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: a}", "f.yaml: CustomResourceDefinition a: spec.group and spec.names.kind must be set"},
		"versions that are not a list": {"apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: a}\nspec: {group: a.b, names: {kind: C}, versions: {}}", "f.yaml: reading CustomResourceDefinition a: "},
	} {
		t.Run(name, func(t *testing.T) {
			err := set(t, kindschema.Options{}).Add("f.yaml", object(t, tc.crd))
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("error %v, want %s", err, tc.want)
			}
		})
	}
}

func TestSet_Kind(t *testing.T) {
	crds := newCatalog(t)
	cluster := schema.GroupKind{Group: "postgresql.cnpg.io", Kind: "Cluster"}
	type result struct {
		Presence    validators.Presence
		Served      []string
		Suggestions []schema.GroupKind
		Err         string
	}
	for name, tc := range map[string]struct {
		options   kindschema.Options
		installed string
		crds      []string
		kind      schema.GroupKind
		want      result
	}{
		"an installed kind is present, with its versions in the API server's order": {
			crds: []string{widget}, kind: widgetKind, want: result{Presence: validators.Present, Served: []string{"v2", "v1", "v1beta1"}},
		},
		"a built-in type is present": {
			kind: schema.GroupKind{Group: "apps", Kind: "Deployment"}, want: result{Presence: validators.Present, Served: []string{"v1"}},
		},
		"an older Kubernetes serves a version that a newer one removed": {
			options: kindschema.Options{Kubernetes: 24}, kind: schema.GroupKind{Group: "policy", Kind: "PodDisruptionBudget"},
			want: result{Presence: validators.Present, Served: []string{"v1", "v1beta1"}},
		},
		"a kind without a definition is unknown": {
			kind: widgetKind, want: result{Err: "found no CustomResourceDefinition of Widget (example.com)"},
		},
		"a kind without a definition is absent if all definitions were added": {
			options: kindschema.Options{Complete: true}, kind: widgetKind, want: result{Presence: validators.Absent},
		},
		"a kind of the catalog is unknown, with its versions": {
			options: kindschema.Options{Catalog: crds}, kind: cluster,
			want: result{Served: []string{"v1"}, Err: "found no CustomResourceDefinition of it, only that of CloudNativePG 1.30.0"},
		},
		"a kind of the catalog is absent if all definitions were added": {
			options: kindschema.Options{Catalog: crds, Complete: true}, kind: cluster, want: result{Presence: validators.Absent, Served: []string{"v1"}},
		},
		"a kind of the catalog is present if its group is assumed to be installed": {
			options: kindschema.Options{Catalog: crds, Complete: true}, installed: "postgresql.cnpg.io", kind: cluster,
			want: result{Presence: validators.Present, Served: []string{"v1"}},
		},
		"a kind outside the catalog is unknown if its group is assumed to be installed": {
			options: kindschema.Options{Catalog: crds, Complete: true}, installed: "postgresql.cnpg.io", kind: schema.GroupKind{Group: "postgresql.cnpg.io", Kind: "Novelty"},
			want: result{Err: "found no CustomResourceDefinition of Novelty (postgresql.cnpg.io)"},
		},
		"a kind that the core group does not have is absent, with the group that has it": {
			kind: schema.GroupKind{Kind: "StatefulSet"}, want: result{Presence: validators.Absent, Suggestions: []schema.GroupKind{{Group: "apps", Kind: "StatefulSet"}}},
		},
		"a misspelled kind is absent, with a suggestion": {
			options: kindschema.Options{Complete: true}, crds: []string{widget}, kind: schema.GroupKind{Group: "example.com", Kind: "Wigdet"},
			want: result{Presence: validators.Absent, Suggestions: []schema.GroupKind{widgetKind}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := set(t, tc.options)
			if tc.installed != "" {
				s.AssumeInstalled(tc.installed)
			}
			for _, text := range tc.crds {
				if err := s.Add("f.yaml", object(t, text)); err != nil {
					t.Fatal(err)
				}
			}
			kind, presence, err := s.Kind(t.Context(), tc.kind)
			got := result{Presence: presence}
			if kind != nil {
				got.Served, got.Suggestions = kind.Served, kind.Suggestions
			}
			if err != nil {
				got.Err = err.Error()
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Kind(%s) (-want +got):\n%s", tc.kind, diff)
			}
		})
	}
}

func TestSchemas_Schema_NotStructural(t *testing.T) {
	s := set(t, kindschema.Options{})
	if err := s.Add("f.yaml", object(t, widget)); err != nil {
		t.Fatal(err)
	}
	kind, _, err := s.Kind(t.Context(), widgetKind)
	if err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]string{
		"v1":       "f.yaml: version v1: the schema is not structural: type: Required value: must not be empty at the root",
		"v1alpha1": "f.yaml has no version v1alpha1",
	} {
		if _, err := kind.Schemas.Schema(version); err == nil || err.Error() != want {
			t.Errorf("version %s: error %v, want %s", version, err, want)
		}
	}
	if _, err := kind.Schemas.Schema("v2"); err != nil {
		t.Error(err)
	}
}

func TestSchemas_Schema_TooLarge(t *testing.T) {
	fields, rules := map[string]any{}, []any{}
	for i := range 50_000 {
		fields[fmt.Sprint("f", i)] = map[string]any{"type": "string"}
	}
	for i := range 1001 {
		rules = append(rules, map[string]any{"rule": fmt.Sprintf("true || %d > 1", i)})
	}
	for name, tc := range map[string]struct {
		schema map[string]any
		want   string
	}{
		"too many fields": {
			map[string]any{"type": "object", "properties": fields}, "f.yaml: version v2: the schema has 50001 fields; the limit is 50000",
		},
		"too many rules": {
			map[string]any{"type": "object", "x-kubernetes-validations": rules}, "f.yaml: version v2: the schema has 1001 CEL rules; the limit is 1000",
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := object(t, widget)
			versions, _, err := unstructured.NestedSlice(o.Object, "spec", "versions")
			if err != nil {
				t.Fatal(err)
			}
			versions[1].(map[string]any)["schema"] = map[string]any{"openAPIV3Schema": tc.schema}
			o.Object["spec"].(map[string]any)["versions"] = versions
			s := set(t, kindschema.Options{})
			if err := s.Add("f.yaml", o); err != nil {
				t.Fatal(err)
			}
			kind, _, err := s.Kind(t.Context(), widgetKind)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := kind.Schemas.Schema("v2"); err == nil || err.Error() != tc.want {
				t.Errorf("error %v, want %s", err, tc.want)
			}
		})
	}
}

// The API server's libraries compile every schema of the catalog, CEL rules included.
func TestCatalog_Compiles(t *testing.T) {
	crds := newCatalog(t)
	s := set(t, kindschema.Options{Catalog: crds, Complete: true})
	if n := len(crds.Kinds()); n < 40 {
		t.Errorf("the catalog has %d kinds, want at least 40", n)
	}
	for _, gk := range crds.Kinds() {
		kind, _, err := s.Kind(t.Context(), gk)
		if err != nil {
			t.Fatal(err)
		}
		if len(kind.Served) == 0 {
			t.Errorf("%s serves no version", gk)
		}
		for _, v := range kind.Served {
			sch, err := kind.Schemas.Schema(v)
			if err != nil {
				t.Errorf("%s: %v", gk, err)
				continue
			}
			o := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "a"}, "speck": int64(1)}}
			o.SetGroupVersionKind(gk.WithVersion(v))
			if got := sch.UnknownFields(o); len(got) != 1 || got[0].Path.String() != "speck" {
				t.Errorf("%s %s: unknown fields %v, want speck", gk, v, got)
			}
			for _, p := range sch.InvalidValues(t.Context(), o) {
				if strings.Contains(p.Message, "compil") {
					t.Errorf("%s %s: %s: %s", gk, v, p.Path, p.Message)
				}
			}
		}
	}
}

// Add does not panic for any definition, nor does validating an object with its schema.
func FuzzAdd(f *testing.F) {
	f.Add([]byte(widget), []byte("apiVersion: example.com/v2\nkind: Widget\nspec: {a: [1]}"))
	f.Add([]byte(strings.Replace(widget, "{type: object}", "{type: object, properties: {spec: {type: array, items: {type: string, pattern: '('}}}, x-kubernetes-validations: [{rule: 'self.'}]}", 1)),
		[]byte("apiVersion: example.com/v1beta1\nkind: Widget\nspec: [a, 1]"))
	f.Fuzz(func(t *testing.T, definition, data []byte) {
		crd, o := parsed(definition), parsed(data)
		if crd == nil || o == nil || len(definition) > 1<<14 {
			return
		}
		s := set(t, kindschema.Options{})
		if err := s.Add("f.yaml", crd); err != nil {
			return
		}
		gvk := o.GroupVersionKind()
		kind, _, err := s.Kind(t.Context(), gvk.GroupKind())
		if err != nil || kind == nil || kind.Schemas == nil || !slices.Contains(kind.Served, gvk.Version) {
			return
		}
		sch, err := kind.Schemas.Schema(gvk.Version)
		if err != nil {
			return
		}
		sch.UnknownFields(o)
		sch.InvalidValues(t.Context(), o)
	})
}

func parsed(data []byte) *unstructured.Unstructured {
	j, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil
	}
	u := &unstructured.Unstructured{}
	if u.UnmarshalJSON(j) != nil {
		return nil
	}
	return u
}

// No message quotes a value, since it may come from a Secret.
func TestStructural_InvalidValues_QuoteNoValue(t *testing.T) {
	const secret = "s3cret"
	crd := object(t, `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: vaults.example.com}
spec:
  group: example.com
  names: {kind: Vault}
  versions:
    - name: v1
      served: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              properties:
                integer: {type: integer}
                boolean: {type: boolean}
                list: {type: array, items: {type: integer}}
                map: {type: object, additionalProperties: {type: boolean}}
                enum: {type: string, enum: [a, b]}
                pattern: {type: string, pattern: '^x$'}
                short: {type: string, maxLength: 2}
                long: {type: string, minLength: 20}
                date: {type: string, format: date}
                time: {type: string, format: date-time}
                duration: {type: string, format: duration}
                byte: {type: string, format: byte}
                ip: {type: string, format: ipv4}
                uuid: {type: string, format: uuid}
                not: {type: string, not: {enum: [s3cret]}}
                any: {type: string, anyOf: [{pattern: '^x$'}, {pattern: '^y$'}]}
                one: {type: string, oneOf: [{pattern: '^x$'}, {pattern: '^y$'}]}
                all: {type: string, allOf: [{pattern: '^x$'}]}
                intOrString: {x-kubernetes-int-or-string: true, pattern: '^x$'}
                set: {type: array, x-kubernetes-list-type: set, items: {type: string}}
                keyed: {type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [name], items: {type: object, required: [name], properties: {name: {type: string}}}}
`)
	sch := schemaOf(t, crd, "Vault")
	spec := map[string]any{
		"list": []any{secret}, "map": map[string]any{"a": secret}, "set": []any{secret, secret},
		"keyed": []any{map[string]any{"name": secret}, map[string]any{"name": secret}},
	}
	for _, name := range []string{"integer", "boolean", "enum", "pattern", "short", "long", "date", "time", "duration", "byte", "ip", "uuid", "not", "any", "one", "all", "intOrString"} {
		spec[name] = secret
	}
	found := map[string]bool{}
	for _, v := range sch.InvalidValues(t.Context(), &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Vault", "spec": spec}}) {
		found[v.Path[1].Key] = true
		if strings.Contains(v.Message, secret) || strings.Contains(v.Path.String(), secret) {
			t.Errorf("%s: %s", v.Path, v.Message)
		}
		t.Logf("%s %s", v.Path, v.Message)
	}
	for name := range spec {
		if !found[name] {
			t.Errorf("spec.%s is not reported", name)
		}
	}
}

// API servers before Kubernetes 1.36 ignore the format of a number, and definitions have limits that it cannot hold: that the object is
// refused is not certain.
func TestStructural_InvalidValues_NumberFormats(t *testing.T) {
	crd := object(t, `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: peers.example.com}
spec:
  group: example.com
  names: {kind: Peer, plural: peers}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              properties:
                asn: {type: integer, format: int32, minimum: 0, maximum: 4294967295}
                port: {type: integer, format: int32}
                weight: {type: integer, format: int32, maximum: 10}
`)
	sch := schemaOf(t, crd, "Peer")
	got := map[string]string{}
	for _, v := range sch.InvalidValues(t.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.com/v1", "kind": "Peer",
		"spec": map[string]any{"asn": int64(64512), "port": int64(3_000_000_000), "weight": int64(11)},
	}}) {
		got[v.Path.String()] += fmt.Sprintf("%t %s\n", v.Uncertain, v.Message)
	}
	want := map[string]string{
		"spec.asn": "true is refused by Kubernetes 1.36 and later, whatever it is: the CustomResourceDefinition has a limit for it that its format " +
			"int32 cannot hold\n",
		"spec.port":   "true is out of range for its format int32: Kubernetes 1.36 and later refuse it\n",
		"spec.weight": got["spec.weight"],
	}
	if diff := cmp.Diff(want, got); diff != "" || !strings.HasPrefix(got["spec.weight"], "false ") {
		t.Errorf("invalid values (-want +got):\n%s", diff)
	}
}

// schemaOf returns the schema v1 of the kind of example.com that a definition has.
func schemaOf(t *testing.T, crd *unstructured.Unstructured, kind string) validators.Schema {
	t.Helper()
	s := set(t, kindschema.Options{})
	if err := s.Add("f.yaml", crd); err != nil {
		t.Fatal(err)
	}
	k, _, err := s.Kind(t.Context(), schema.GroupKind{Group: "example.com", Kind: kind})
	if err != nil {
		t.Fatal(err)
	}
	out, err := k.Schemas.Schema("v1")
	if err != nil {
		t.Fatal(err)
	}
	return out
}
