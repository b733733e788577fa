package validators_test

import (
	"context"
	"reflect"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/validators"
)

func TestRulesForAnyKind(t *testing.T) {
	reports := func(_ context.Context, p *validators.Pass) error {
		p.Report(size, nil, "seen")
		return nil
	}
	first, particular, last := rule("XX001", "first", reports), rule("XX002", "particular", reports), rule("XX003", "last", reports)
	first.Kinds, first.AnyKind = nil, true
	last.Kinds, last.AnyKind = nil, true
	suite, err := validators.NewSuite(first, particular, last)
	if err != nil {
		t.Fatal(err)
	}
	gadget := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Gadget"}}
	for name, tc := range map[string]struct {
		request validators.Request
		want    []string
	}{
		"a kind with a rule of its own is asked about in the suite's order": {validators.Request{Object: object("big")}, []string{"XX001", "XX002", "XX003"}},
		"a kind that no rule names is asked about all the same":             {validators.Request{Object: gadget}, []string{"XX001", "XX003"}},
		"in admission only the rules for the kind are asked":                {validators.Request{Object: object("big"), Admission: true}, []string{"XX002"}},
		"in admission a kind that no rule names is not looked at":           {validators.Request{Object: gadget, Admission: true}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, f := range suite.Evaluate(t.Context(), tc.request, nil).Findings {
				got = append(got, f.Rule.ID)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("rules %q, want %q", got, tc.want)
			}
		})
	}
	if suite.Handles(schema.GroupKind{Group: "example.com", Kind: "Gadget"}) || !suite.Handles(widget) {
		t.Error("a suite must handle the kinds that its rules name, and no others")
	}
	only := suite.Bind(nil, func(m *validators.Meta) bool { return m.AnyKind })
	if n := len(only.Evaluate(t.Context(), validators.Request{Object: gadget}, nil).Findings); n != 2 {
		t.Errorf("a bound suite of rules for any kind reports %d findings, want 2", n)
	}
	particular.AnyKind = true
	if _, err := validators.NewSuite(particular); err == nil {
		t.Error("a rule for some kinds and any kind is taken")
	}
}
