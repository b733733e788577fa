package webhookconfig_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	admissionregv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	celplugin "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/flux-admission/flux-admission/internal/kindschema/catalog"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/mutators"
	allmutators "github.com/flux-admission/flux-admission/mutators/all"
	"github.com/flux-admission/flux-admission/mutators/targetnamespace"
	"github.com/flux-admission/flux-admission/test/ruletest"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
	"github.com/flux-admission/flux-admission/validators/flux"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

func TestFiles_ManifestsAreUpToDate(t *testing.T) {
	files, err := webhookconfig.Files()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", "..", "manifests", filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("manifests/%s is outdated: run `go generate ./webhook/webhookconfig`", name)
		}
	}
}

func TestValidating_HasEveryKind(t *testing.T) {
	registered := map[schema.GroupResource]bool{}
	for _, r := range webhookconfig.Validating(allvalidators.Rules()).Webhooks[0].Rules {
		for _, resource := range r.Resources {
			registered[schema.GroupResource{Group: r.APIGroups[0], Resource: resource}] = true
		}
	}
	want := map[schema.GroupResource]bool{}
	for _, rule := range allvalidators.Rules() {
		for _, gk := range rule.KindsAt(validators.StageAdmission) {
			plural := pluralOf(t, gk)
			want[schema.GroupResource{Group: gk.Group, Resource: plural}] = true
		}
	}
	if !maps.Equal(registered, want) {
		t.Errorf("registered %v; rules evaluate %v", registered, want)
	}
}

// pluralOf returns the resource of a kind by its CustomResourceDefinition in the CRD catalog, else as it is derived
// from the kind. The guess of the webhook configurations must be the same.
func pluralOf(t *testing.T, gk schema.GroupKind) string {
	t.Helper()
	guess, _ := meta.UnsafeGuessKindToResource(gk.WithVersion("v1"))
	definitions, err := catalog.New()
	if err != nil {
		t.Fatal(err)
	}
	definition, err := definitions.CRD(gk)
	if err != nil {
		t.Fatal(err)
	}
	if definition == nil {
		if regexp.MustCompile(`[aeiou]y$`).MatchString(gk.Kind) {
			t.Errorf("%s is not in the CRD catalog, and its plural cannot be guessed", gk)
		}
		return guess.Resource
	}
	if plural := definition.CRD.Spec.Names.Plural; plural != guess.Resource {
		t.Errorf("the guessed plural of %s is %s, want %s", gk, guess.Resource, plural)
	}
	return definition.CRD.Spec.Names.Plural
}

// matcher compiles match conditions with the API server's code. With failurePolicy Fail it returns their errors.
func matcher(t *testing.T, conditions []admissionregv1.MatchCondition) matchconditions.Matcher {
	t.Helper()
	fail := admissionregv1.Fail
	compiler := celplugin.NewConditionCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	accessor := webhook.NewValidatingWebhookAccessor("test", "test", &admissionregv1.ValidatingWebhook{MatchConditions: conditions, FailurePolicy: &fail})
	return accessor.GetCompiledMatcher(compiler)
}

// matches reports whether the API server sends a write to the webhook.
func matches(t *testing.T, m matchconditions.Matcher, object, old *unstructured.Unstructured) bool {
	t.Helper()
	operation := admission.Create
	if old != nil {
		operation = admission.Update
	}
	gvk := schema.GroupVersionKind{Group: flux.Kustomization.Group, Version: "v1", Kind: flux.Kustomization.Kind}
	attributes := &admission.VersionedAttributes{
		VersionedKind: gvk, VersionedObject: admission.NewLazyObject(object),
		Attributes: admission.NewAttributesRecord(object, nil, gvk, "flux-system", "x", gvk.GroupVersion().WithResource("kustomizations"), "", operation, nil, true, nil),
	}
	if old != nil {
		attributes.VersionedOldObject = admission.NewLazyObject(old)
		attributes.Attributes = admission.NewAttributesRecord(object, old, gvk, "flux-system", "x", gvk.GroupVersion().WithResource("kustomizations"), "", operation, nil, true, nil)
	}
	result := m.Match(t.Context(), attributes, nil, nil)
	if result.Error != nil {
		t.Fatalf("the match conditions fail on %v after %v: %v", object, old, result.Error)
	}
	return result.Matches
}

// variants returns objects that differ in one or more respects.
func variants() map[string]*unstructured.Unstructured {
	specs := map[string]any{
		"no spec": nil, "an empty spec": map[string]any{},
		"a spec":                      map[string]any{"path": "./a", "prune": true},
		"a spec with a number":        map[string]any{"path": "./a", "prune": true, "n": int64(1)},
		"a spec with lists":           map[string]any{"patches": []any{map[string]any{"patch": "x"}, "y"}},
		"a spec with lists reordered": map[string]any{"patches": []any{"y", map[string]any{"patch": "x"}}},
		"a spec with a null":          map[string]any{"path": nil},
		"a target namespace":          map[string]any{"targetNamespace": "a"},
		"an empty target namespace":   map[string]any{"targetNamespace": ""},
		"another target namespace":    map[string]any{"targetNamespace": "b"},
	}
	metadata := map[string]map[string]any{
		"nothing":                {},
		"labels":                 {"labels": map[string]any{"a": "1"}},
		"other labels":           {"labels": map[string]any{"a": "2"}},
		"an annotation":          {"annotations": map[string]any{"reconcile.fluxcd.io/requestedAt": "now"}},
		"last applied":           {"annotations": map[string]any{webhookconfig.LastApplied: "{}"}},
		"last applied otherwise": {"annotations": map[string]any{webhookconfig.LastApplied: `{"spec":{}}`, "other": "x"}},
		"last applied empty":     {"annotations": map[string]any{webhookconfig.LastApplied: ""}},
		"a finalizer":            {"finalizers": []any{"x"}, "resourceVersion": "7"},
		"a deletion":             {"deletionTimestamp": "2026-11-23T10:00:00Z"},
	}
	out := map[string]*unstructured.Unstructured{}
	for specName, spec := range specs {
		for metaName, extra := range metadata {
			m := map[string]any{"name": "x", "namespace": "flux-system"}
			maps.Copy(m, extra)
			o := map[string]any{"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "metadata": m}
			if spec != nil {
				o["spec"] = spec
			}
			out[specName+" and "+metaName] = &unstructured.Unstructured{Object: o}
		}
	}
	return out
}

func TestValidateConditions_MatchUnchanged(t *testing.T) {
	m := matcher(t, webhookconfig.ValidateConditions())
	all := variants()
	for newName, object := range all {
		if webhookconfig.BeingDeleted(object) {
			continue
		}
		if !matches(t, m, object, nil) {
			t.Errorf("the create of %s does not match", newName)
		}
		for oldName, old := range all {
			if got, want := matches(t, m, object, old), !webhookconfig.Unchanged(object, old); got != want {
				t.Errorf("from %s to %s: matches is %v, changed is %v", oldName, newName, got, want)
			}
		}
	}
	deleted := all["a spec and a deletion"]
	if matches(t, m, deleted, all["no spec and nothing"]) {
		t.Error("an update of an object that is being deleted matches")
	}
}

// TestValidateConditions_MissNoFinding checks that an update which does not match has the findings of the stored
// object, for the objects of every rule's cases.
func TestValidateConditions_MissNoFinding(t *testing.T) {
	m := matcher(t, webhookconfig.ValidateConditions())
	edits := map[string]func(map[string]any){
		"nothing":      func(map[string]any) {},
		"a finalizer":  func(o map[string]any) { metadata(o)["finalizers"] = []any{"example.com/a"} },
		"a status":     func(o map[string]any) { o["status"] = map[string]any{"observedGeneration": int64(7)} },
		"an owner":     func(o map[string]any) { metadata(o)["ownerReferences"] = []any{map[string]any{"name": "x"}} },
		"a generation": func(o map[string]any) { metadata(o)["generation"] = int64(7) },
		"an annotation": func(o map[string]any) {
			annotations, _ := metadata(o)["annotations"].(map[string]any)
			annotations = maps.Clone(annotations)
			if annotations == nil {
				annotations = map[string]any{}
			}
			annotations["example.com/a"] = "b"
			metadata(o)["annotations"] = annotations
		},
	}
	unmatched := 0
	for _, rule := range allvalidators.Rules() {
		if !rule.Stages.Has(validators.StageAdmission) {
			continue // not evaluated at admission
		}
		dirs, err := filepath.Glob(filepath.Join("..", "..", "validators", "*", "testdata", strings.ToLower(rule.ID)))
		if err != nil || len(dirs) != 1 {
			t.Fatalf("the cases of rule %s: %v, %v", rule.ID, dirs, err)
		}
		cases, err := ruletest.Load(dirs[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			updates := map[string]validators.Request{}
			for name, edit := range edits {
				o := c.Request.Object.DeepCopy()
				edit(o.Object)
				updates[name] = validators.Request{Operation: validators.Update, Object: o, Old: c.Request.Object}
			}
			if c.Request.Old != nil {
				updates["the case's own update"] = c.Request
			}
			for name, r := range updates {
				if matches(t, m, r.Object, r.Old) {
					continue
				}
				unmatched++
				for _, f := range c.Suite(t, rule).Evaluate(t.Context(), r, c.Lookup(t, nil)).Findings {
					if !f.Preexisting {
						t.Errorf("%s, %s, after %s: an update that does not match has a new finding: %s", rule.ID, c.Name, name, f.Message)
					}
				}
			}
		}
	}
	if unmatched == 0 {
		t.Error("every update matches: nothing was tested")
	}
}

func metadata(o map[string]any) map[string]any {
	m, ok := o["metadata"].(map[string]any)
	if !ok {
		m = map[string]any{}
		o["metadata"] = m
	}
	return m
}

// TestValidateConditions_CELCost checks that no object exceeds the CEL cost limit: such an object would silently not
// match.
func TestValidateConditions_CELCost(t *testing.T) {
	large := func(end string) *unstructured.Unstructured {
		values := map[string]any{}
		for i := range 20_000 {
			values[fmt.Sprintf("key-%d", i)] = strings.Repeat("x", 50) + end
		}
		labels := map[string]any{}
		for i := range 2_000 {
			labels[fmt.Sprintf("label-%d", i)] = end
		}
		return &unstructured.Unstructured{Object: map[string]any{
			"metadata": map[string]any{"labels": labels, "annotations": map[string]any{webhookconfig.LastApplied: strings.Repeat("x", 1<<20) + end}},
			"spec":     values,
		}}
	}
	m := matcher(t, webhookconfig.ValidateConditions())
	if !matches(t, m, large("a"), large("b")) {
		t.Error("a change of a large object does not match")
	}
	if matches(t, m, large("a"), large("a")) {
		t.Error("a large object without a change matches")
	}
}

func TestMutateConditions_MissNoMutation(t *testing.T) {
	settings := &targetnamespace.Settings{{TargetNamespace: "a"}}
	if err := settings.Compile(); err != nil {
		t.Fatal(err)
	}
	set, err := mutators.NewSet(allmutators.Mutators()...)
	if err != nil {
		t.Fatal(err)
	}
	set = set.Bind(map[string]any{targetnamespace.Mutator.Name: settings})
	ns := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "a"}}}
	m := matcher(t, webhookconfig.MutateConditions())
	all := variants()
	skipped := 0
	for _, newName := range slices.Sorted(maps.Keys(all)) {
		object := all[newName]
		if webhookconfig.BeingDeleted(object) {
			continue
		}
		for oldName, old := range all {
			r := validators.Request{Operation: validators.Update, Object: object, Old: old}
			if oldName == "no spec and nothing" { // a create
				r, old = validators.Request{Operation: validators.Create, Object: object}, nil
			}
			res := set.Evaluate(t.Context(), r, lookup.NewMemory(ns))
			idle := len(res.Edits)+len(res.Warnings)+len(res.Errors) == 0
			if matched := matches(t, m, object, old); !matched && !idle {
				t.Errorf("from %s to %s: does not match, but a mutator returns %+v", oldName, newName, res)
			} else if !matched {
				skipped++
			}
		}
	}
	if skipped == 0 {
		t.Error("every write matches: nothing was tested")
	}
}
