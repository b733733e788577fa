package lookup_test

import (
	"context"
	"errors"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
)

// counted counts the questions it is asked.
type counted struct {
	validators.Lookup
	gets, charts int
}

func (c *counted) Get(ctx context.Context, gk schema.GroupKind, key types.NamespacedName) (*unstructured.Unstructured, validators.Presence, error) {
	c.gets++
	return c.Lookup.Get(ctx, gk, key)
}

func (c *counted) Chart(context.Context, validators.ChartRef) (validators.Chart, validators.Presence, error) {
	c.charts++
	return nil, validators.Unknown, errors.New("slow")
}

func TestMemo(t *testing.T) {
	inner := &counted{Lookup: lookup.NewMemory(object("Secret", "a", "x"))}
	m := lookup.NewMemo(inner)
	for range 3 {
		if o, got, err := m.Get(t.Context(), secretGK, types.NamespacedName{Namespace: "a", Name: "x"}); o == nil || got != validators.Present || err != nil {
			t.Errorf("Get = %v, %v, %v", o, got, err)
		}
		if _, got, _ := m.Get(t.Context(), secretGK, types.NamespacedName{Namespace: "a", Name: "y"}); got != validators.Absent {
			t.Errorf("Get of another = %v", got)
		}
		for _, version := range []string{"1", "2"} {
			if _, got, err := m.Chart(t.Context(), validators.ChartRef{Chart: "app", Version: version, ValuesFiles: []string{"x"}}); got != validators.Unknown || text(err) != "slow" {
				t.Errorf("Chart = %v, %v", got, err)
			}
		}
	}
	if inner.gets != 2 || inner.charts != 2 {
		t.Errorf("asked for %d objects and %d charts, want 2 and 2", inner.gets, inner.charts)
	}
	if _, got, _ := m.Namespace(t.Context(), "a"); got != validators.Absent {
		t.Errorf("Namespace = %v", got)
	}
}
