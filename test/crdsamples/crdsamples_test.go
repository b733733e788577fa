package crdsamples_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/kindschema/catalog"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/crdsamples"
)

// releases are those of Flux whose every field and value is tried. The empty one is a tree that does not show which it runs.
var releases = []string{"2.7", "2.8", "2.9", "2.10", ""}

// matrix is what is tried of a release.
type matrix struct {
	crds     []*apiextensionsv1.CustomResourceDefinition
	valid    []*unstructured.Unstructured
	mistakes []crdsamples.Mistake
	removed  []*unstructured.Unstructured
}

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

func newMatrix(t *testing.T, release string) *matrix {
	t.Helper()
	all, err := catalog.New()
	if err != nil {
		t.Fatal(err)
	}
	c, m := all.ForFlux(release), &matrix{}
	versions := map[schema.GroupKind][]string{}
	for _, e := range all.Entries() {
		gk := schema.GroupKind{Group: e.Group, Kind: e.Kind}
		// The Flux Operator's releases are not those of Flux.
		if e.Project != "Flux" && (e.Project != "Flux Operator" || release != "") {
			continue
		}
		first := versions[gk] == nil
		versions[gk] = append(versions[gk], versionsOf(t, all, gk, e.Version)...)
		if !first {
			continue
		}
		d, err := c.CRD(gk)
		if err != nil {
			t.Fatal(err)
		}
		if release != "" && !d.Installed {
			continue // a kind that this release does not have yet
		}
		m.crds = append(m.crds, d.CRD)
		for _, v := range d.CRD.Spec.Versions {
			if !v.Served {
				continue
			}
			s, err := crdsamples.Of(t.Context(), d.CRD, v.Name)
			if err != nil {
				t.Fatal(err)
			}
			if len(s.Missing) > 0 {
				t.Errorf("%s %s: no valid sample was found with %v", gk, v.Name, s.Missing)
			}
			m.valid = append(m.valid, s.Objects...)
			m.mistakes = append(m.mistakes, crdsamples.Mistakes(d.CRD, v.Name, s.Objects)...)
		}
	}
	for _, crd := range m.crds {
		gk := schema.GroupKind{Group: crd.Spec.Group, Kind: crd.Spec.Names.Kind}
		slices.Sort(versions[gk])
		for _, v := range slices.Compact(versions[gk]) {
			if slices.ContainsFunc(crd.Spec.Versions, func(have apiextensionsv1.CustomResourceDefinitionVersion) bool { return have.Name == v && have.Served }) {
				continue
			}
			o := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{}}}
			o.SetGroupVersionKind(gk.WithVersion(v))
			o.SetNamespace("default")
			o.SetName(strings.ToLower(gk.Kind) + "-" + v + "-removed")
			m.removed = append(m.removed, o)
		}
	}
	return m
}

// versionsOf returns the versions of a kind that a release served.
func versionsOf(t *testing.T, c *catalog.Catalog, gk schema.GroupKind, release string) (out []string) {
	t.Helper()
	d, err := c.ForFlux(release).CRD(gk)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range d.CRD.Spec.Versions {
		if v.Served {
			out = append(out, v.Name)
		}
	}
	return out
}

// An API server with the definitions of a release accepts each valid sample of it, and none with a mistake: what TestCheck wants of check is right.
func TestAPIServer(t *testing.T) {
	for _, release := range releases {
		t.Run("Flux "+release, func(t *testing.T) {
			m := newMatrix(t, release)
			dir := t.TempDir()
			for _, crd := range m.crds {
				crd.APIVersion, crd.Kind = "apiextensions.k8s.io/v1", "CustomResourceDefinition"
				write(t, filepath.Join(dir, crd.Name+".yaml"), crd)
			}
			cp, err := controlplane.Start(t.Context(), controlplane.Options{CRDs: []string{dir}, Progress: os.Stderr})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := cp.Stop(); err != nil {
					t.Error(err)
				}
			})
			c, err := client.New(cp.Config(), client.Options{})
			if err != nil {
				t.Fatal(err)
			}
			create := func(o *unstructured.Unstructured) error {
				o = o.DeepCopy()
				o.SetNamespace("default")
				return c.Create(t.Context(), o, client.DryRunAll, client.FieldValidation("Strict"))
			}
			for _, o := range m.valid {
				if err := create(o); err != nil {
					t.Errorf("%s %s is not valid: %v\n%s", o.GroupVersionKind(), o.GetName(), err, text(t, o))
				}
			}
			for _, w := range m.mistakes {
				if err := create(w.Object); err == nil {
					t.Errorf("%s with a mistake at %s is accepted", w.Object.GroupVersionKind(), w.Path)
				}
			}
			for _, o := range m.removed {
				if err := create(o); err == nil {
					t.Errorf("%s is served", o.GroupVersionKind())
				}
			}
			t.Logf("%d samples, %d mistakes, %d removed versions", len(m.valid), len(m.mistakes), len(m.removed))
		})
	}
}

// The same samples are made in each run.
func TestOf_Deterministic(t *testing.T) {
	a, b := newMatrix(t, "2.10"), newMatrix(t, "2.10")
	if diff := cmp.Diff(a.valid, b.valid); diff != "" {
		t.Error(diff)
	}
}

// In a tree of a release, check has nothing to report on the schema of the valid samples, one finding on each mistake, at its field, and one on each
// object of a version that the release does not serve.
func TestCheck(t *testing.T) {
	for _, release := range releases {
		t.Run("Flux "+release, func(t *testing.T) {
			m := newMatrix(t, release)
			found := checked(t, release, m)
			for _, o := range m.valid {
				for _, f := range found[reference(o)] {
					if f.ID != "SC003" || !strings.Contains(f.Message, "deprecated") {
						t.Errorf("%s: %s at %s: %s", reference(o), f.ID, f.Path, f.Message)
					}
				}
			}
			for _, w := range m.mistakes {
				want := "SC002"
				if w.Unknown {
					want = "SC001"
				}
				if !slices.ContainsFunc(found[reference(w.Object)], func(f report.Finding) bool { return f.ID == want && f.Path == w.Path }) {
					t.Errorf("%s: no %s at %s, but %v", reference(w.Object), want, w.Path, summaries(found[reference(w.Object)]))
				}
			}
			for _, o := range m.removed {
				if list := found[reference(o)]; len(list) != 1 || list[0].ID != "SC003" {
					t.Errorf("%s: %v, want SC003 alone", reference(o), summaries(list))
				}
			}
			if len(m.valid) < 100 || len(m.mistakes) < 500 {
				t.Errorf("%d samples, %d mistakes", len(m.valid), len(m.mistakes))
			}
			t.Logf("%d samples, %d mistakes, %d removed versions", len(m.valid), len(m.mistakes), len(m.removed))
		})
	}
}

// checked returns the findings of the schema rules by object. Each kind has a tree of its own: a Kustomization that lost its source and its path applies
// the tree that it is in once more.
func checked(t *testing.T, release string, m *matrix) map[string][]report.Finding {
	t.Helper()
	kinds := map[string][]*unstructured.Unstructured{}
	for _, o := range slices.Concat(m.valid, m.removed) {
		kinds[o.GetKind()] = append(kinds[o.GetKind()], o)
	}
	for _, w := range m.mistakes {
		kinds[w.Object.GetKind()] = append(kinds[w.Object.GetKind()], w.Object)
	}
	out := map[string][]report.Finding{}
	for _, objects := range kinds {
		for _, f := range schemaFindings(t, release, objects) {
			at := fmt.Sprintf("%s %s/%s %s", f.Object.Kind, f.Object.Namespace, f.Object.Name, f.Object.APIVersion)
			out[at] = append(out[at], f)
		}
	}
	return out
}

// schemaFindings returns the findings of the schema rules on objects that the entry point of a tree applies.
func schemaFindings(t *testing.T, release string, objects []*unstructured.Unstructured) []report.Finding {
	t.Helper()
	dir := t.TempDir()
	namespace := "apiVersion: v1\nkind: Namespace\nmetadata: {name: flux-system}\n"
	if release != "" {
		namespace = "# Flux Version: v" + release + ".0\n" + namespace
	}
	if err := os.MkdirAll(filepath.Join(dir, "cluster"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cluster", "gotk-components.yaml"), []byte(namespace), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, o := range objects {
		write(t, filepath.Join(dir, "cluster", fmt.Sprintf("%d.yaml", i)), o)
	}
	result, err := check.Run(t.Context(), check.Options{Input: check.Input{Path: dir, EntryPoints: []string{"cluster"}}})
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(result.Findings, func(f report.Finding) bool {
		return !strings.HasPrefix(f.ID, "SC") || f.Kustomization != "flux-system/flux-system"
	})
}

func reference(o *unstructured.Unstructured) string {
	return fmt.Sprintf("%s %s/%s %s", o.GetKind(), o.GetNamespace(), o.GetName(), o.GetAPIVersion())
}

func summaries(list []report.Finding) (out []string) {
	for _, f := range list {
		out = append(out, f.ID+" "+f.Path+": "+f.Message)
	}
	return out
}

func text(t *testing.T, o any) []byte {
	t.Helper()
	data, err := yaml.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, file string, o any) {
	t.Helper()
	if err := os.WriteFile(file, text(t, o), 0o600); err != nil {
		t.Fatal(err)
	}
}
