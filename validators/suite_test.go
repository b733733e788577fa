package validators_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

var widget = schema.GroupKind{Group: "example.com", Kind: "Widget"}

func rule(id, name string, check func(context.Context, *validators.Pass) error) *validators.Rule {
	return &validators.Rule{
		Meta: validators.Meta{
			ID:       id,
			Name:     name,
			Scope:    validators.Scope{Kinds: []schema.GroupKind{widget}},
			Stages:   validators.StageAll,
			Severity: validators.SeverityError,
			Defaults: validators.Defaults{Admission: v1alpha1.ActionDeny, Offline: v1alpha1.ActionDeny},
			Doc:      validators.Doc{Title: "Title", Why: "Why.", Fix: "Fix.", Since: "v0.1.0"},
		},
		Check: check,
	}
}

// with returns a rule whose declaration the function changes.
func with(change func(*validators.Meta)) *validators.Rule {
	r := rule("XX001", "x", func(context.Context, *validators.Pass) error { return nil })
	change(&r.Meta)
	return r
}

func object(size string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.com/v1", "kind": "Widget", "spec": map[string]any{"size": size},
	}}
}

var size = validators.NewPath("spec", "size")

func TestNewSuiteRefusesBrokenDeclarations(t *testing.T) {
	ok := func(context.Context, *validators.Pass) error { return nil }
	broken := rule("X1", "Not A Name", ok)
	broken.Scope, broken.Stages, broken.Severity, broken.Doc = validators.Scope{}, 0, "bad", validators.Doc{
		Title: "Ends.",
		Why:   "no",
		Fix:   "no",
		Since: "1",
	}
	for name, tc := range map[string]struct {
		rules []*validators.Rule
		want  []string
	}{
		"a rule that is malformed in every field names them all": {
			[]*validators.Rule{broken},
			[]string{"ID must", "Name must", "Scope must", "Stages must", "Severity must", "Title must", "Why must", "Fix must", "Since must"},
		},
		"a scope of two kinds of things":     {[]*validators.Rule{with(func(m *validators.Meta) { m.Scope.AnyKind = true })}, []string{"Scope must have exactly one"}},
		"a rule for any kind at admission":   {[]*validators.Rule{with(func(m *validators.Meta) { m.Scope = validators.Scope{AnyKind: true} })}, []string{"only a rule for Kinds"}},
		"a stage without a default action":   {[]*validators.Rule{with(func(m *validators.Meta) { m.Defaults.Offline = "" })}, []string{"an action for stage offline"}},
		"a default action without its stage": {[]*validators.Rule{with(func(m *validators.Meta) { m.Stages = validators.StageAdmission })}, []string{"no action for a stage"}},
		"stages of a kind that is not in the scope": {[]*validators.Rule{with(func(m *validators.Meta) {
			m.KindStages = map[schema.GroupKind]validators.Stage{{Kind: "X"}: validators.StageOffline}
		})}, []string{"KindStages must be"}},
		"a rule without a check":    {[]*validators.Rule{rule("XX001", "x", nil)}, []string{"Check is nil"}},
		"an ID that is used twice":  {[]*validators.Rule{rule("XX001", "x", ok), rule("XX001", "y", ok)}, []string{"used twice"}},
		"a name that is used twice": {[]*validators.Rule{rule("XX001", "x", ok), rule("XX002", "x", ok)}, []string{"used twice"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := validators.NewSuite(tc.rules...)
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not say %q", err, w)
				}
			}
		})
	}
}

// A stored object that lacks the value of a finding is not evaluated: that would cost as much as the new one does.
func TestEvaluate_AddedMistake(t *testing.T) {
	widget := func(spec map[string]any) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Widget", "spec": spec}}
	}
	for name, tc := range map[string]struct {
		old, new    map[string]any
		evaluations int
		preexisting bool
	}{
		"the stored object has the value":          {map[string]any{"size": "big"}, map[string]any{"size": "big", "color": "red"}, 2, true},
		"the stored object has another value":      {map[string]any{"size": "small"}, map[string]any{"size": "big"}, 2, false},
		"the stored object lacks the value":        {map[string]any{}, map[string]any{"size": "big"}, 1, false},
		"neither has the value: it is missing":     {map[string]any{}, map[string]any{"color": "red"}, 2, true},
		"the value was removed: it is missing now": {map[string]any{"size": "small"}, map[string]any{}, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			evaluations := 0
			s, err := validators.NewSuite(rule("XX001", "small", func(_ context.Context, p *validators.Pass) error {
				evaluations++
				if size.Lookup(p.Object.Object) != "small" {
					p.Report(size, nil, "size is not small")
				}
				return nil
			}))
			if err != nil {
				t.Fatal(err)
			}
			res := s.Evaluate(t.Context(), validators.Request{Operation: validators.Update, Object: widget(tc.new), Old: widget(tc.old)}, nil)
			if len(res.Findings) != 1 || res.Findings[0].Preexisting != tc.preexisting {
				t.Errorf("findings %v, want one, preexisting %t", res.Findings, tc.preexisting)
			}
			if evaluations != tc.evaluations {
				t.Errorf("%d evaluations, want %d", evaluations, tc.evaluations)
			}
		})
	}
}

func TestEvaluate(t *testing.T) {
	big := rule("XX001", "not-big", func(_ context.Context, p *validators.Pass) error {
		if v := size.Lookup(p.Object.Object); v == "big" {
			p.Report(size, v, "size is big")
		}
		return nil
	})
	moved := rule("XX002", "no-change", func(_ context.Context, p *validators.Pass) error {
		if p.Old != nil && size.Lookup(p.Old.Object) != size.Lookup(p.Object.Object) {
			p.Report(size, nil, "size changes")
		}
		return nil
	})
	panics := rule("XX003", "panics", func(_ context.Context, p *validators.Pass) error {
		p.Report(size, nil, "not to be trusted")
		panic("boom")
	})
	fails := rule("XX004", "fails", func(context.Context, *validators.Pass) error { return errors.New("cannot run") })
	for name, tc := range map[string]struct {
		rules    []*validators.Rule
		old, new string
		want     []string // message, with "old " before what was there already
		errors   []string
	}{
		"a created object is reported":                                  {[]*validators.Rule{big}, "", "big", []string{"size is big"}, nil},
		"an update that brings the mistake is new":                      {[]*validators.Rule{big, moved}, "small", "big", []string{"size is big", "size changes"}, nil},
		"an update that keeps the mistake had it before":                {[]*validators.Rule{big}, "big", "big", []string{"old size is big"}, nil},
		"a rule about transitions is never excused by the stored state": {[]*validators.Rule{moved}, "big", "small", []string{"size changes"}, nil},
		"a panic or an error silences only its own rule":                {[]*validators.Rule{panics, big, fails}, "", "big", []string{"size is big"}, []string{"panic: a value of type string", "cannot run"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := validators.NewSuite(tc.rules...)
			if err != nil {
				t.Fatal(err)
			}
			req := validators.Request{Operation: validators.Create, Object: object(tc.new)}
			if tc.old != "" {
				req.Operation, req.Old = validators.Update, object(tc.old)
			}
			res := s.Evaluate(t.Context(), req, nil)
			var got []string
			for _, f := range res.Findings {
				m := f.Message
				if f.Preexisting {
					m = "old " + m
				}
				got = append(got, m)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("findings %q, want %q", got, tc.want)
			}
			if len(res.Errors) != len(tc.errors) {
				t.Fatalf("errors %v, want %q", res.Errors, tc.errors)
			}
			for i, e := range res.Errors {
				if !strings.Contains(e.Err.Error(), tc.errors[i]) {
					t.Errorf("error %v, want %q", e.Err, tc.errors[i])
				}
			}
		})
	}
}

func TestBindKeepsOrderAndParameters(t *testing.T) {
	params := func(_ context.Context, p *validators.Pass) error {
		p.Report(nil, nil, "%v", *p.Params.(*int))
		return nil
	}
	a, b := rule("XX001", "a", params), rule("XX002", "b", params)
	a.Params = func() any { return new(int) }
	b.Params = a.Params
	s, err := validators.NewSuite(a, b)
	if err != nil {
		t.Fatal(err)
	}
	seven := 7
	bound := s.Bind(map[string]any{"b": &seven}, func(m *validators.Meta) bool { return m.Name == "b" })
	res := bound.Evaluate(t.Context(), validators.Request{Operation: validators.Create, Object: object("")}, nil)
	if len(res.Findings) != 1 || res.Findings[0].Message != "7" {
		t.Errorf("findings %v, want one with 7", res.Findings)
	}
	if !s.Handles(widget) || s.Handles(schema.GroupKind{Kind: "Widget"}) {
		t.Error("Handles does not tell kinds apart by group")
	}
}

func TestPath(t *testing.T) {
	for name, tc := range map[string]struct {
		path           validators.Path
		field, pointer string
	}{
		"the empty path is the object":            {nil, "", ""},
		"keys and indexes":                        {validators.NewPath("spec", "patches").Index(2).Child("patch"), "spec.patches[2].patch", "/spec/patches/2/patch"},
		"a key with dots and slashes is one step": {validators.NewPath("metadata", "annotations", "a.b/c~d"), "metadata.annotations[a.b/c~d]", "/metadata/annotations/a.b~1c~0d"},
		"a key that looks like an index":          {validators.NewPath("data", "0"), "data.0", "/data/0"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.path.String(); got != tc.field {
				t.Errorf("String() = %q, want %q", got, tc.field)
			}
			if got := tc.path.Pointer(); got != tc.pointer {
				t.Errorf("Pointer() = %q, want %q", got, tc.pointer)
			}
		})
	}
	base := validators.NewPath("a")
	x, y := base.Child("x"), base.Child("y")
	if x.String() != "a.x" || y.String() != "a.y" {
		t.Errorf("paths share memory: %s, %s", x, y)
	}
}
