package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/kustomization"
)

// fleet has a Kustomization with a target namespace, a variable from Git and one that is not, a Secret, and a release of
// a chart in the tree.
func fleet() map[string]string {
	return map[string]string{
		"clusters/home/flux-system/gotk-sync.yaml": gotkSync,
		"clusters/home/apps.yaml": `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: apps, namespace: flux-system}
spec:
  interval: 10m
  path: ./apps
  prune: true
  targetNamespace: apps
  sourceRef: {kind: GitRepository, name: flux-system}
  postBuild:
    substitute: {DOMAIN: example.com}
    substituteFrom: [{kind: Secret, name: elsewhere}]
`,
		"apps/web.yaml": `apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80}], externalName: "${DOMAIN}/${TOKEN}"}
---
apiVersion: v1
kind: Namespace
metadata: {name: apps}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {password: hunter2}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {template: {spec: {containers: [{name: web, image: "web:1"}]}}}
`,
		"apps/release.yaml": `apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: shop}
spec:
  interval: 1h
  chart: {spec: {chart: ./charts/shop, sourceRef: {kind: GitRepository, name: flux-system, namespace: flux-system}}}
  values: {tag: "2"}
  commonMetadata: {labels: {team: a}}
  postRenderers:
    - kustomize:
        patches:
          - target: {kind: Deployment}
            patch: |
              - op: add
                path: /metadata/annotations
                value: {patched: "yes"}
        images: [{name: shop, newName: mirror/shop}]
`,
		"charts/shop/Chart.yaml":  "apiVersion: v2\nname: shop\nversion: 1.0.0\n",
		"charts/shop/values.yaml": "tag: '1'\n",
		"charts/shop/templates/all.yaml": `apiVersion: apps/v1
kind: Deployment
metadata: {name: "{{ .Release.Name }}", namespace: "{{ .Release.Namespace }}"}
spec: {template: {spec: {containers: [{name: shop, image: "shop:{{ .Values.tag }}"}]}}}
---
apiVersion: v1
kind: Secret
metadata: {name: chart}
stringData: {password: {{ "hunter2" | quote }}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: before, annotations: {helm.sh/hook: pre-install}}
spec: {template: {spec: {containers: [{name: shop, image: "shop:hook"}]}}}
`,
	}
}

// runBuildIn returns what build writes to standard output and standard error.
func runBuildIn(t *testing.T, dir string, o buildOptions, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	if err := o.parse(append(slices.Clone(args), dir)); err != nil {
		t.Fatal(err)
	}
	if charts := filepath.Join(dir, "charts"); len(o.Charts) == 0 && isDir(charts) {
		o.Charts = []string{charts}
	}
	var out, notes bytes.Buffer
	err = runBuild(t.Context(), o, &out, &notes)
	return out.String(), notes.String(), err
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// summaryOf returns "Kind namespace/name" of every object of a List.
func summaryOf(t *testing.T, list string) []string {
	t.Helper()
	var out []string
	for _, o := range items(t, list) {
		out = append(out, o.GetKind()+" "+o.GetNamespace()+"/"+o.GetName())
	}
	return out
}

func items(t *testing.T, list string) []*unstructured.Unstructured {
	t.Helper()
	var decoded struct{ Items []map[string]any }
	if err := json.Unmarshal([]byte(list), &decoded); err != nil {
		t.Fatalf("%v: %s", err, list)
	}
	var out []*unstructured.Unstructured
	for _, item := range decoded.Items {
		out = append(out, &unstructured.Unstructured{Object: item})
	}
	return out
}

func TestBuild_Kustomization(t *testing.T) {
	dir := writeTree(t, fleet())
	out, notes, err := runBuildIn(t, dir, buildOptions{output: "json"}, "ks", "flux-system/apps")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"Namespace /apps", "Secret apps/password", "Service apps/web", "Deployment apps/web", "HelmRelease apps/shop"}
	if diff := cmp.Diff(want, summaryOf(t, out)); diff != "" {
		t.Errorf("objects in the order of Flux (-want +got):\n%s", diff)
	}
	if strings.Contains(out, "hunter2") || !strings.Contains(out, `"password": "***"`) {
		t.Errorf("the Secret is not masked: %s", out)
	}
	if !strings.Contains(out, `"example.com/${TOKEN}"`) || !strings.Contains(notes, "TOKEN") || strings.Contains(notes, "DOMAIN") {
		t.Errorf("the variable without a value is not left and named: %s\n%s", out, notes)
	}
	if out, _, err = runBuildIn(t, dir, buildOptions{output: "json", showsSecrets: true}, "ks", "apps"); err != nil || !strings.Contains(out, "hunter2") {
		t.Errorf("--show-secrets: %v\n%s", err, out)
	}
	out, _, err = runBuildIn(t, dir, buildOptions{output: "json", controllerLabels: true}, "ks", "apps")
	if err != nil || strings.Count(out, `"kustomize.toolkit.fluxcd.io/name": "apps"`) != len(want) {
		t.Errorf("--controller-labels: %v\n%s", err, out)
	}
}

func TestBuild_Release(t *testing.T) {
	dir := writeTree(t, fleet())
	for _, args := range [][]string{{"hr", "apps/shop"}, {"helmrelease", "shop"}} {
		out, _, err := runBuildIn(t, dir, buildOptions{output: "json"}, args...)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"Deployment apps/shop", "Secret /chart", "Deployment /before"}
		if diff := cmp.Diff(want, summaryOf(t, out)); diff != "" {
			t.Errorf("objects of the chart (-want +got):\n%s", diff)
		}
		for _, text := range []string{`"mirror/shop:2"`, `"patched": "yes"`, `"team": "a"`, `"shop:hook"`, `"password": "***"`} {
			if !strings.Contains(out, text) {
				t.Errorf("%s is missing: %s", text, out)
			}
		}
	}
}

func TestBuild_All(t *testing.T) {
	dir := writeTree(t, fleet())
	out, _, err := runBuildIn(t, dir, buildOptions{output: "yaml", helm: true})
	if err != nil {
		t.Fatal(err)
	}
	last := 0
	for _, title := range []string{"# Kustomization flux-system/flux-system\n---\n", "# Kustomization flux-system/apps\n---\n", "# HelmRelease apps/shop\n---\n"} {
		at := strings.Index(out, title)
		if at < last {
			t.Errorf("%q is missing or out of order: %s", title, out)
		}
		last = at
	}
	if strings.Contains(out, "hunter2") {
		t.Error("a Secret is not masked")
	}
}

func TestBuild_Failures(t *testing.T) {
	broken := fleet()
	broken["apps/kustomization.yaml"] = "resources: [web.yaml, gone.yaml]\n"
	unset := fleet()
	unset["clusters/home/apps.yaml"] = strings.Replace(unset["clusters/home/apps.yaml"], "    substituteFrom: [{kind: Secret, name: elsewhere}]\n", "", 1)
	twoClusters := fleet()
	twoClusters["clusters/away/flux-system/gotk-sync.yaml"] = strings.Replace(gotkSync, "clusters/home", "clusters/away", 1)
	twoClusters["clusters/away/apps.yaml"] = twoClusters["clusters/home/apps.yaml"]
	for name, tc := range map[string]struct {
		files         map[string]string
		args          []string
		objects       bool
		findings      bool // exit code 1
		stderr, error string
	}{
		"a Kustomization that Flux cannot build":       {broken, []string{"ks", "apps"}, false, true, "gone.yaml", ""},
		"all, with one that Flux cannot build":         {broken, nil, true, true, "gone.yaml", ""},
		"a variable that Flux requires":                {unset, []string{"ks", "apps"}, true, true, "TOKEN", ""},
		"a name that is not there":                     {fleet(), []string{"ks", "web"}, false, false, "", "Kustomization web is not in the tree"},
		"a name in two clusters":                       {twoClusters, []string{"ks", "flux-system/apps"}, false, false, "", "is in 2 clusters"},
		"a tree without objects":                       {map[string]string{"a.txt": "a"}, nil, false, false, "", "no Kubernetes object was found"},
		"plain manifests without Flux":                 {map[string]string{"a.yaml": fleet()["apps/web.yaml"]}, nil, true, false, "", ""},
		"a release whose chart is not among the files": {map[string]string{"clusters/home/flux-system/gotk-sync.yaml": gotkSync, "clusters/home/r.yaml": strings.ReplaceAll(fleet()["apps/release.yaml"], "name: shop}", "name: shop, namespace: apps}")}, []string{"hr", "apps/shop"}, false, true, "chart", ""},
	} {
		t.Run(name, func(t *testing.T) {
			out, notes, err := runBuildIn(t, writeTree(t, tc.files), buildOptions{output: "yaml"}, tc.args...)
			if errors.Is(err, errFindings) != tc.findings {
				t.Errorf("error %v", err)
			}
			if (tc.error != "") != (err != nil && !tc.findings) || err != nil && !strings.Contains(err.Error(), tc.error) {
				t.Errorf("error %v, want %q", err, tc.error)
			}
			if !strings.Contains(notes, tc.stderr) {
				t.Errorf("standard error has no %q: %s", tc.stderr, notes)
			}
			if strings.Contains(out, "kind: Deployment") != tc.objects && strings.Contains(out, "kind:") != tc.objects {
				t.Errorf("printed: %s", out)
			}
		})
	}
}

func TestBuild_Arguments(t *testing.T) {
	var o buildOptions
	if err := o.parse([]string{"deploy", "web"}); err == nil || !strings.Contains(err.Error(), "ks or hr") {
		t.Errorf("error %v", err)
	}
}

// TestReplay_Build: build prints all that the Kustomizations of the recorded trees build, and nothing else;
// internal/kustomization compares that with Flux's own library.
func TestReplay_Build(t *testing.T) {
	r := newReplay(t)
	for _, tag := range []string{"t-28185b2", "t-1951f73"} {
		dir := r.tree(t, tag)
		out, _, err := runBuildIn(t, dir, buildOptions{output: "json", showsSecrets: true})
		if err != nil && !errors.Is(err, errFindings) {
			t.Fatal(err)
		}
		tree, err := check.Load(t.Context(), check.Input{Path: dir})
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, k := range tree.Built.Clusters[0].Kustomizations {
			if k.State == kustomization.Built || k.State == kustomization.Partial {
				for _, o := range k.Objects {
					want = append(want, text(t, o.Unstructured))
				}
			}
		}
		tree.Close()
		var got []string
		for _, o := range items(t, out) {
			got = append(got, text(t, o))
		}
		slices.Sort(got)
		slices.Sort(want)
		want = slices.DeleteFunc(want, func(s string) bool { return strings.Contains(s, "ENC[") })
		got = slices.DeleteFunc(got, func(s string) bool { return strings.Contains(s, "ENC[") })
		if diff := cmp.Diff(want, got); diff != "" || len(want) < 40 {
			t.Errorf("%s: %d objects (-built +printed):\n%s", tag, len(want), diff)
		}
	}
}

func text(t *testing.T, o *unstructured.Unstructured) string {
	t.Helper()
	data, err := json.Marshal(o.Object)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestGet(t *testing.T) {
	dir := writeTree(t, fleet())
	for name, tc := range map[string]struct {
		what, output, want string
	}{
		"Kustomizations": {"ks", "table", `NAMESPACE     KUSTOMIZATION   PATH            SOURCE                      OBJECTS   STATE   SUSPENDED
flux-system   apps            apps            GitRepository/flux-system   5         built   false
flux-system   flux-system     clusters/home   GitRepository/flux-system   3         built   false
`},
		"releases with all columns": {"hr", "wide", `NAMESPACE   HELMRELEASE   CHART           VERSION   SOURCE                                  SUSPENDED   TARGET   DEPENDS ON   KUSTOMIZATION      FILE
apps        shop          ./charts/shop   -         GitRepository/flux-system/flux-system   false       apps     -            flux-system/apps   apps/release.yaml
`},
		"sources": {"sources", "table", `NAMESPACE     SOURCE                      URL                         REFERENCE   USERS   SUSPENDED
flux-system   GitRepository/flux-system   https://git.example.com/x   -           3       false
`},
		"images, also of charts": {"images", "name", "mirror/shop:2\nshop:hook\nweb:1\n"},
		"names of all kinds": {"all", "name", "Kustomization/flux-system/apps\nKustomization/flux-system/flux-system\n" +
			"HelmRelease/apps/shop\nGitRepository/flux-system/flux-system\nmirror/shop:2\nshop:hook\nweb:1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, notes bytes.Buffer
			what, err := parseWhat(tc.what)
			if err != nil {
				t.Fatal(err)
			}
			if err := runGet(t.Context(), getOptions{
				Input: check.Input{Path: dir, Charts: []string{filepath.Join(dir, "charts")}}, what: what, output: tc.output,
			}, &out, &notes); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, out.String()); diff != "" {
				t.Errorf("list (-want +got):\n%s\n%s", diff, &notes)
			}
		})
	}
}

func TestGet_Structured(t *testing.T) {
	dir := writeTree(t, fleet())
	what, _ := parseWhat("all")
	var asJSON, asYAML bytes.Buffer
	for format, to := range map[string]*bytes.Buffer{"json": &asJSON, "yaml": &asYAML} {
		if err := runGet(t.Context(), getOptions{Input: check.Input{Path: dir}, what: what, output: format}, to, &bytes.Buffer{}); err != nil {
			t.Fatal(err)
		}
	}
	var list map[string][]map[string]any
	if err := json.Unmarshal(asJSON.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"helmReleases", "images", "kustomizations", "sources"}, slices.Sorted(maps.Keys(list))); diff != "" {
		t.Errorf("lists (-want +got):\n%s", diff)
	}
	if list["helmReleases"][0]["file"] != "apps/release.yaml" || !strings.Contains(asYAML.String(), "file: apps/release.yaml") {
		t.Errorf("%v\n%s", list["helmReleases"], &asYAML)
	}
}

func TestGet_Failures(t *testing.T) {
	for name, tc := range map[string]struct{ what, output, dir, want string }{
		"a kind that is not listed":  {"pods", "table", ".", "use ks, hr, sources, images or all"},
		"an unknown format":          {"ks", "csv", ".", "--output"},
		"a tree without any of that": {"hr", "table", writeTree(t, map[string]string{"clusters/home/flux-system/gotk-sync.yaml": gotkSync}), "nothing of that in the tree"},
		"a directory that is not":    {"ks", "table", filepath.Join(t.TempDir(), "gone"), "gone"},
	} {
		t.Run(name, func(t *testing.T) {
			what, err := parseWhat(tc.what)
			if err == nil {
				err = runGet(t.Context(), getOptions{Input: check.Input{Path: tc.dir}, what: what, output: tc.output}, &bytes.Buffer{}, &bytes.Buffer{})
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

// TestGet_Printable: names of a hostile tree do not reach the terminal as they are.
func TestGet_Printable(t *testing.T) {
	files := fleet()
	files["apps/web.yaml"] = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: \"a\\e[2Kb\"}]}\n"
	var out bytes.Buffer
	what, _ := parseWhat("images")
	if err := runGet(t.Context(), getOptions{Input: check.Input{Path: writeTree(t, files)}, what: what, output: "wide"}, &out, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "\x1b") || !strings.Contains(out.String(), "a?[2Kb") {
		t.Errorf("%q", out.String())
	}
}
