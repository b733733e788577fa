package validators_test

import (
	"testing"

	"github.com/flux-admission/flux-admission/validators"
)

func TestHasPrefix(t *testing.T) {
	spec := validators.NewPath("spec")
	for name, tc := range map[string]struct {
		path, other validators.Path
		want        bool
	}{
		"a path is below its parent":          {spec.Child("a").Index(0), spec.Child("a"), true},
		"a path is at itself":                 {spec, spec, true},
		"a path is below the object":          {spec, nil, true},
		"a parent is not below its child":     {spec, spec.Child("a"), false},
		"a name that begins alike is another": {spec.Child("ab"), spec.Child("a"), false},
		"another index is another":            {spec.Index(1), spec.Index(0), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.path.HasPrefix(tc.other); got != tc.want {
				t.Errorf("%s has prefix %s: %t, want %t", tc.path, tc.other, got, tc.want)
			}
		})
	}
}
