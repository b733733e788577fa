package kustomization

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

const fromElsewhere = `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: %NAME%, namespace: flux-system}
spec:
  interval: 10m
  path: ./deploy
  prune: true
  sourceRef: {kind: OCIRepository, name: elsewhere}
`

func TestBuild_MappedSources(t *testing.T) {
	other := t.TempDir()
	write(t, other, "deploy/config.yaml", configMap("from-elsewhere"))
	for name, key := range map[string]string{
		"by name":                     "elsewhere",
		"by namespace and name":       "flux-system/elsewhere",
		"by kind, namespace and name": "OCIRepository/flux-system/elsewhere",
	} {
		t.Run(name, func(t *testing.T) {
			root := app(t, "")
			write(t, root, "app/a.yaml", configMap("a"))
			write(t, root, "flux/elsewhere.yaml", strings.ReplaceAll(fromElsewhere, "%NAME%", "elsewhere"))
			res, err := Build(t.Context(), Options{Root: root, Sources: map[string]string{key: other}})
			if err != nil {
				t.Fatal(err)
			}
			k := res.Clusters[0].Kustomization(types.NamespacedName{Namespace: "flux-system", Name: "elsewhere"})
			if k.State != Built || len(k.Objects) != 1 {
				t.Fatalf("%s with %d objects, %v", k.State, len(k.Objects), k.Problems)
			}
			if got, want := k.Objects[0].Locate(nil).Position.String(), key+":deploy/config.yaml:1:1"; got != want {
				t.Errorf("position %s, want %s", got, want)
			}
		})
	}
	_, err := Build(t.Context(), Options{Root: app(t, ""), Sources: map[string]string{"elsewhere": filepath.Join(other, "nowhere")}})
	if err == nil || !strings.HasPrefix(err.Error(), "source elsewhere: opening the tree: ") {
		t.Errorf("error %v, want one on the source's directory", err)
	}
}

func TestBuild_SourceInTree(t *testing.T) {
	for name, tc := range map[string]struct {
		url  string
		want State
	}{
		"the repository of the tree":      {"ssh://git@example.com/fleet", Built},
		"another repository":              {"https://example.com/other.git", Unknown},
		"a repository with a longer name": {"https://example.com/fleet-2.git", Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			root := app(t, "")
			write(t, root, "app/a.yaml", configMap("a"))
			write(t, root, "deploy/a.yaml", configMap("b"))
			write(t, root, "flux/elsewhere.yaml", strings.ReplaceAll(fromElsewhere, "%NAME%", "second")+
				"---\napiVersion: source.toolkit.fluxcd.io/v1\nkind: OCIRepository\nmetadata: {name: elsewhere, namespace: flux-system}\nspec: {url: \""+tc.url+"\"}\n")
			res, err := Build(t.Context(), Options{Root: root})
			if err != nil {
				t.Fatal(err)
			}
			k := res.Clusters[0].Kustomization(types.NamespacedName{Namespace: "flux-system", Name: "second"})
			if k.State != tc.want {
				t.Errorf("state %s, want %s; %v", k.State, tc.want, k.Problems)
			}
		})
	}
}

func TestBuild_GivenEntryPoints(t *testing.T) {
	root := t.TempDir()
	write(t, root, "clusters/one/app.yaml", strings.ReplaceAll(fromElsewhere, "%NAME%", "app"))
	write(t, root, "deploy/a.yaml", configMap("a"))
	res, err := Build(t.Context(), Options{Root: root, EntryPoints: []string{"./clusters/one/"}})
	if err != nil {
		t.Fatal(err)
	}
	c := res.Clusters[0]
	if k := c.Kustomization(types.NamespacedName{Namespace: "flux-system", Name: "app"}); k == nil || k.State != Built {
		t.Errorf("the source of the first Kustomization is not the tree: %+v", k)
	}
	for _, o := range c.Objects {
		if o.Origin.Synthesized && o.GetKind() == "Kustomization" {
			t.Error("a directory creates a Kustomization that is in no file")
		}
	}
	_, err = Build(t.Context(), Options{Root: root, EntryPoints: []string{"cluster/one"}})
	if want := "entry point cluster/one: cluster/one is not in the tree; did you mean clusters/one?"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestBuild_EntryPointMissing(t *testing.T) {
	root := t.TempDir()
	write(t, root, "instance.yaml", `apiVersion: fluxcd.controlplane.io/v1
kind: FluxInstance
metadata: {name: flux, namespace: flux-system}
spec: {sync: {kind: GitRepository, url: https://example.com/fleet.git, path: cluster/prod}}
`)
	write(t, root, "clusters/prod/a.yaml", configMap("a"))
	write(t, root, "clusters/dev/gotk-sync.yaml", strings.ReplaceAll(gotkSync, "./flux", "clusters/dev"))
	res, err := Build(t.Context(), Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Clusters) != 1 || len(res.Problems) != 1 {
		t.Fatalf("%d clusters, problems %v", len(res.Clusters), res.Problems)
	}
	p := res.Problems[0]
	if got, want := p.String()+" suggestion "+p.Suggestion, "instance.yaml:1:1: the FluxInstance syncs the path cluster/prod, but cluster/prod is not in the tree suggestion clusters/prod"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestBuild_GivenVariables(t *testing.T) {
	root := app(t, "  postBuild: {substituteFrom: [{kind: Secret, name: by-hand}]}\n")
	write(t, root, "app/a.yaml", configMap("a")+"data: {a: \"${GIVEN}\", b: \"${OTHER}\"}\n")
	res, err := Build(t.Context(), Options{Root: root, Variables: map[string]string{"GIVEN": "value"}})
	if err != nil {
		t.Fatal(err)
	}
	k := res.Clusters[0].Kustomizations[1]
	data, _ := k.Objects[0].Object["data"].(map[string]any)
	if k.State != Built || data["a"] != "value" || data["b"] != "${OTHER}" {
		t.Errorf("%s, data %v, problems %v", k.State, data, k.Problems)
	}
	if len(k.MissingVariables) != 1 || k.MissingVariables[0] != (validators.ObjectRef{Kind: "Secret", Namespace: "flux-system", Name: "by-hand"}) {
		t.Errorf("missing %v, want the Secret", k.MissingVariables)
	}
}

func TestCluster_Lookup(t *testing.T) {
	root := app(t, "")
	write(t, root, "flux/secret.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: flux-system}\nsops: {mac: x}\n")
	write(t, root, "app/a.yaml", configMap("a"))
	res, err := Build(t.Context(), Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	write(t, root, "app/kustomization.yaml", "resources: [a.yaml, https://192.0.2.1/x.yaml]\n")
	partial, err := Build(t.Context(), Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	write(t, root, "app/kustomization.yaml", "resources: [a.yaml, a.yaml]\n")
	broken, err := Build(t.Context(), Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	into := app(t, "  targetNamespace: apps\n")
	write(t, into, "app/kustomization.yaml", "resources: [https://192.0.2.1/x.yaml]\n")
	confined, err := Build(t.Context(), Options{Root: into})
	if err != nil {
		t.Fatal(err)
	}
	kustomization := schema.GroupKind{Group: flux.Kustomization.Group, Kind: "Kustomization"}
	for name, tc := range map[string]struct {
		res             *Result
		gk              schema.GroupKind
		namespace, name string
		want            validators.Presence
		reason          string
	}{
		"an object that is applied":                        {res, schema.GroupKind{Kind: "ConfigMap"}, "default", "a", validators.Present, ""},
		"one that is not there":                            {res, schema.GroupKind{Kind: "ConfigMap"}, "default", "b", validators.Absent, ""},
		"one that is encrypted":                            {res, schema.GroupKind{Kind: "Secret"}, "flux-system", "s", validators.Unknown, "Secret flux-system/s: encrypted with SOPS"},
		"one that a remote resource may bring":             {partial, schema.GroupKind{Kind: "ConfigMap"}, "default", "b", validators.Unknown, "ConfigMap default/b: it may be among 1 remote resources that were not evaluated"},
		"one where remote resources are put":               {confined, schema.GroupKind{Kind: "ConfigMap"}, "apps", "b", validators.Unknown, "ConfigMap apps/b: it may be among 1 remote resources that were not evaluated"},
		"one where no remote resource is put":              {confined, schema.GroupKind{Kind: "ConfigMap"}, "default", "b", validators.Absent, ""},
		"a Kustomization, which remote resources are not":  {partial, kustomization, "flux-system", "b", validators.Absent, ""},
		"a Kustomization where one could not be built":     {broken, kustomization, "flux-system", "b", validators.Unknown, "Kustomization flux-system/b: not among the objects given"},
		"the source that the entry point brings":           {res, schema.GroupKind{Group: flux.GitRepository.Group, Kind: "GitRepository"}, "flux-system", "flux-system", validators.Present, ""},
		"the Kustomization that the entry point begins at": {res, kustomization, "flux-system", "flux-system", validators.Present, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, got, err := tc.res.Clusters[0].Lookup(nil).Get(t.Context(), tc.gk, types.NamespacedName{Namespace: tc.namespace, Name: tc.name})
			reason := ""
			if err != nil {
				reason = err.Error()
			}
			if got != tc.want || reason != tc.reason {
				t.Errorf("%s, %q; want %s, %q", got, reason, tc.want, tc.reason)
			}
		})
	}
}

func TestReadManifests(t *testing.T) {
	root := t.TempDir()
	write(t, root, "a.yaml", configMap("a")+"---\n"+configMap("b"))
	write(t, root, "sub/list.yml", "apiVersion: v1\nkind: ConfigMapList\nitems:\n- metadata: {name: c}\n  kind: ConfigMap\n  apiVersion: v1\n")
	write(t, root, "sub/values.yaml", "a: 1\na: 2\n")
	write(t, root, "sub/kustomization.yaml", "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n")
	write(t, root, "chart/Chart.yaml", "name: x\n")
	write(t, root, "chart/templates/a.yaml", "{{ not yaml }}: [\n")
	stream := ParseManifests([]byte(configMap("d")+"---\nx: [\n"), "stdin", sourcetree.Limits{})
	for name, tc := range map[string]struct {
		path string
		res  *Result
		want string
	}{
		"a directory": {path: root, want: "a.yaml:1:1 ConfigMap default/a\na.yaml:5:1 ConfigMap default/b\nsub/list.yml:4:3 ConfigMap c\n" +
			"sub/values.yaml:2:1: duplicate key \"a\"; first defined at line 1"},
		"a file":   {path: filepath.Join(root, "sub/list.yml"), want: filepath.ToSlash(root) + "/sub/list.yml:4:3 ConfigMap c"},
		"a stream": {res: stream, want: "stdin:1:1 ConfigMap default/d\nstdin:5:1: YAML does not parse: did not find expected node content"},
	} {
		t.Run(name, func(t *testing.T) {
			res := tc.res
			if res == nil {
				var err error
				if res, err = ReadManifests(t.Context(), tc.path, sourcetree.Limits{}); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			for _, o := range res.Clusters[0].Objects {
				got = append(got, o.Locate(nil).Position.String()+" "+o.String())
			}
			for _, p := range res.Problems {
				got = append(got, p.String())
			}
			if diff := cmp.Diff(tc.want, strings.Join(got, "\n")); diff != "" {
				t.Errorf("objects and problems (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := ReadManifests(t.Context(), filepath.Join(root, "nope.yaml"), sourcetree.Limits{}); err == nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want one that names the file", err)
	}
}

func TestBuild_RemoteBase(t *testing.T) {
	repo := t.TempDir()
	write(t, repo, "deploy/kustomization.yaml", "resources: [a.yaml]\n")
	write(t, repo, "deploy/a.yaml", configMap("remote"))
	git(t, repo, "init", "-q", "-b", "main")
	git(t, repo, "add", ".")
	git(t, repo, "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "a")
	root := app(t, "")
	write(t, root, "app/kustomization.yaml", "resources:\n- local.yaml\n- file://"+repo+"//deploy?ref=main\n")
	write(t, root, "app/local.yaml", configMap("local"))
	for name, allowed := range map[string]bool{"allowed": true, "not allowed": false} {
		t.Run(name, func(t *testing.T) {
			res, err := Build(t.Context(), Options{Root: root, AllowRemoteBases: allowed})
			if err != nil {
				t.Fatal(err)
			}
			k := res.Clusters[0].Kustomizations[1]
			want := map[bool]string{true: "built 2", false: "partial 1"}[allowed]
			if got := fmt.Sprint(k.State, " ", len(k.Objects)); got != want {
				t.Fatalf("%s, want %s; %v", got, want, k.Problems)
			}
			if got := k.Objects[0].Locate(nil).Position.String(); got != "app/local.yaml:1:1" {
				t.Errorf("the local object is at %s", got)
			}
			if diff := cmp.Diff([]string{"app/kustomization.yaml", "app/local.yaml"}, slices.Sorted(maps.Keys(k.output.Read))); diff != "" {
				t.Errorf("files that the build read (-want +got):\n%s", diff)
			}
		})
	}
}
