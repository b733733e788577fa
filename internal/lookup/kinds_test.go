package lookup_test

import (
	"context"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
)

type allKinds struct{}

func (allKinds) Kind(context.Context, schema.GroupKind) (*validators.Kind, validators.Presence, error) {
	return &validators.Kind{Origin: "everywhere"}, validators.Present, nil
}

func TestKinds(t *testing.T) {
	gk := schema.GroupKind{Group: "example.com", Kind: "Widget"}
	memory := lookup.NewMemory()
	_, p, err := memory.Kind(t.Context(), gk)
	if p != validators.Unknown || err == nil || err.Error() != "schemas are not read here" {
		t.Errorf("a Memory without kinds returns %v, %v", p, err)
	}
	with := lookup.WithKinds(memory, allKinds{})
	if kind, p, err := with.Kind(t.Context(), gk); kind == nil || p != validators.Present || err != nil {
		t.Errorf("with kinds it returns %v, %v, %v", kind, p, err)
	}
	if _, p, err := with.Get(t.Context(), gk, types.NamespacedName{Name: "a"}); p != validators.Absent || err != nil {
		t.Errorf("Get returns %v, %v; want the result of the Memory", p, err)
	}
	memory.Kinds = allKinds{}
	if _, p, _ := memory.Kind(t.Context(), gk); p != validators.Present {
		t.Errorf("a Memory with kinds returns %v", p)
	}
}
