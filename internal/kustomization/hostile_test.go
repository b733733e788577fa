package kustomization

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
)

const gotkSync = `apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: flux-system, namespace: flux-system}
spec: {url: https://example.com/fleet.git}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 10m, path: ./flux, prune: true, sourceRef: {kind: GitRepository, name: flux-system}}
`

// app writes an entry point and one Kustomization that builds ./app; spec is added to its spec.
func app(t testing.TB, spec string) string {
	t.Helper()
	root := t.TempDir()
	write(t, root, "flux/gotk-sync.yaml", gotkSync)
	write(t, root, "flux/app.yaml", `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: app, namespace: flux-system}
spec:
  interval: 10m
  path: ./app
  prune: true
  sourceRef: {kind: GitRepository, name: flux-system}
`+spec)
	return root
}

// configMap returns a minimal object.
func configMap(name string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + ", namespace: default}\n"
}

// bomb returns a document whose aliases expand to ten to the ninth values.
func bomb() string {
	var b strings.Builder
	b.WriteString(configMap("bomb") + "data:\n  a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 9 {
		fmt.Fprintf(&b, "  a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 10), ","))
	}
	return b.String()
}

func TestBuild_HostileTrees(t *testing.T) {
	for name, tc := range map[string]struct {
		spec  string
		files map[string]string
		links map[string]string
		want  []string // problems of the Kustomization app, or of files
	}{
		"a link out of the tree is not followed": {
			files: map[string]string{"app/kustomization.yaml": "resources: [secret.yaml, etc]\n"},
			links: map[string]string{"app/secret.yaml": "/etc/passwd", "app/etc": "../../../../../../etc"},
			want: []string{
				"app/kustomization.yaml:1:13: the build fails: kustomization.yaml lists secret.yaml, but app/secret.yaml is a symbolic link to /etc/passwd, which Flux leaves out of the artifact",
				"app/kustomization.yaml:1:26: the build fails: kustomization.yaml lists etc, but app/etc is a symbolic link to ../../../../../../etc, which Flux leaves out of the artifact",
			},
		},
		"a loop of links is not followed": {
			files: map[string]string{"app/a.yaml": configMap("a")},
			links: map[string]string{"app/loop": ".", "app/self": "self"},
		},
		"a path out of the tree": {
			files: map[string]string{"app/kustomization.yaml": "resources: [../../../../etc/passwd, /etc/hosts]\n"},
			want: []string{
				"app/kustomization.yaml:1:13: the build fails: kustomization.yaml lists ../../../../etc/passwd, but ../../../etc/passwd is outside of the tree",
				"app/kustomization.yaml:1:37: the build fails: kustomization.yaml lists /etc/hosts, but etc/hosts is not in the tree",
			},
		},
		"a file that is too large": {
			files: map[string]string{"app/large.yaml": configMap("a") + strings.Repeat("# filler\n", 1<<20)},
			want: []string{
				"app/large.yaml: the file was not read: it is larger than 8388608 bytes",
				"app/large.yaml: the build fails: the file was not read: it is larger than 8388608 bytes",
			},
		},
		"aliases that expand beyond the limit in a resource": {
			files: map[string]string{"app/kustomization.yaml": "resources: [bomb.yaml, a.yaml]\n", "app/bomb.yaml": bomb(), "app/a.yaml": configMap("a")},
			want: []string{
				"app/bomb.yaml: the file was not read: its values are more than 2000000 once its aliases are expanded",
				"app/bomb.yaml: the build fails: the file was not read: its values are more than 2000000 once its aliases are expanded",
			},
		},
		"aliases that expand beyond the limit in a file without a YAML name": {
			files: map[string]string{"app/kustomization.yaml": "resources: [bomb.txt]\n", "app/bomb.txt": bomb()},
			want:  []string{"app/bomb.txt: the build fails: the file was not read: its values are more than 2000000 once its aliases are expanded"},
		},
		"aliases that expand beyond the limit in a patch of the spec": {
			spec:  "  patches:\n    - patch: |\n" + indent(bomb(), 8),
			files: map[string]string{"app/a.yaml": configMap("a")},
			want:  []string{"app/kustomization.yaml: a patch was not read: its values are more than 2000000 once its aliases are expanded"},
		},
		"an alias that contains itself": {
			files: map[string]string{"app/a.yaml": "a: &a [*a]\n"},
			want: []string{
				"app/a.yaml: the file was not read: the alias *a at line 1 contains itself",
				"app/a.yaml: the build fails: the file was not read: the alias *a at line 1 contains itself",
			},
		},
		"deep nesting": {
			files: map[string]string{"app/a.yaml": "a: " + strings.Repeat("[", 1000) + strings.Repeat("]", 1000)},
			want: []string{
				"app/a.yaml: the file was not read: its values are nested more than 200 deep, at line 1",
				"app/a.yaml: the build fails: the file was not read: its values are nested more than 200 deep, at line 1",
			},
		},
		"binary and text that is not UTF-8": {
			files: map[string]string{"app/a.yaml": "a: \x00\x01", "app/b.yaml": "a: b\nc: \xff\xfe\xfd\n"},
			want: []string{
				"app/a.yaml:1:1: the file is binary, not YAML",
				"app/b.yaml:2:1: the text is not UTF-8",
				"app/a.yaml:1:1: the build fails: the file is binary, not YAML",
			},
		},
		"a remote file of a generator is not fetched": {
			files: map[string]string{
				"app/kustomization.yaml": "resources: [a.yaml]\nconfigMapGenerator:\n- name: b\n  files: [x=https://192.0.2.1/x]\n",
				"app/a.yaml":             configMap("a"),
			},
			want: []string{"app/kustomization.yaml:4:13: cannot determine the content of the ConfigMap b: https://192.0.2.1/x is outside of the tree; --allow-remote-bases fetches it"},
		},
		"a remote file of a transformer is not fetched": {
			files: map[string]string{
				"app/kustomization.yaml": "resources: [a.yaml]\ntransformers: [t.yaml]\n",
				"app/a.yaml":             configMap("a"),
				"app/t.yaml":             "apiVersion: builtin\nkind: PatchTransformer\nmetadata: {name: t}\npath: https://192.0.2.1/x\n",
			},
			want: []string{"app/kustomization.yaml: not evaluated: kustomization.yaml refers to something outside of the tree (in the configuration of a generator or transformer)"},
		},
		"a local directory with the name of a repository": {
			files: map[string]string{
				"app/kustomization.yaml":                     "resources: [github.com/org/repo]\n",
				"app/github.com/org/repo/kustomization.yaml": "resources: [a.yaml]\n",
				"app/github.com/org/repo/a.yaml":             configMap("a"),
			},
			want: []string{"app/kustomization.yaml:1:13: the remote resource github.com/org/repo was not evaluated; --allow-remote-bases fetches it"},
		},
		"Helm charts are not run": {
			files: map[string]string{"app/kustomization.yaml": "helmCharts: [{name: a, repo: https://192.0.2.1}]\n"},
			want:  []string{"app/kustomization.yaml:1:1: the build fails: helmCharts need kustomize's Helm support, which Flux does not enable; use a HelmRelease"},
		},
		"a base that doubles at every step": {
			files: doubling(20),
			want:  []string{"app/kustomization.yaml: not built: the build exceeds the limit of 5000 objects"},
		},
		"directories that include each other": {
			files: map[string]string{"app/kustomization.yaml": "resources: [sub]\n", "app/sub/kustomization.yaml": "resources: [../../app]\n"},
			want:  []string{"app/sub/kustomization.yaml:1:1: the build fails: the directories include each other: candidate root '/app' contains visited root '/app/sub'"},
		},
		"a variable that makes an object too large": {
			spec:  "  postBuild: {substitute: {A: " + strings.Repeat("a", 1<<20) + "}}\n",
			files: map[string]string{"app/a.yaml": configMap("a") + "data: {a: \"" + strings.Repeat("${A}", 100) + "\"}\n"},
			want:  []string{"app/a.yaml:1:1: ConfigMap default/a: the object would be larger than 33554432 bytes after substitution"},
		},
		"more dollar signs than a recursive parser can take": {
			spec:  "  postBuild: {substitute: {A: a}}\n",
			files: map[string]string{"app/a.yaml": configMap("a") + "data: {a: \"" + strings.Repeat("${A}", 100_000) + "\"}\n"},
			want:  []string{"app/a.yaml:1:1: ConfigMap default/a: the object is too large for substitution (400084 bytes, 100000 dollar signs)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := app(t, tc.spec)
			for f, text := range tc.files {
				write(t, root, f, text)
			}
			for l, target := range tc.links {
				if err := os.Symlink(target, filepath.Join(root, l)); err != nil {
					t.Fatal(err)
				}
			}
			res, err := Build(t.Context(), Options{Root: root})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range res.Problems {
				got = append(got, p.String())
			}
			for _, k := range res.Clusters[0].Kustomizations {
				for _, p := range k.Problems {
					got = append(got, p.String())
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func indent(text string, n int) string {
	return strings.ReplaceAll(strings.Repeat(" ", n)+strings.TrimSpace(text), "\n", "\n"+strings.Repeat(" ", n)) + "\n"
}

// doubling returns a chain of directories, each of which includes the next one twice, under two names.
func doubling(n int) map[string]string {
	files := map[string]string{"app/kustomization.yaml": "resources: [../d0]\n", fmt.Sprintf("d%d/kustomization.yaml", n): "resources: [a.yaml]\n", fmt.Sprintf("d%d/a.yaml", n): configMap("a")}
	for i := range n {
		files[fmt.Sprintf("d%d/kustomization.yaml", i)] = "resources: [left, right]\n"
		for _, side := range []string{"left", "right"} {
			files[fmt.Sprintf("d%d/%s/kustomization.yaml", i, side)] = fmt.Sprintf("resources: [../../d%d]\nnamePrefix: %s-\n", i+1, side)
		}
	}
	return files
}

func TestBuild_ManyFiles(t *testing.T) {
	root := app(t, "")
	const n = 10_000
	for i := range n {
		write(t, root, fmt.Sprintf("app/%d.yaml", i), configMap(fmt.Sprintf("c-%d", i)))
	}
	res, err := Build(t.Context(), Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	k := res.Clusters[0].Kustomizations[1]
	if len(k.Problems) != 1 || k.Problems[0].Message != "not built: the build exceeds the limit of 5000 objects" {
		t.Errorf("problems %v, want one on the number of objects", k.Problems)
	}
	plain, err := ReadManifests(t.Context(), filepath.Join(root, "app"), sourcetree.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if got := len(plain.Clusters[0].Objects); got != n {
		t.Errorf("%d plain objects, want %d", got, n)
	}
	_, err = Build(t.Context(), Options{Root: root, Limits: sourcetree.Limits{Files: 100}})
	if err == nil || !strings.HasSuffix(err.Error(), "more than 100 files: point at a smaller tree or raise the limit") {
		t.Errorf("error %v, want one on the number of files", err)
	}
}

func TestBuild_NoMessageQuotesSecret(t *testing.T) {
	const secret = "hunter2"
	for name, files := range map[string]map[string]string{
		"a literal without a key": {"app/kustomization.yaml": "secretGenerator: [{name: s, literals: [" + secret + "]}]\n"},
		"a generator that fails":  {"app/kustomization.yaml": "secretGenerator: [{name: s, literals: [a=" + secret + "], files: [nowhere]}]\n"},
		"an inline patch that is not a patch": {"app/kustomization.yaml": "resources: [a.yaml]\npatches:\n- patch: '{\"x\": \"" + secret + "\"'\n",
			"app/a.yaml": configMap("a")},
		"a Secret that is not an object": {"app/kustomization.yaml": "resources: [a.yaml]\n", "app/a.yaml": "kind: Secret\ndata: " + secret + "\n"},
		"a Secret with a key that is not a string": {"app/kustomization.yaml": "resources: [a.yaml]\n",
			"app/a.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {? {a: " + secret + "} : b}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			root := app(t, "")
			for f, text := range files {
				write(t, root, f, text)
			}
			res, err := Build(t.Context(), Options{Root: root})
			if err != nil {
				t.Fatal(err)
			}
			problems := res.Clusters[0].Kustomizations[1].Problems
			if len(problems) == 0 {
				t.Fatal("no problem")
			}
			for _, p := range problems {
				if text := p.String() + p.Detail; strings.Contains(text, secret) {
					t.Errorf("quoted: %s", text)
				}
			}
		})
	}
}

func TestBuild_ContextCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(ctx, Options{Root: app(t, "")}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
}

func TestBuild_OpenAPIIsolated(t *testing.T) {
	root := app(t, "")
	write(t, root, "app/kustomization.yaml", "resources: [w.yaml]\nopenapi: {path: schema.json}\npatches: [{path: p.yaml}]\n")
	write(t, root, "app/schema.json", `{"definitions": {"v1.Widget": {"type": "object", "properties": {"items": {"type": "array", "items": {"type": "object"},
		"x-kubernetes-patch-merge-key": "name", "x-kubernetes-patch-strategy": "merge"}},
		"x-kubernetes-group-version-kind": [{"group": "example.com", "kind": "Widget", "version": "v1"}]}}}`)
	const widget = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w, namespace: default}\n"
	for _, dir := range []string{"app", "other"} {
		write(t, root, dir+"/w.yaml", widget+"items: [{name: a, x: 1}]\n")
		write(t, root, dir+"/p.yaml", widget+"items: [{name: b, y: 2}]\n")
	}
	write(t, root, "other/kustomization.yaml", "resources: [w.yaml]\npatches: [{path: p.yaml}]\n")
	write(t, root, "flux/other.yaml", `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: other, namespace: flux-system}
spec: {interval: 10m, path: ./other, prune: true, sourceRef: {kind: GitRepository, name: flux-system}}
`)
	for range 3 {
		res, err := Build(t.Context(), Options{Root: root})
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range res.Clusters[0].Kustomizations[1:] {
			want := map[string]int{"app": 2, "other": 1}[k.Key.Name]
			if len(k.Objects) != 1 {
				t.Fatalf("%s: %v", k.Key, k.Problems)
			}
			if items, _ := k.Objects[0].Object["items"].([]any); len(items) != want {
				t.Errorf("%s: %d items, want %d", k.Key, len(items), want)
			}
		}
	}
}
