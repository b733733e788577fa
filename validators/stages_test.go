package validators_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

func TestSuite_Scopes(t *testing.T) {
	reports := func(_ context.Context, p *validators.Pass) error {
		p.Report(size, nil, "found")
		return nil
	}
	offline := func(id, name string, scope validators.Scope) *validators.Rule {
		r := rule(id, name, reports)
		r.Scope, r.Stages, r.Defaults = scope, validators.StageOffline, validators.Defaults{Offline: v1alpha1.ActionWarn}
		return r
	}
	partly := rule("XX004", "partly", reports)
	partly.KindStages = map[schema.GroupKind]validators.Stage{widget: validators.StageOffline}
	suite, err := validators.NewSuite(
		offline(
			"XX001",
			"first",
			validators.Scope{AnyKind: true},
		),
		rule("XX002", "particular", reports),
		offline("XX003", "last", validators.Scope{AnyKind: true}),
		partly,
		offline(
			"XX005",
			"file",
			validators.Scope{File: true},
		),
		offline("XX006", "unapplied", validators.Scope{Unapplied: true}),
	)
	if err != nil {
		t.Fatal(err)
	}
	gadget := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Gadget"}}
	for name, tc := range map[string]struct {
		request validators.Request
		want    []string
	}{
		"every stage evaluates a kind in the suite's order": {validators.Request{Object: object("big")}, []string{"XX001", "XX002", "XX003", "XX004"}},
		"offline a kind has the rules for any kind too":     {validators.Request{Object: object("big"), Stage: validators.StageOffline}, []string{"XX001", "XX002", "XX003", "XX004"}},
		"a kind of no rule has the rules for any kind":      {validators.Request{Object: gadget}, []string{"XX001", "XX003"}},
		"admission has the rules for the kind":              {validators.Request{Object: object("big"), Stage: validators.StageAdmission}, []string{"XX002"}},
		"an audit has the rules for the kind":               {validators.Request{Object: object("big"), Stage: validators.StageAudit}, []string{"XX002"}},
		"admission has no rules for any kind":               {validators.Request{Object: gadget, Stage: validators.StageAdmission}, nil},
		"a file has the rules on files":                     {validators.Request{File: &validators.File{Name: "a.yaml"}, Stage: validators.StageOffline}, []string{"XX005"}},
		"an unapplied object has the rules on those": {
			validators.Request{Object: object("big"), Stage: validators.StageOffline, Provenance: &validators.Provenance{Unapplied: true}}, []string{"XX006"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, f := range suite.Evaluate(t.Context(), tc.request, nil).Findings {
				got = append(got, f.Rule.ID)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("rules (-want +got):\n%s", diff)
			}
		})
	}
	if suite.Handles(schema.GroupKind{Group: "example.com", Kind: "Gadget"}) || !suite.Handles(widget) {
		t.Error("a suite must handle the kinds of its rules at admission, and no others")
	}
	only := suite.Bind(nil, func(m *validators.Meta) bool { return m.Scope.AnyKind })
	if n := len(only.Evaluate(t.Context(), validators.Request{Object: gadget}, nil).Findings); n != 2 {
		t.Errorf("a bound suite of rules for any kind reports %d findings, want 2", n)
	}
}

func TestSuite_HidesTheStageFromRules(t *testing.T) {
	r := rule("XX001", "x", func(_ context.Context, p *validators.Pass) error {
		if p.Stage != 0 {
			p.Report(size, nil, "stage %s", p.Stage)
		}
		return nil
	})
	suite, err := validators.NewSuite(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range suite.Evaluate(t.Context(), validators.Request{Object: object(""), Stage: validators.StageAdmission}, nil).Findings {
		t.Errorf("a rule sees its stage: %s", f.Message)
	}
}

func TestSuite_Supersedes(t *testing.T) {
	report := func(paths ...validators.Path) func(context.Context, *validators.Pass) error {
		return func(_ context.Context, p *validators.Pass) error {
			for _, path := range paths {
				p.Report(path, nil, "found")
			}
			return nil
		}
	}
	other := validators.NewPath("spec", "other")
	general, particular := rule("XX001", "general", report(size, other)), rule("XX002", "particular", report(size))
	particular.Supersedes = []string{"general"}
	suite, err := validators.NewSuite(general, particular)
	if err != nil {
		t.Fatal(err)
	}
	got := func(s *validators.Suite) (out []string) {
		for _, f := range s.Evaluate(t.Context(), validators.Request{Object: object("")}, nil).Findings {
			out = append(out, f.Rule.Name+" "+f.Path.String())
		}
		return out
	}
	if diff := cmp.Diff([]string{"general spec.other", "particular spec.size"}, got(suite)); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	alone := suite.Bind(nil, func(m *validators.Meta) bool { return m.Name == "general" })
	if diff := cmp.Diff([]string{"general spec.other", "general spec.size"}, got(alone)); diff != "" {
		t.Errorf("findings without the rule that supersedes (-want +got):\n%s", diff)
	}
}
