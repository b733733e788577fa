package match_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

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
			captures, ok := m.Object(o)
			if ok != (want != "") || captures["ns"] != want {
				t.Errorf("pattern %q, path %q: selected %t with %q, want %q", pattern, path, ok, captures["ns"], want)
			}
		}
	}
}
