package delivery_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/delivery"
)

// objects reads YAML documents.
func objects(t testing.TB, data []byte) []*unstructured.Unstructured {
	t.Helper()
	out, err := delivery.Read(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// readChain reads an input of testdata/chains and the roots that it has.
func readChain(t testing.TB, file string) (*delivery.Input, string) {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	in := &delivery.Input{}
	roots, found := "", false
	for _, f := range archive.Files {
		content := strings.TrimSpace(string(f.Data))
		switch f.Name {
		case "objects.yaml":
			in.Objects = objects(t, f.Data)
		case "complete":
			in.Complete = func(schema.GroupKind) bool { return content == "*" }
		case "now":
			if in.Now, err = time.Parse(time.RFC3339, content); err != nil {
				t.Fatal(err)
			}
		case "roots":
			roots, found = content, true
		default:
			t.Fatalf("%s: unknown section %s", file, f.Name)
		}
	}
	if !found || len(in.Objects) == 0 {
		t.Fatalf("%s: a section is missing", file)
	}
	return in, roots
}

// rootsOf writes each root on a line.
func rootsOf(r *delivery.Report) string {
	var lines []string
	for _, root := range r.Roots {
		line := fmt.Sprintf("%s %s %s blocks %d", root.State, root.Cause, root.Object, len(root.Blocked))
		for _, f := range root.Finalizers {
			line += " controller " + string(f.Controller)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func chains(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/chains/*.txtar")
	if err != nil || len(files) < 15 {
		t.Fatalf("%d chains, %v", len(files), err)
	}
	return files
}

func TestAnalyze_Chains(t *testing.T) {
	for _, file := range chains(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			in, want := readChain(t, file)
			r := delivery.Analyze(in)
			if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(rootsOf(r), "\n")); diff != "" {
				t.Errorf("roots (-want +got):\n%s", diff)
				for _, o := range r.Objects {
					t.Logf("%s: %s %s, waits for %v, roots %v", o.Object, o.State, o.Cause, o.WaitsFor, o.Roots)
				}
			}
			for _, root := range r.Roots {
				if root.Fix == "" || root.Evidence == "" {
					t.Errorf("%s: fix %q, evidence %q", root.Object, root.Fix, root.Evidence)
				}
			}
			for _, o := range r.Objects {
				for _, e := range o.WaitsFor {
					if e.Evidence == "" || e.Type == "" {
						t.Errorf("%s waits for %s without evidence", o.Object, e.To)
					}
				}
				if !reachesRoots(r, o) {
					t.Errorf("the edges of the report do not lead from %s to %v", o.Object, o.Roots)
				}
			}
		})
	}
}

// reachesRoots reports whether the edges in the report lead from an object to each of its roots.
func reachesRoots(r *delivery.Report, o *delivery.Object) bool {
	seen := map[delivery.Ref]bool{o.Object: true}
	for queue := []delivery.Ref{o.Object}; len(queue) > 0; queue = queue[1:] {
		for _, from := range r.Objects {
			if from.Object != queue[0] {
				continue
			}
			for _, e := range from.WaitsFor {
				if !seen[e.To] {
					seen[e.To] = true
					queue = append(queue, e.To)
				}
			}
		}
	}
	return !slices.ContainsFunc(o.Roots, func(root delivery.Ref) bool { return !seen[root] })
}

// TestAnalyze_Order: the order of the objects does not matter.
func TestAnalyze_Order(t *testing.T) {
	for _, file := range chains(t) {
		in, _ := readChain(t, file)
		want, err := json.Marshal(delivery.Analyze(in))
		if err != nil {
			t.Fatal(err)
		}
		for seed := range uint64(10) {
			rand.New(rand.NewPCG(seed, 1)).Shuffle(len(in.Objects), func(i, j int) {
				in.Objects[i], in.Objects[j] = in.Objects[j], in.Objects[i]
			})
			got, err := json.Marshal(delivery.Analyze(in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Fatalf("%s, shuffled (-want +got):\n%s", file, diff)
			}
		}
	}
}

// TestAnalyze_InputUnchanged: the objects are not changed.
func TestAnalyze_InputUnchanged(t *testing.T) {
	for _, file := range chains(t) {
		in, _ := readChain(t, file)
		before := make([]*unstructured.Unstructured, 0, len(in.Objects))
		for _, o := range in.Objects {
			before = append(before, o.DeepCopy())
		}
		delivery.Analyze(in)
		if diff := cmp.Diff(before, in.Objects); diff != "" {
			t.Errorf("%s (-before +after):\n%s", file, diff)
		}
	}
}

// TestAnalyze_SecretValues: no value of a Secret or ConfigMap is in a report.
func TestAnalyze_SecretValues(t *testing.T) {
	in := &delivery.Input{Objects: objects(t, []byte(`apiVersion: v1
kind: Secret
metadata: {name: web-values, namespace: apps, annotations: {kubectl.kubernetes.io/last-applied-configuration: hunter2}}
data: {password: aHVudGVyMg==}
stringData: {other: hunter2}
---
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: web, namespace: apps, generation: 1}
spec: {valuesFrom: [{kind: Secret, name: web-values}]}
status: {conditions: [{type: Ready, status: "False", reason: ValuesError, message: "could not resolve Secret chart values reference 'apps/web-values' with key 'values.yaml': key not found"}]}
`))}
	r := delivery.Analyze(in)
	if diff := cmp.Diff("Failed KeyMissing Secret apps/web-values blocks 1", rootsOf(r)); diff != "" {
		t.Errorf("roots (-want +got):\n%s", diff)
	}
	out, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"hunter2", "aHVudGVyMg=="} {
		if bytes.Contains(out, []byte(secret)) {
			t.Errorf("the report has %q", secret)
		}
	}
}

func TestReport_Why(t *testing.T) {
	in, _ := readChain(t, "testdata/chains/denied-by-webhook.txtar")
	r := delivery.Analyze(in)
	part, found := r.Why(delivery.Ref{Group: "kustomize.toolkit.fluxcd.io", Kind: "Kustomization", Namespace: "flux-system", Name: "web"})
	if !found || rootsOf(part) != "Failed AdmissionDenied Kustomization apps/bad blocks 2" {
		t.Errorf("found %v, roots:\n%s", found, rootsOf(part))
	}
	var names []string
	for _, o := range part.Objects {
		names = append(names, o.Object.Name)
	}
	if !slices.Equal(names, []string{"team", "web"}) {
		t.Errorf("objects on the way: %v", names)
	}
	if _, found := r.Why(delivery.Ref{Group: "source.toolkit.fluxcd.io", Kind: "GitRepository", Namespace: "flux-system", Name: "flux-system"}); found {
		t.Error("a ready object has a root")
	}
}

// large returns n objects, one in a hundred failing, in chains of ten.
func large(n int) *delivery.Input {
	in := &delivery.Input{Now: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
	condition := func(status, reason, message string) []any {
		return []any{map[string]any{
			"type": "Ready", "status": status, "reason": reason, "message": message, "observedGeneration": int64(1), "lastTransitionTime": "2026-11-26T11:00:00Z",
		}}
	}
	for i := range n {
		o := map[string]any{
			"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
			"metadata": map[string]any{"name": fmt.Sprintf("app-%d", i), "namespace": "flux-system", "generation": int64(1)},
			"spec": map[string]any{
				"sourceRef": map[string]any{"kind": "GitRepository", "name": "flux-system"},
				"dependsOn": []any{map[string]any{"name": fmt.Sprintf("app-%d", i-i%10)}},
			},
			"status": map[string]any{
				"observedGeneration": int64(1), "conditions": condition("True", "ReconciliationSucceeded", "Applied revision: main@sha1:b"),
				"inventory": map[string]any{"entries": []any{map[string]any{"id": fmt.Sprintf("apps_app-%d_apps_Deployment", i)}}},
			},
		}
		switch i % 1000 {
		case 0:
			delete(o["spec"].(map[string]any), "dependsOn")
			o["status"].(map[string]any)["conditions"] = condition("False", "BuildFailed", "kustomize build failed: accumulating resources")
		case 1, 2, 3, 4, 5, 6, 7, 8, 9:
			o["status"].(map[string]any)["conditions"] = condition("False", "DependencyNotReady", fmt.Sprintf("dependency 'flux-system/app-%d' is not ready", i-i%10))
		}
		in.Objects = append(in.Objects, &unstructured.Unstructured{Object: o})
	}
	return in
}

func TestAnalyze_Large(t *testing.T) {
	r := delivery.Analyze(large(10_000))
	if r.Summary.Objects != 10_000 || r.Summary.NotReady != 100 || r.Summary.Roots != 10 {
		t.Errorf("summary: %+v", r.Summary)
	}
}

func BenchmarkAnalyze(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("objects=%d", n), func(b *testing.B) {
			in := large(n)
			b.ReportAllocs()
			for b.Loop() {
				delivery.Analyze(in)
			}
		})
	}
}

func FuzzAnalyze(f *testing.F) {
	for _, file := range chains(f) {
		in, _ := readChain(f, file)
		for _, o := range in.Objects {
			list, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
			for _, item := range list {
				m, _ := item.(map[string]any)
				f.Add(fmt.Sprint(m["reason"]), fmt.Sprint(m["message"]), o.GetKind() == "Kustomization")
			}
		}
	}
	f.Fuzz(func(t *testing.T, reason, message string, kustomization bool) {
		in, _ := readChain(t, "testdata/chains/retries-exhausted.txtar")
		if kustomization {
			in, _ = readChain(t, "testdata/chains/health-check-names-nothing.txtar")
		}
		for _, o := range in.Objects {
			list, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
			for _, item := range list {
				m, _ := item.(map[string]any)
				if m["status"] == "False" {
					m["reason"], m["message"] = reason, message
				}
			}
			if list != nil {
				if err := unstructured.SetNestedSlice(o.Object, list, "status", "conditions"); err != nil {
					t.Fatal(err)
				}
			}
		}
		r := delivery.Analyze(in)
		again := delivery.Analyze(in)
		if diff := cmp.Diff(r, again); diff != "" {
			t.Errorf("two runs (-first +second):\n%s", diff)
		}
		if len(r.Objects) > 0 && len(r.Roots) == 0 {
			t.Errorf("%d objects are not ready, and there is no root", len(r.Objects))
		}
		for _, o := range r.Objects {
			if len(o.Roots) == 0 {
				t.Errorf("%s has no root", o.Object)
			}
		}
	})
}
