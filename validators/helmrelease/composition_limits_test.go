package helmrelease_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/helmrelease"
)

// TestValuesNotComposable_Limits: a release of a few kilobytes cannot make Helm's parser allocate gigabytes.
func TestValuesNotComposable_Limits(t *testing.T) {
	suite, err := validators.NewSuite(helmrelease.ValuesNotComposable)
	if err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"large indexes": "a%d" + strings.Repeat("[65535]", 28),
		"many paths":    "a%d.b",
		"many indexes":  "a%d[999]",
	} {
		t.Run(name, func(t *testing.T) {
			values := map[string]any{}
			for i := range 1000 {
				values[fmt.Sprint("k", i)] = "v"
			}
			var from []any
			for i := range 2000 {
				from = append(from, map[string]any{"kind": "ConfigMap", "name": "one", "targetPath": fmt.Sprintf(path, i)})
			}
			o := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease", "metadata": map[string]any{"name": "x", "namespace": "apps"},
				"spec": map[string]any{"values": values, "valuesFrom": from},
			}}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r := suite.Evaluate(t.Context(), validators.Request{Operation: validators.Create, Object: o, Stage: validators.StageAdmission}, lookup.NewMemory())
			runtime.ReadMemStats(&after)
			if took := (after.TotalAlloc - before.TotalAlloc) >> 20; took > 64 {
				t.Errorf("it allocated %d MiB; want at most 64", took)
			}
			if len(r.Skipped) == 0 || len(r.Findings) > 0 || len(r.Errors) > 0 {
				t.Errorf("%v %v %v; want it skipped", r.Skipped, r.Findings, r.Errors)
			}
		})
	}
}

// TestValuesNotComposable_LargeDocuments: documents that expand are not decoded.
func TestValuesNotComposable_LargeDocuments(t *testing.T) {
	suite, err := validators.NewSuite(helmrelease.ValuesNotComposable)
	if err != nil {
		t.Fatal(err)
	}
	aliases := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := range 40 {
		aliases += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 10), ","))
	}
	for name, text := range map[string]string{"lists": "a: [" + strings.Repeat("[],", 300_000) + "[]]", "aliases": aliases} {
		t.Run(name, func(t *testing.T) {
			o := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease", "metadata": map[string]any{"name": "x", "namespace": "apps"},
				"spec": map[string]any{"valuesFrom": []any{map[string]any{"kind": "ConfigMap", "name": "large"}, map[string]any{"kind": "ConfigMap", "name": "large", "targetPath": "b.c"}}},
			}}
			config := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "large", "namespace": "apps"}, "data": map[string]any{"values.yaml": text},
			}}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r := suite.Evaluate(t.Context(), validators.Request{Operation: validators.Create, Object: o, Stage: validators.StageAdmission}, lookup.NewMemory(config))
			runtime.ReadMemStats(&after)
			if took := (after.TotalAlloc - before.TotalAlloc) >> 20; took > 8 || len(r.Findings) > 0 || len(r.Errors) > 0 {
				t.Errorf("it allocated %d MiB: %v %v; want at most 8 and no finding", took, r.Findings, r.Errors)
			}
		})
	}
}
