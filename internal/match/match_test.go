package match_test

import (
	"errors"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/boundedregexp"
	"github.com/flux-admission/flux-admission/internal/match"
)

// Flux takes every one of these paths for the same directory: a selector by path must not depend on the spelling.
func TestMatch_PathIsCleaned(t *testing.T) {
	for path, want := range map[string]string{
		"./kubernetes/apps/airflow":              "airflow",
		"./kubernetes/apps/airflow/":             "airflow",
		"kubernetes/apps/airflow":                "airflow",
		"/kubernetes/apps/airflow":               "airflow",
		".//kubernetes/apps/airflow":             "airflow",
		"././kubernetes//apps/./airflow":         "airflow",
		"./x/../kubernetes/apps/airflow":         "airflow",
		"../kubernetes/apps/airflow":             "airflow",
		"./../../kubernetes/apps/x/../airflow":   "airflow",
		"./kubernetes/apps/airflow/../postgres/": "postgres",
		"./kubernetes/apps/../infra/airflow":     "",
		"./kubernetes/apps/":                     "",
		"./kubernetes/apps":                      "",
		"./":                                     "",
		"":                                       "",
	} {
		for _, pattern := range []string{
			`^\./kubernetes/apps/(?P<ns>[^/]+)$`, `^kubernetes/apps/(?P<ns>[^/]+)$`, `^/kubernetes/apps/(?P<ns>[^/]+)$`,
		} {
			m := match.Match{Path: pattern}
			if err := m.Compile(); err != nil {
				t.Fatal(err)
			}
			o := &unstructured.Unstructured{Object: map[string]any{"kind": "Kustomization", "spec": map[string]any{"path": path}}}
			captures, ok, err := m.Object(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if ok != (want != "") || captures["ns"] != want {
				t.Errorf("pattern %q, path %q: selected %t with %q, want %q", pattern, path, ok, captures["ns"], want)
			}
		}
	}
}

// TestMatch_TooComplex: a policy cannot have a path that is compiled to megabytes, and a path that is too long for the
// pattern is an error, not a path that does not match.
func TestMatch_TooComplex(t *testing.T) {
	m := match.Match{Path: "(?:" + strings.Repeat("ab", 500) + "){1000}"}
	if err := m.Compile(); !errors.Is(err, boundedregexp.ErrTooComplex) {
		t.Errorf("Compile() = %v, want ErrTooComplex", err)
	}
	m = match.Match{Path: "^(?:a?){900}(?:a){900}$"}
	if err := m.Compile(); err != nil {
		t.Fatal(err)
	}
	o := &unstructured.Unstructured{Object: map[string]any{
		"kind": "Kustomization", "spec": map[string]any{"path": strings.Repeat("a", 1<<20)},
	}}
	if _, ok, err := m.Object(t.Context(), o); ok || !errors.Is(err, boundedregexp.ErrTooComplex) {
		t.Errorf("Object() = %t, %v, want ErrTooComplex", ok, err)
	}
}
