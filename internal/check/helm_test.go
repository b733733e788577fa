package check

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/chartutil"
	"github.com/go-logr/logr"
	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	componentversion "k8s.io/component-base/version"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/helmrelease"
)

var updateHelm = flag.Bool("update-helm", false, "template the releases of the built-in tree with Helm, and record the result")

// TestReleases_SameAsHelm compares the releases of a small tree with what Helm's own installation, a dry run, has recorded.
func TestReleases_SameAsHelm(t *testing.T) {
	dir := filepath.Join("testdata", "releases")
	recorded := filepath.Join("testdata", "releases.helm.json")
	helm := &helm{recorded: map[string][]map[string]any{}}
	if *updateHelm {
		helm = buildHelm(t)
	} else {
		data, err := os.ReadFile(recorded)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &helm.recorded); err != nil {
			t.Fatal(err)
		}
	}
	got := sameAsHelm(t, helm, Input{Path: dir})
	if *updateHelm {
		data, err := json.MarshalIndent(helm.recorded, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(recorded, append(data, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if want := (comparison{equal: 3, failing: 2}); got.counts() != want.counts() {
		t.Errorf("compared %s, want %s", got.counts(), want.counts())
	}
}

// TestReleases_SameAsHelmInTrees compares the releases of the trees in the directories that FLUX_ADMISSION_TREES names, with charts of the trees and of the
// directories in FLUX_ADMISSION_CHARTS, both separated by commas.
func TestReleases_SameAsHelmInTrees(t *testing.T) {
	trees := os.Getenv("FLUX_ADMISSION_TREES")
	if trees == "" {
		t.Skip("FLUX_ADMISSION_TREES names no directories; TestReleases_SameAsHelm compares a small tree")
	}
	var charts []string
	if dirs := os.Getenv("FLUX_ADMISSION_CHARTS"); dirs != "" {
		charts = strings.Split(dirs, ",")
	}
	helm := buildHelm(t)
	var all comparison
	for dir := range strings.SplitSeq(trees, ",") {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			got := sameAsHelm(t, helm, Input{Path: dir, Charts: charts})
			t.Log(got.counts())
			all.add(got)
		})
	}
	t.Logf("all: %s", all.counts())
	if all.equal == 0 {
		t.Error("no release is equal")
	}
}

// comparison counts the releases of a tree.
type comparison struct {
	// equal are templated alike, failing fail in both, random differ between two runs of Helm. Unknown have no chart here, or values that are not in Git.
	equal, different, failing, random, unknown int
}

func (c *comparison) counts() string {
	return fmt.Sprintf("%d releases equal, %d different, %d fail in both, %d random, %d without chart or values",
		c.equal, c.different, c.failing, c.random, c.unknown)
}

func (c *comparison) add(o comparison) {
	c.equal, c.different, c.failing, c.random, c.unknown =
		c.equal+o.equal, c.different+o.different, c.failing+o.failing, c.random+o.random, c.unknown+o.unknown
}

// helm templates charts with Helm.
type helm struct {
	program string
	// recorded are the objects of releases, by namespace and name; those that Helm cannot template have none.
	recorded map[string][]map[string]any
}

// buildHelm builds the program that calls Helm's own installation.
func buildHelm(t *testing.T) *helm {
	t.Helper()
	h := &helm{program: filepath.Join(t.TempDir(), "helmtemplate"), recorded: map[string][]map[string]any{}}
	c := exec.CommandContext(t.Context(), "go", "build", "-C", filepath.Join("..", "tools", "helmtemplate"), "-o", h.program, ".")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return h
}

// template returns what Helm templates for a release; an error if Helm cannot.
func (h *helm) template(t *testing.T, release *Release, chart string, values map[string]any) ([]map[string]any, error) {
	t.Helper()
	id := release.Key().String()
	if h.program == "" {
		if out := h.recorded[id]; out != nil {
			return out, nil
		}
		return nil, errors.New("recorded as failing")
	}
	data, err := yaml.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-json", "-name", installedName(release), "-namespace", release.Namespace}
	install, _, _ := unstructured.NestedMap(release.Object.Object, "spec", "install")
	if install["skipCRDs"] == true || install["crds"] == "Skip" {
		args = append(args, "-skip-crds")
	}
	if install["disableSchemaValidation"] == true {
		args = append(args, "-skip-schema")
	}
	run := func(more ...string) (stdout []byte, stderr string, err error) {
		c := exec.CommandContext(t.Context(), h.program, slices.Concat(args, more, []string{chart, componentversion.DefaultKubeBinaryVersion, file})...)
		var text bytes.Buffer
		c.Stderr = &text
		stdout, err = c.Output()
		return stdout, text.String(), err
	}
	lines, stderr, err := run()
	if err != nil && strings.Contains(stderr, "failing loading") { // a schema refers to one on the network, which the program does not fetch
		lines, stderr, err = run("-skip-schema")
	}
	if err != nil {
		h.recorded[id] = nil
		return nil, fmt.Errorf("%w: %s", err, stderr)
	}
	out := []map[string]any{}
	for line := range bytes.Lines(lines) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var o map[string]any
		if err := json.Unmarshal(line, &o); err != nil {
			t.Fatal(err)
		}
		out = append(out, o)
	}
	h.recorded[id] = out
	return out, nil
}

// installedName returns the name of the Helm release: spec.releaseName, or the name of the object after its target namespace, if it has one.
func installedName(r *Release) string {
	target, _, _ := unstructured.NestedString(r.Object.Object, "spec", "targetNamespace")
	name, _, _ := unstructured.NestedString(r.Object.Object, "spec", "releaseName")
	return cmp.Or(name, strings.TrimPrefix(target+"-"+r.GetName(), "-"))
}

// sameAsHelm compares the releases of all clusters of a tree with what Helm templates. Values are composed by Flux's library, and the post-renderers
// and common metadata of releases are applied to both.
func sameAsHelm(t *testing.T, h *helm, in Input) (out comparison) {
	t.Helper()
	tree, err := Load(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	dirs := chartDirs(t, append([]string{in.Path}, in.Charts...))
	for _, c := range tree.Clusters() {
		releases, err := tree.Releases(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		look := c.Lookup(tree.chartsOf(c))
		for _, r := range releases {
			ref, _ := helmrelease.ChartRef(r.Unstructured)
			chart, presence, _ := look.Chart(t.Context(), ref)
			if presence != validators.Present || len(ref.ValuesFiles) > 0 {
				out.unknown++
				continue
			}
			dir := dirs[chart.Name()+" "+chart.Version()]
			if ref.Chart != "" && ref.Source.Kind != "HelmRepository" {
				dir = filepath.Join(in.Path, ref.Chart)
			}
			values, err := composed(t, c, r)
			if err != nil || dir == "" {
				out.unknown++
				continue
			}
			want, helmErr := h.template(t, r, dir, values)
			switch {
			case helmErr != nil && r.Err != nil:
				out.failing++
				continue
			case helmErr != nil:
				out.different++
				t.Errorf("%s: Helm fails, and the program does not: %v", r.Key(), helmErr)
				continue
			case r.Err != nil:
				out.different++
				t.Errorf("%s: Helm does not fail, and the program does: %v", r.Key(), r.Err)
				continue
			}
			var objects []*unstructured.Unstructured
			for _, o := range want {
				objects = append(objects, &unstructured.Unstructured{Object: o})
			}
			if objects, err = finishRelease(r.Unstructured, objects); err != nil {
				t.Errorf("%s: %v", r.Key(), err)
				continue
			}
			diff := gocmp.Diff(sorted(t, objects), sorted(t, r.Manifests))
			if diff == "" {
				out.equal++
				continue
			}
			if again, err := h.template(t, r, dir, values); err == nil && h.program != "" && !gocmp.Equal(again, want) {
				out.random++
				continue
			}
			out.different++
			t.Errorf("%s (chart %s %s): objects (-Helm +program):\n%.3000s", r.Key(), chart.Name(), chart.Version(), diff)
		}
	}
	return out
}

// composed returns the values of a release as Flux composes them.
func composed(t *testing.T, c *kustomization.Cluster, r *Release) (map[string]any, error) {
	t.Helper()
	var inputs []runtime.Object
	for _, o := range c.Objects {
		if gvk := o.GroupVersionKind(); gvk.Group != "" || gvk.Kind != "ConfigMap" && gvk.Kind != "Secret" {
			continue
		}
		if o.Encrypted || o.GetNamespace() != r.GetNamespace() || slices.ContainsFunc(inputs, func(known runtime.Object) bool {
			k, _ := known.(*unstructured.Unstructured)
			return k.GetKind() == o.GetKind() && k.GetName() == o.GetName()
		}) {
			continue
		}
		inputs = append(inputs, stored(o.Unstructured))
	}
	spec, _ := r.Object.Object["spec"].(map[string]any)
	inline, _ := spec["values"].(map[string]any)
	var refs []meta.ValuesReference
	data, err := json.Marshal(spec["valuesFrom"])
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &refs); err != nil {
		return nil, err
	}
	return chartutil.ChartValuesFromReferences(t.Context(), logr.Discard(), fake.NewClientBuilder().WithRuntimeObjects(inputs...).Build(),
		r.GetNamespace(), runtime.DeepCopyJSON(inline), refs...)
}

// stored returns a ConfigMap or Secret as the API server stores it: with the fields of stringData in data.
func stored(o *unstructured.Unstructured) *unstructured.Unstructured {
	text, _, _ := unstructured.NestedStringMap(o.Object, "stringData")
	if len(text) == 0 {
		return o
	}
	out := o.DeepCopy()
	unstructured.RemoveNestedField(out.Object, "stringData")
	data, _ := out.Object["data"].(map[string]any)
	if data == nil {
		data = map[string]any{}
	}
	for key, value := range text {
		data[key] = base64.StdEncoding.EncodeToString([]byte(value))
	}
	out.Object["data"] = data
	return out
}

// chartDirs returns the directories with charts below others, by name and version.
func chartDirs(t *testing.T, roots []string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, root := range roots {
		err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() != "Chart.yaml" || regexp.MustCompile(`/charts/[^/]+/charts/`).MatchString(p) {
				return err
			}
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			var chart struct{ Name, Version string }
			if yaml.Unmarshal(data, &chart) == nil && out[chart.Name+" "+chart.Version] == "" {
				out[chart.Name+" "+chart.Version] = filepath.Dir(p)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// sorted returns objects as JSON, sorted.
func sorted(t *testing.T, objects []*unstructured.Unstructured) []string {
	t.Helper()
	out := make([]string, 0, len(objects))
	for _, o := range objects {
		data, err := json.MarshalIndent(o.Object, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(data))
	}
	slices.Sort(out)
	return out
}
