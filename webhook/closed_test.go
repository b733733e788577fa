package webhook_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
	"github.com/flux-admission/flux-admission/webhook"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// TestValidator_ClosedWhenOnErrorIsDeny sends requests that cannot be evaluated, whatever can be decoded of them.
func TestValidator_ClosedWhenOnErrorIsDeny(t *testing.T) {
	create := write{operation: admissionv1.Create, object: kustomization}
	for name, tc := range map[string]struct {
		body, query string
		review      func(context.Context, validators.Request)
		message     string
	}{
		"too large":  {strings.Replace(create.body(t), "./x", strings.Repeat("x", 8<<20), 1), "", nil, "larger than"},
		"empty":      {"", "", nil, "not an AdmissionReview"},
		"garbage":    {"\x00\xff{]", "", nil, "not an AdmissionReview"},
		"truncated":  {create.body(t)[:80], "", nil, "not an AdmissionReview"},
		"no object":  {write{operation: admissionv1.Create}.body(t), "", nil, "not a JSON object"},
		"too nested": {strings.Replace(create.body(t), `"./x"`, strings.Repeat("[", 1<<18), 1), "", nil, "not an AdmissionReview"},
		"too complex": {strings.Replace(create.body(t), `"./x"`, `"./x","values":[`+strings.Repeat(`{"a":0},`, 500_000)+"0]", 1), "", nil,
			"too complex: spec.values was not evaluated"},
		"too complex in its metadata": {
			strings.Replace(create.body(t), `"name":"x","namespace"`, `"labels":[`+strings.Repeat(`{"a":0},`, 500_000)+`0],"name":"x","namespace"`, 1), "", nil, "too complex"},
		"a panic":   {create.body(t), "", func(context.Context, validators.Request) { panic("x") }, "internal error"},
		"a timeout": {create.body(t), "?timeout=20ms", func(ctx context.Context, _ validators.Request) { <-ctx.Done(); <-time.After(50 * time.Millisecond) }, "timed out"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, action := range []v1alpha1.Action{v1alpha1.ActionDeny, v1alpha1.ActionWarn} {
				b := newTestServer(&fakePolicy{onError: action, review: tc.review}, logr.Discard())
				response := b.post(t, webhookconfig.ValidatePath+tc.query, tc.body)
				if response.Allowed != (action != v1alpha1.ActionDeny) {
					t.Fatalf("onError %s: allowed %v", action, response.Allowed)
				}
				if !response.Allowed && !strings.Contains(response.Result.Message, tc.message) {
					t.Errorf("message %q lacks %q", response.Result.Message, tc.message)
				}
				if response := b.post(t, webhookconfig.MutatePath+tc.query, tc.body); !response.Allowed {
					t.Errorf("the mutating webhook refused: %v", response.Result)
				}
			}
		})
	}
}

// TestValidator_ClosedWhenOnErrorIsDenySkipsOthers sends requests that no rule evaluates.
func TestValidator_ClosedWhenOnErrorIsDenySkipsOthers(t *testing.T) {
	b := newTestServer(&fakePolicy{onError: v1alpha1.ActionDeny}, logr.Discard())
	for name, w := range map[string]write{
		"a kind without rules": {operation: admissionv1.Create, kind: "Other"},
		"a subresource":        {operation: admissionv1.Update, subresource: "status"},
		"a deletion":           {operation: admissionv1.Delete},
	} {
		if response := b.post(t, webhookconfig.ValidatePath, w.body(t)); !response.Allowed {
			t.Errorf("%s is refused: %v", name, response.Result)
		}
	}
}

// strictPolicy returns a policy with the action for errors.
func strictPolicy(t *testing.T, onError v1alpha1.Action, mode v1alpha1.Mode) webhook.Policy {
	t.Helper()
	p, err := policy.Default()
	if err != nil {
		t.Fatal(err)
	}
	p.Spec.OnError, p.Spec.Mode = v1alpha1.FailureAction(onError), mode
	suite, err := validators.NewSuite(allvalidators.Rules()...)
	if err != nil {
		t.Fatal(err)
	}
	muts, err := mutators.NewSet()
	if err != nil {
		t.Fatal(err)
	}
	out, err := policy.Compile(p, suite, muts, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestValidator_EvaluatesEveryStorableObject pads a Kustomization in a forbidden namespace with what takes most memory.
func TestValidator_EvaluatesEveryStorableObject(t *testing.T) {
	braces := strings.Repeat("{", 200_000)
	maps := "[" + strings.Repeat(`{},`, 450_000) + "{}]"
	for name, padding := range map[string]string{
		"braces in an annotation":       `"annotations":{"a":"` + braces + `"},`,
		"escaped quotes and braces":     `"annotations":{"a":"` + strings.Repeat(`\"{\\`, 30_000) + `"},`,
		"managed fields":                `"managedFields":` + maps + `,`,
		"a spec that is full of maps":   "spec:" + maps,
		"a status that is full of maps": "status:" + maps,
	} {
		t.Run(name, func(t *testing.T) {
			object := kustomization
			switch kind, value, _ := strings.Cut(padding, ":"); kind {
			case "spec":
				object = strings.Replace(object, `"path"`, `"patches":`+value+`,"path"`, 1)
			case "status":
				object = strings.Replace(object, `"spec"`, `"status":{"a":`+value+`},"spec"`, 1)
			default:
				object = strings.Replace(object, `"name"`, padding+`"name"`, 1)
			}
			for _, onError := range []v1alpha1.Action{v1alpha1.ActionDeny, v1alpha1.ActionAudit} {
				b := newTestServerWith(strictPolicy(t, onError, v1alpha1.ModeEnforce), lookup.NewMemory(), logr.Discard())
				response := b.post(t, webhookconfig.ValidatePath, write{operation: admissionv1.Create, object: object}.body(t))
				if response.Allowed || !strings.Contains(response.Result.Message, "KS001") {
					t.Errorf("onError %s: allowed %v, %v; want the finding KS001", onError, response.Allowed, response.Result)
				}
				b = newTestServerWith(strictPolicy(t, onError, v1alpha1.ModeAuditOnly), lookup.NewMemory(), logr.Discard())
				if response := b.post(t, webhookconfig.ValidatePath, write{operation: admissionv1.Create, object: object}.body(t)); !response.Allowed {
					t.Errorf("AuditOnly refused: %v", response.Result)
				}
			}
		})
	}
}

// TestValidator_ThousandsOfDependencies has a finding, and more dependencies than can be looked up in time.
func TestValidator_ThousandsOfDependencies(t *testing.T) {
	var dependencies []string
	for i := range 6000 {
		dependencies = append(dependencies, fmt.Sprintf(`{"name":"d%d"}`, i))
	}
	object := strings.Replace(kustomization, `"path"`, `"dependsOn":[`+strings.Join(dependencies, ",")+`],"path"`, 1)
	slow := &slowLookup{Lookup: lookup.NewMemory()}
	b := newTestServerWith(strictPolicy(t, v1alpha1.ActionAudit, v1alpha1.ModeEnforce), slow, logr.Discard())
	response := b.post(t, webhookconfig.ValidatePath+"?timeout=500ms", write{operation: admissionv1.Create, object: object}.body(t))
	if response.Allowed || !strings.Contains(response.Result.Message, "KS001") {
		t.Errorf("allowed %v, %v; want the finding KS001", response.Allowed, response.Result)
	}
	if n := slow.reads.Load(); n > 250 {
		t.Errorf("%d lookups for one review", n)
	}
}

// slowLookup takes a millisecond for each object, and counts.
type slowLookup struct {
	validators.Lookup
	reads atomic.Int64
}

func (l *slowLookup) Get(ctx context.Context, gk schema.GroupKind, key types.NamespacedName) (*unstructured.Unstructured, validators.Presence, error) {
	l.reads.Add(1)
	<-time.After(time.Millisecond)
	return l.Lookup.Get(ctx, gk, key)
}

func (l *slowLookup) List(ctx context.Context, gk schema.GroupKind, namespace string) ([]*unstructured.Unstructured, validators.Presence, error) {
	l.reads.Add(1)
	return l.Lookup.List(ctx, gk, namespace)
}
