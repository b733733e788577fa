package lookup

import (
	"context"
	"testing"

	"github.com/flux-admission/flux-admission/validators"
)

// counted counts its validations.
type counted struct {
	validators.Chart

	validations int
}

func (c *counted) Validate(context.Context, validators.Values) (validators.ValuesResult, error) {
	c.validations++
	return validators.ValuesResult{HasSchema: true}, nil
}

func (c *counted) Resolve(
	context.Context, validators.Lookup, validators.ChartRef,
) (validators.Chart, validators.Presence, error) {
	return c, validators.Present, nil
}

func TestMemo_ValidatesOncePerReview(t *testing.T) {
	c := &counted{}
	m := NewMemo(&Memory{Charts: c})
	inline := map[string]any{"a": int64(1)}
	for _, step := range []struct {
		values validators.Values
		want   int
	}{
		{validators.Values{Namespace: "apps", Inline: inline}, 1},
		{validators.Values{Namespace: "apps", Inline: inline}, 1},
		{validators.Values{Namespace: "apps", Inline: map[string]any{"a": int64(1)}}, 2}, // of another object
		{validators.Values{Namespace: "apps", Inline: inline, From: []validators.ValuesSource{{Kind: "Secret", Name: "s"}}}, 3},
		{validators.Values{Namespace: "apps"}, 4},
		{validators.Values{Namespace: "apps"}, 4},
	} {
		chart, _, err := m.Chart(t.Context(), validators.ChartRef{Chart: "app"})
		if err != nil {
			t.Fatal(err)
		}
		if v, err := chart.Validate(t.Context(), step.values); err != nil || !v.HasSchema {
			t.Fatal(v, err)
		}
		if c.validations != step.want {
			t.Fatalf("%d validations after %+v, want %d", c.validations, step.values, step.want)
		}
	}
}
