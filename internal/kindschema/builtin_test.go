package kindschema

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "sigs.k8s.io/json"

	"github.com/flux-admission/flux-admission/validators"
)

func TestPathIn(t *testing.T) {
	root := map[string]any{"spec": map[string]any{
		"a": map[string]any{"b": int64(1)}, "a.b": map[string]any{"c": int64(1)}, "list": []any{map[string]any{"x]": int64(1)}},
		"ports": []any{map[string]any{"name": "a"}, map[string]any{"name": "b", "n": int64(2)}},
	}}
	spec := validators.NewPath("spec")
	for name, tc := range map[string]struct {
		text string
		want validators.Path
	}{
		"a plain path":                         {"spec.list", spec.Child("list")},
		"a key with a dot is one key":          {"spec.a.b.c", spec.Child("a.b", "c")},
		"a key in brackets":                    {"spec[a.b].c", spec.Child("a.b", "c")},
		"an index in brackets":                 {"spec.list[0].x]", spec.Child("list").Index(0).Child("x]")},
		"an index after a dot":                 {"spec.list.0", spec.Child("list").Index(0)},
		"a missing field":                      {"spec.list[0].missing", spec.Child("list").Index(0).Child("missing")},
		"an entry selected by its key":         {`.spec.ports[n=2,name="b"].x`, spec.Child("ports").Index(1).Child("x")},
		"an index outside the list is literal": {"spec.list[7]", spec.Child("list", "7")},
		"an empty text":                        {"", nil},
		"the object itself":                    {"<nil>", nil},
		"a lone bracket":                       {"[", validators.NewPath("[")},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, pathIn(root, tc.text)); diff != "" {
				t.Errorf("pathIn(%q) (-want +got):\n%s", tc.text, diff)
			}
		})
	}
}

func FuzzPathIn(f *testing.F) {
	for _, text := range []string{"spec.a[0].b", "[", "]", "a..b", `.ports[n="x\"]"].c`, "spec[a.b]"} {
		f.Add(text)
	}
	root := map[string]any{"spec": map[string]any{"a": []any{map[string]any{"b": int64(1)}}, "a.b": int64(1)}, "": int64(1)}
	f.Fuzz(func(t *testing.T, text string) {
		if got := pathIn(root, text); len(got) > len(text) {
			t.Errorf("%d steps from %d bytes", len(got), len(text))
		}
	})
}

// The walk over a Go type finds the unknown fields that the API server's strict decoder finds, and rejects the same values.
func FuzzWalk_AgreesWithDecoder(f *testing.F) {
	for _, text := range []string{
		`{"spec":{"replicas":1,"template":{"spec":{"containers":[{"name":"a","env":[{"name":"A","value":"1"}],"ports":[{"containerPort":80}]}]}}}}`,
		`{"spec":{"replicas":"1","x":{"y":1}},"metadata":{"labels":{"a":1},"creationTimestamp":"x"},"Spec":{}}`,
		`{"spec":{"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":"1x","memory":1}},"livenessProbe":{"httpGet":{"port":true}}}],"volumes":[null,{}]}}}}`,
		`{"spec":[],"status":null,"metadata":{"managedFields":[{"fieldsV1":{"f:a":{}},"time":"2026-01-02T03:04:05Z"}]}}`,
		`{"spec":{"replicas":99999999999,"minReadySeconds":1.5,"strategy":{"rollingUpdate":{"maxSurge":"25%"}}}}`,
	} {
		f.Add([]byte(text))
	}
	root := goTypes{}.of(reflect.TypeFor[appsv1.Deployment]())
	f.Fuzz(func(t *testing.T, data []byte) {
		var o map[string]any
		if dups, err := kjson.UnmarshalStrict(data, &o); err != nil || len(dups) > 0 {
			return
		}
		clean, err := json.Marshal(o)
		if err != nil {
			return
		}
		w := &walker{}
		w.walk(root, o, nil)
		strict, err := kjson.UnmarshalStrict(clean, &appsv1.Deployment{})
		if (err != nil) != (len(w.invalid) > 0) {
			t.Fatalf("%s: the decoder returns %v, the walk %v", clean, err, w.invalid)
		}
		if err != nil {
			return
		}
		var want, got []string
		for _, e := range strict {
			if fe, ok := errors.AsType[kjson.FieldError](e); ok {
				want = append(want, fe.FieldPath())
			}
		}
		for _, u := range w.unknown {
			got = append(got, decoderPath(u.Path))
		}
		slices.Sort(want)
		slices.Sort(got)
		if len(want) < 50 && !slices.Equal(got, want) { // the decoder stops counting at 100
			t.Fatalf("%s: the walk finds %q, the decoder %q", clean, got, want)
		}
	})
}

// decoderPath formats a path as the decoder does: keys joined by dots, without escapes.
func decoderPath(p validators.Path) string {
	var b strings.Builder
	for _, s := range p {
		if s.IsIndex() {
			b.WriteString(validators.Path{s}.String())
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(s.Key)
	}
	return b.String()
}

func BenchmarkBuiltInTypes(b *testing.B) {
	types, err := newBuiltInTypes(0)
	if err != nil {
		b.Fatal(err)
	}
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON([]byte(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","labels":{"a":"b"}},"spec":{"replicas":1,"template":{"spec":{"containers":[{"name":"a","env":[{"name":"A","value":"1"}],"ports":[{"containerPort":80}]}]}}}}`)); err != nil {
		b.Fatal(err)
	}
	s, err := types.kinds[o.GroupVersionKind().GroupKind()].Schemas.Schema("v1")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if len(s.UnknownFields(o))+len(s.InvalidValues(b.Context(), o)) > 0 {
			b.Fatal("the object is not valid")
		}
	}
}
