package kindschema_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/kindschema/builtin"
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

func TestAddRefusesWhatAnAPIServerWouldNotTake(t *testing.T) {
	for name, tc := range map[string]struct{ crd, want string }{
		"an object of another kind":   {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}", "f.yaml: CustomResourceDefinition a: is a ConfigMap of v1: only apiextensions.k8s.io/v1 CustomResourceDefinitions declare kinds"},
		"an API that is gone":         {"apiVersion: apiextensions.k8s.io/v1beta1\nkind: CustomResourceDefinition\nmetadata: {name: a}", "f.yaml: CustomResourceDefinition a: is written in apiextensions.k8s.io/v1beta1, which no API server serves since Kubernetes 1.22: write it in apiextensions.k8s.io/v1"},
		"a definition without a kind": {"apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: a}", "f.yaml: CustomResourceDefinition a: declares no kind: set spec.group and spec.names.kind"},
		"versions that are no list":   {"apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: a}\nspec: {group: a.b, names: {kind: C}, versions: {}}", "f.yaml: CustomResourceDefinition a cannot be read: "},
	} {
		t.Run(name, func(t *testing.T) {
			err := set(t, kindschema.Options{}).Add("f.yaml", object(t, tc.crd))
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("error %v, want %s", err, tc.want)
			}
		})
	}
}

func TestKind(t *testing.T) {
	stock, err := builtin.New()
	if err != nil {
		t.Fatal(err)
	}
	cluster := schema.GroupKind{Group: "postgresql.cnpg.io", Kind: "Cluster"}
	type answer struct {
		presence validators.Presence
		served   []string
		near     []schema.GroupKind
		err      string
	}
	for name, tc := range map[string]struct {
		options kindschema.Options
		assume  string
		crds    []string
		kind    schema.GroupKind
		want    answer
	}{
		"an installed kind is present, its versions in the API server's order": {
			crds: []string{widget}, kind: widgetKind, want: answer{presence: validators.Present, served: []string{"v2", "v1", "v1beta1"}},
		},
		"one of Kubernetes' own kinds is present": {
			kind: schema.GroupKind{Group: "apps", Kind: "Deployment"}, want: answer{presence: validators.Present, served: []string{"v1"}},
		},
		"an older Kubernetes still serves what a newer one removed": {
			options: kindschema.Options{Kubernetes: 24}, kind: schema.GroupKind{Group: "policy", Kind: "PodDisruptionBudget"},
			want: answer{presence: validators.Present, served: []string{"v1", "v1beta1"}},
		},
		"a kind that was not seen is unknown": {
			kind: widgetKind, want: answer{err: "no CustomResourceDefinition of Widget (example.com) was seen"},
		},
		"a kind that is not among all there are is absent": {
			options: kindschema.Options{Complete: true}, kind: widgetKind, want: answer{presence: validators.Absent},
		},
		"a kind known from the stock alone is unknown, and its versions are told": {
			options: kindschema.Options{Fallback: stock}, kind: cluster,
			want: answer{served: []string{"v1"}, err: "no CustomResourceDefinition of it was seen; it is known from CloudNativePG 1.27.0"},
		},
		"a kind known from the stock is absent where all definitions were seen": {
			options: kindschema.Options{Fallback: stock, Complete: true}, kind: cluster, want: answer{presence: validators.Absent, served: []string{"v1"}},
		},
		"a kind of an assumed group is present": {
			options: kindschema.Options{Fallback: stock, Complete: true}, assume: "postgresql.cnpg.io", kind: cluster,
			want: answer{presence: validators.Present, served: []string{"v1"}},
		},
		"a kind that the stock does not know of an assumed group is unknown": {
			options: kindschema.Options{Fallback: stock, Complete: true}, assume: "postgresql.cnpg.io", kind: schema.GroupKind{Group: "postgresql.cnpg.io", Kind: "Novelty"},
			want: answer{err: "no CustomResourceDefinition of Novelty (postgresql.cnpg.io) was seen"},
		},
		"a kind of the core group that Kubernetes does not have is absent, with the group that has it": {
			kind: schema.GroupKind{Kind: "StatefulSet"}, want: answer{presence: validators.Absent, near: []schema.GroupKind{{Group: "apps", Kind: "StatefulSet"}}},
		},
		"a misspelt kind is absent, with the one that was meant": {
			options: kindschema.Options{Complete: true}, crds: []string{widget}, kind: schema.GroupKind{Group: "example.com", Kind: "Wigdet"},
			want: answer{presence: validators.Absent, near: []schema.GroupKind{widgetKind}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := set(t, tc.options)
			if tc.assume != "" {
				s.Assume(tc.assume)
			}
			for _, text := range tc.crds {
				if err := s.Add("f.yaml", object(t, text)); err != nil {
					t.Fatal(err)
				}
			}
			kind, presence, err := s.Kind(t.Context(), tc.kind)
			got := answer{presence: presence}
			if kind != nil {
				got.served, got.near = kind.Served, kind.Near
			}
			if err != nil {
				got.err = err.Error()
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("have %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

func TestASchemaThatIsNotStructuralIsSaid(t *testing.T) {
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

func TestASchemaThatIsTooLargeIsSaid(t *testing.T) {
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
			map[string]any{"type": "object", "properties": fields}, "f.yaml: version v2: the schema has 50001 fields, more than the 50000 that are read",
		},
		"too many rules": {
			map[string]any{"type": "object", "x-kubernetes-validations": rules}, "f.yaml: version v2: the schema has 1001 CEL rules, more than the 1000 that are compiled",
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

// The whole stock compiles, CEL rules included: a definition that does not would judge nothing.
func TestTheStockCompiles(t *testing.T) {
	stock, err := builtin.New()
	if err != nil {
		t.Fatal(err)
	}
	s := set(t, kindschema.Options{Fallback: stock, Complete: true})
	if n := len(stock.Kinds()); n < 40 {
		t.Errorf("%d kinds in the stock, want at least 40", n)
	}
	for _, gk := range stock.Kinds() {
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

// Adding never panics, whatever the definition says, nor does judging an object by it.
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

// No message quotes a value: it may come from a Secret.
func TestMessagesQuoteNoValue(t *testing.T) {
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
	s := set(t, kindschema.Options{})
	if err := s.Add("f.yaml", crd); err != nil {
		t.Fatal(err)
	}
	kind, _, err := s.Kind(t.Context(), schema.GroupKind{Group: "example.com", Kind: "Vault"})
	if err != nil {
		t.Fatal(err)
	}
	sch, err := kind.Schemas.Schema("v1")
	if err != nil {
		t.Fatal(err)
	}
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
			t.Errorf("nothing is said of spec.%s", name)
		}
	}
}
