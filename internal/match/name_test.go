package match_test

import (
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/internal/match"
)

func TestName(t *testing.T) {
	for _, tc := range []struct {
		pattern, name string
		want          bool
	}{
		{"flux-system", "flux-system", true},
		{"flux", "flux-system", false},
		{"flux-*", "flux-system", true},
		{"flux-*", "flux-", true},
		{"flux-*", "my-flux-system", false},
		{"*-system", "flux-system", true},
		{"*-system", "flux-systems", false},
		{"t*-*-x", "team-a-x", true},
		{"t*-*-x", "team-x", false},
		{"a*a", "a", false},
		{"a*b*c", "abbc", true},
		{"*", "anything", true},
		{"*", "", true},
		{"**", "a", true},
		{"[a-z]*", "a", false},
	} {
		if got := match.Name([]string{"other", tc.pattern}, tc.name); got != tc.want {
			t.Errorf("%q matches %q: %t, want %t", tc.pattern, tc.name, got, tc.want)
		}
	}
}

func TestNamespacePattern(t *testing.T) {
	for _, pattern := range []string{"flux-system", "team-*", "*", "*-prod", "a"} {
		if err := match.NamespacePattern(pattern); err != nil {
			t.Errorf("%q: %v", pattern, err)
		}
	}
	for pattern, want := range map[string]string{
		"Flux System": `did you mean "flux-system"?`, "flux_system": `did you mean "flux-system"?`, "team-": `did you mean "team"?`, "": "no namespace",
	} {
		if err := match.NamespacePattern(pattern); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", pattern, err, want)
		}
	}
}
