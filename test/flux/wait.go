package flux

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// readTimeout bounds the reading of one object.
const readTimeout = 10 * time.Second

// Ref names an object.
type Ref struct {
	schema.GroupVersionKind
	client.ObjectKey
}

// Kustomization is the Flux Kustomization of the given name.
func Kustomization(namespace, name string) Ref {
	return Ref{schema.GroupVersionKind{Group: "kustomize.toolkit.fluxcd.io", Version: "v1", Kind: "Kustomization"}, client.ObjectKey{Namespace: namespace, Name: name}}
}

// GitRepository is the Flux GitRepository of the given name.
func GitRepository(namespace, name string) Ref {
	return Ref{schema.GroupVersionKind{Group: "source.toolkit.fluxcd.io", Version: "v1", Kind: "GitRepository"}, client.ObjectKey{Namespace: namespace, Name: name}}
}

// HelmRelease is the HelmRelease of the given name.
func HelmRelease(namespace, name string) Ref {
	return Ref{schema.GroupVersionKind{Group: "helm.toolkit.fluxcd.io", Version: "v2", Kind: "HelmRelease"}, client.ObjectKey{Namespace: namespace, Name: name}}
}

func (r Ref) String() string { return r.Kind + " " + r.ObjectKey.String() }

func (r Ref) get(ctx context.Context, c client.Reader) (*unstructured.Unstructured, error) {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(r.GroupVersionKind)
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return object, c.Get(ctx, r.ObjectKey, object)
}

// Condition is what WaitFor waits for. Empty fields match everything, Contains
// is a part of the message.
type Condition struct {
	Type     string
	Status   metav1.ConditionStatus
	Reason   string
	Contains string
}

// Ready is the condition of an object that Flux has reconciled, with a part of
// its message. A commit's id there waits for that commit: Flux names the
// revision. Without one, an object that was Ready before still counts.
func Ready(contains string) Condition {
	return Condition{Type: meta.ReadyCondition, Status: metav1.ConditionTrue, Contains: contains}
}

// NotReady is the condition of an object that Flux cannot reconcile, with a
// part of the message.
func NotReady(contains string) Condition {
	return Condition{Type: meta.ReadyCondition, Status: metav1.ConditionFalse, Contains: contains}
}

func (c Condition) String() string {
	s := fmt.Sprintf("%s=%s", c.Type, c.Status)
	if c.Reason != "" {
		s += " with reason " + c.Reason
	}
	if c.Contains != "" {
		s += fmt.Sprintf(" and %q in its message", c.Contains)
	}
	return s
}

func (c Condition) matches(got *metav1.Condition) bool {
	return got != nil && (c.Status == "" || got.Status == c.Status) && (c.Reason == "" || got.Reason == c.Reason) && strings.Contains(got.Message, c.Contains)
}

// WaitFor waits until the object has the condition for its newest generation
// and returns the condition. After the timeout the error has the last state of the object.
func WaitFor(ctx context.Context, c client.Reader, ref Ref, want Condition, timeout time.Duration) (*metav1.Condition, error) {
	over, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	last := "it was never read"
	for {
		// Not cut short by the timeout, so that what was seen last is the object
		// and not the client's complaint about the deadline.
		object, err := ref.get(ctx, c)
		switch {
		case err == nil:
			got, current, err := condition(object, want.Type)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", ref, err)
			}
			if current && want.matches(got) {
				return got, nil
			}
			last = describe(object, current)
		case ctx.Err() == nil:
			last = err.Error()
		}
		select {
		case <-over.Done():
			if ctx.Err() == nil {
				return nil, fmt.Errorf("%s: no %s within %s; last seen: %s", ref, want, timeout, last)
			}
			return nil, fmt.Errorf("%s: waiting for %s: %w; last seen: %s", ref, want, context.Cause(ctx), last)
		case <-ticker.C:
		}
	}
}

// condition returns an object's condition, nil if it has none of that type,
// and whether it speaks of the newest generation.
func condition(object *unstructured.Unstructured, conditionType string) (*metav1.Condition, bool, error) {
	conditions, err := conditionsOf(object)
	if err != nil {
		return nil, false, err
	}
	got := apimeta.FindStatusCondition(conditions, conditionType)
	// Flux leaves status.observedGeneration behind while an object fails, but
	// not the condition's own.
	return got, got != nil && got.ObservedGeneration >= object.GetGeneration(), nil
}

func conditionsOf(object *unstructured.Unstructured) ([]metav1.Condition, error) {
	status, _, err := unstructured.NestedMap(object.Object, "status")
	if err != nil {
		return nil, err
	}
	var typed struct {
		Conditions []metav1.Condition `json:"conditions"`
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(status, &typed); err != nil {
		return nil, fmt.Errorf("reading the conditions: %w", err)
	}
	return typed.Conditions, nil
}

// describe is an object's state for an error message.
func describe(object *unstructured.Unstructured, current bool) string {
	conditions, err := conditionsOf(object)
	if err != nil {
		return err.Error()
	}
	parts := []string{fmt.Sprintf("generation %d", object.GetGeneration())}
	if !current {
		parts = append(parts, "not reconciled in this generation")
	}
	for _, c := range conditions {
		parts = append(parts, fmt.Sprintf("%s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message))
	}
	return strings.Join(parts, "; ")
}

// Reconcile asks Flux to reconcile the object now rather than at its next
// interval, as `flux reconcile` does.
func Reconcile(ctx context.Context, c client.Client, ref Ref) error {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(ref.GroupVersionKind)
	object.SetNamespace(ref.Namespace)
	object.SetName(ref.Name)
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, meta.ReconcileRequestAnnotation, time.Now().Format(time.RFC3339Nano))
	if err := c.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		return fmt.Errorf("asking Flux to reconcile %s: %w", ref, err)
	}
	return nil
}
