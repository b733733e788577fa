package treediff_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/internal/treediff"
)

const sync = `apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 1m, url: https://git.example.com/x}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 10m, path: ./clusters/home, prune: true, sourceRef: {kind: GitRepository, name: flux-system}}
`

// ks returns a Kustomization that applies ./NAME, with further fields of its spec.
func ks(name, fields string) string {
	return "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: " + name + ", namespace: flux-system}\n" +
		"spec: {interval: 10m, path: ./" + name + ", sourceRef: {kind: GitRepository, name: flux-system}" + fields + "}\n"
}

const (
	pruned = ", prune: true"
	web    = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: apps}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - {name: web, image: "web:1", envFrom: [{configMapRef: {name: settings}}]}
`
	claim   = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data, namespace: apps}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 2Gi}}}\n"
	pg      = "apiVersion: postgresql.cnpg.io/v1\nkind: Cluster\nmetadata: {name: pg, namespace: apps}\nspec: {instances: 1, storage: {size: 1Gi}}\n"
	release = `apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: shop, namespace: apps}
spec:
  interval: 1h
  chart: {spec: {chart: shop, sourceRef: {kind: HelmRepository, name: charts}}}
  values: {a: b}
`
)

// tree has the Kustomization app, which applies a Deployment, a claim and others.
func tree() map[string]string {
	return map[string]string{
		"clusters/home/flux-system/gotk-sync.yaml": sync,
		"clusters/home/app.yaml":                   ks("app", pruned),
		"app/web.yaml":                             web,
		"app/claim.yaml":                           claim,
		"app/settings.yaml":                        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: apps}\ndata: {a: b}\n",
		"app/release.yaml":                         release,
	}
}

// with returns files with some of them replaced; an empty text removes one.
func with(files map[string]string, changes ...string) map[string]string {
	out := maps.Clone(files)
	for i := 0; i < len(changes); i += 2 {
		if out[changes[i]] = changes[i+1]; changes[i+1] == "" {
			delete(out, changes[i])
		}
	}
	return out
}

func load(t *testing.T, files map[string]string) *check.Tree {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := check.Load(t.Context(), check.Input{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tree.Close)
	return tree
}

func compare(t *testing.T, before, after map[string]string) *report.Diff {
	t.Helper()
	d, err := treediff.Compare(t.Context(), load(t, before), load(t, after), treediff.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func objectsOf(d *report.Diff) []string {
	var out []string
	for _, o := range d.Objects {
		text := string(o.Change) + " " + o.Object.String()
		if o.From != nil {
			text += " from " + o.From.Namespace
		}
		if o.FromKustomization != "" {
			text += " from " + o.FromKustomization
		}
		for _, f := range o.Fields {
			text += " " + f.Path
		}
		out = append(out, text)
	}
	return out
}

func TestCompare_Objects(t *testing.T) {
	generated := with(tree(), "app/settings.yaml", "", "app/kustomization.yaml",
		"resources: [web.yaml]\nconfigMapGenerator: [{name: settings, namespace: apps, literals: [a=b]}]\n")
	for name, tc := range map[string]struct {
		before, after map[string]string
		want          []string
	}{
		"nothing changes": {tree(), tree(), nil},
		"an object moves to another file": {
			tree(), with(tree(), "app/claim.yaml", "", "app/volumes/claim.yaml", claim), nil,
		},
		"a field changes": {
			tree(), with(tree(), "app/web.yaml", strings.Replace(web, "web:1", "web:2", 1)),
			[]string{"changed Deployment apps/web spec.template.spec.containers[name=web].image"},
		},
		"an object is added and another one removed": {
			tree(), with(tree(), "app/claim.yaml", "", "app/pg.yaml", pg),
			[]string{"added Cluster apps/pg", "removed PersistentVolumeClaim apps/data"},
		},
		"an object moves to another namespace": {
			tree(), with(tree(), "app/claim.yaml", strings.Replace(claim, "namespace: apps", "namespace: other", 1)),
			[]string{"moved PersistentVolumeClaim other/data from apps metadata.namespace"},
		},
		"another Kustomization applies an object": {
			tree(), with(tree(), "app/claim.yaml", "", "clusters/home/data.yaml", ks("data", pruned), "data/claim.yaml", claim),
			[]string{"moved PersistentVolumeClaim apps/data from flux-system/app", "added Kustomization flux-system/data"},
		},
		"the hash of a generated name is left out": {
			generated, with(generated, "app/kustomization.yaml", strings.Replace(generated["app/kustomization.yaml"], "a=b", "a=c", 1)),
			[]string{"changed ConfigMap apps/settings data.a"},
		},
		"a Kustomization that is not built is not compared": {
			tree(), with(tree(), "app/kustomization.yaml", "resources: [gone.yaml]\n"), nil,
		},
		"its repair is compared as far as it is known": {
			with(tree(), "app/kustomization.yaml", "resources: [gone.yaml]\n"), tree(), nil,
		},
		"the parent that is not built hides its children": {
			with(tree(), "clusters/home/kustomization.yaml", "resources: [app.yaml, flux-system/gotk-sync.yaml]\n"),
			with(tree(), "clusters/home/kustomization.yaml", "resources: [gone.yaml]\n"), nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, objectsOf(compare(t, tc.before, tc.after))); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCompare_Effects(t *testing.T) {
	withPG := with(tree(), "app/pg.yaml", pg)
	namespace := with(tree(), "app/namespace.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: apps}\n")
	generated := with(tree(), "app/settings.yaml", "", "app/kustomization.yaml",
		"resources: [web.yaml]\nconfigMapGenerator: [{name: settings, namespace: apps, literals: [a=b]}]\n")
	later := with(tree(), "clusters/home/later.yaml", ks("later", pruned+", dependsOn: [{name: app}]"), "later/pg.yaml", pg)
	for name, tc := range map[string]struct {
		before, after map[string]string
		want          []string // severity kind: part of the message
		not           string   // no effect has this
	}{
		"a claim is pruned": {
			tree(), with(tree(), "app/claim.yaml", ""), []string{"error delete: PersistentVolumeClaim apps/data is deleted: its volume"}, "",
		},
		"a database is pruned": {withPG, tree(), []string{"error delete: Cluster apps/pg is deleted: the operator deletes"}, ""},
		"an object with prune: disabled stays": {
			with(tree(), "app/claim.yaml", strings.Replace(claim, "namespace: apps", "namespace: apps, annotations: {kustomize.toolkit.fluxcd.io/prune: disabled}", 1)),
			with(tree(), "app/claim.yaml", ""), []string{"warning orphan: it has kustomize.toolkit.fluxcd.io/prune: disabled"}, "is deleted",
		},
		"a Kustomization without prune deletes nothing": {
			with(tree(), "clusters/home/app.yaml", ks("app", ", prune: false")), with(tree(), "clusters/home/app.yaml", ks("app", ", prune: false"), "app/claim.yaml", ""),
			[]string{"warning orphan: prune of the Kustomization flux-system/app is false"}, "is deleted",
		},
		"a removed Kustomization deletes what it applied": {
			tree(), with(tree(), "clusters/home/app.yaml", ""),
			[]string{"error delete: PersistentVolumeClaim apps/data", "warning delete: Kustomization flux-system/app is deleted with the 4 objects", "warning delete: HelmRelease apps/shop is deleted: helm-controller uninstalls"}, "",
		},
		"a removed Kustomization without prune deletes nothing": {
			with(tree(), "clusters/home/app.yaml", ks("app", ", prune: false")), with(tree(), "clusters/home/app.yaml", ""),
			[]string{"warning orphan: prune of the Kustomization flux-system/app is false"}, "Claim apps/data is deleted",
		},
		"a removed Kustomization with deletionPolicy Orphan": {
			with(tree(), "clusters/home/app.yaml", ks("app", pruned+", deletionPolicy: Orphan")), with(tree(), "clusters/home/app.yaml", ""),
			[]string{"warning orphan: deletionPolicy of the Kustomization flux-system/app is Orphan"}, "Claim apps/data is deleted",
		},
		"a namespace takes along what is in it": {
			namespace, tree(), []string{"error delete: Namespace apps is deleted with everything in it, also what Flux did not apply; of this tree: "}, "",
		},
		"a CRD takes along its objects": {
			with(withPG, "app/crd.yaml", "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: clusters.postgresql.cnpg.io}\nspec: {group: postgresql.cnpg.io, scope: Namespaced, names: {kind: Cluster, plural: clusters}, versions: []}\n"),
			withPG, []string{"error delete: all objects of the kind Cluster, whoever applied them; of this tree: Cluster apps/pg"}, "",
		},
		"a claim moves to another namespace": {
			tree(), with(tree(), "app/claim.yaml", strings.Replace(claim, "namespace: apps", "namespace: other", 1)),
			[]string{"error delete: PersistentVolumeClaim apps/data is deleted", "warning move: moves to namespace other: Flux creates another object there and deletes this one; its data does not move"}, "",
		},
		"another Kustomization applies a claim": {
			tree(), with(tree(), "app/claim.yaml", "", "clusters/home/data.yaml", ks("data", pruned), "data/claim.yaml", claim),
			[]string{"error move: from the Kustomization flux-system/app to flux-system/data"}, "is deleted: its volume",
		},
		"an immutable field": {
			tree(), with(tree(), "app/web.yaml", strings.ReplaceAll(web, "app: web", "app: shop")),
			[]string{"error immutable: spec.selector of Deployment web is immutable: the API server refuses it, and the Kustomization flux-system/app applies nothing"}, "",
		},
		"an immutable field with force": {
			with(tree(), "clusters/home/app.yaml", ks("app", pruned+", force: true")),
			with(tree(), "clusters/home/app.yaml", ks("app", pruned+", force: true"), "app/web.yaml", strings.ReplaceAll(web, "app: web", "app: shop")),
			[]string{"warning immutable: Flux deletes the object and creates it again, because force is set"}, "refuses",
		},
		"a claim with force loses its data": {
			with(tree(), "clusters/home/app.yaml", ks("app", pruned+", force: true")),
			with(tree(), "clusters/home/app.yaml", ks("app", pruned+", force: true"), "app/claim.yaml", strings.Replace(claim, "2Gi", "1Gi", 1)),
			[]string{"error immutable: spec.resources.requests.storage of PersistentVolumeClaim data is immutable: Flux deletes the object and creates it again, because force is set; its volume"}, "",
		},
		"a claim grows": {tree(), with(tree(), "app/claim.yaml", strings.Replace(claim, "2Gi", "3Gi", 1)), nil, "immutable"},
		"another chart": {
			tree(), with(tree(), "app/release.yaml", strings.Replace(release, "chart: shop", "chart: store", 1)),
			[]string{"error reinstall: HelmRelease apps/shop changes its chart from shop to store: Flux uninstalls the release"}, "",
		},
		"another chart in place": {
			tree(), with(tree(), "app/release.yaml", strings.Replace(release, "chart: shop", "chart: store", 1)+"  upgrade: {chartNameChangeStrategy: InPlaceUpdate}\n"), nil, "uninstalls",
		},
		"an image": {
			tree(), with(tree(), "app/web.yaml", strings.Replace(web, "web:1", "web:2", 1)),
			[]string{"info image: image web:1 becomes web:2 in Deployment apps/web", "info restart: Deployment apps/web replaces its Pods: the Pod template changes"}, "",
		},
		"a ConfigMap with users that do not restart": {
			tree(), with(tree(), "app/settings.yaml", strings.Replace(tree()["app/settings.yaml"], "a: b", "a: c", 1)),
			[]string{"info config: ConfigMap apps/settings changes, and its users do not restart by themselves: Deployment apps/web"}, "replaces",
		},
		"a generated ConfigMap restarts its users": {
			generated, with(generated, "app/kustomization.yaml", strings.Replace(generated["app/kustomization.yaml"], "a=b", "a=c", 1)),
			[]string{"info restart: Deployment apps/web replaces its Pods: the name of ConfigMap settings has another hash"}, "do not restart",
		},
		"a suspended Kustomization": {
			with(tree(), "clusters/home/app.yaml", ks("app", pruned+", suspend: true")),
			with(tree(), "clusters/home/app.yaml", ks("app", pruned+", suspend: true"), "app/web.yaml", strings.Replace(web, "web:1", "web:2", 1)),
			[]string{"warning suspended: the Kustomization flux-system/app is suspended: the change does not arrive until it resumes: Deployment apps/web"}, "",
		},
		"what waits": {
			later, with(later, "app/web.yaml", strings.Replace(web, "web:1", "web:2", 1)), []string{"info waits: these wait for it to become ready: flux-system/later"}, "",
		},
		"a Kustomization that Flux cannot build any more": {
			tree(), with(tree(), "app/kustomization.yaml", "resources: [gone.yaml]\n"),
			[]string{"error blocked: Flux cannot build the Kustomization flux-system/app any more, so it applies and deletes nothing of it"}, "is deleted",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := compare(t, tc.before, tc.after)
			var got []string
			for _, e := range d.Effects {
				got = append(got, string(e.Severity)+" "+string(e.Kind)+": "+e.Message)
			}
			for _, want := range tc.want {
				head, text, _ := strings.Cut(want, ": ")
				if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, head+": ") && strings.Contains(s, text) }) {
					t.Errorf("no effect %q in\n%s", want, strings.Join(got, "\n"))
				}
			}
			for _, text := range got {
				if tc.not != "" && strings.Contains(text, tc.not) {
					t.Errorf("effect %q", text)
				}
			}
		})
	}
}

// Where admission sees the old and the new object, the diff reports what the same rules do.
func TestCompare_Admission(t *testing.T) {
	for name, tc := range map[string]struct {
		before, after map[string]string
		want          string
	}{
		"a release moves": {
			tree(), with(tree(), "app/release.yaml", release+"  releaseName: store\n"), "Warn helm-release-move: changes releaseName from shop to store",
		},
		"the target namespace changes": {
			with(tree(), "clusters/home/app.yaml", ks("app", pruned+", targetNamespace: apps")),
			with(tree(), "clusters/home/app.yaml", ks("app", pruned+", targetNamespace: other")), "Warn kustomization-prune-move: targetNamespace changes",
		},
		"a new object would be denied": {
			tree(), with(tree(), "clusters/home/bad.yaml", strings.Replace(ks("bad", pruned), "namespace: flux-system", "namespace: apps", 1)),
			`Deny kustomization-namespace: namespace "apps" is not allowed`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := compare(t, tc.before, tc.after)
			var got []string
			for _, f := range d.Admission {
				got = append(got, string(f.Action)+" "+f.Rule+": "+f.Message)
			}
			if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, tc.want) }) {
				t.Errorf("no finding %q in\n%s", tc.want, strings.Join(got, "\n"))
			}
		})
	}
}

func TestCompare_NotCompared(t *testing.T) {
	d := compare(t, tree(), with(tree(), "app/kustomization.yaml", "resources: [gone.yaml]\n"))
	if len(d.NotCompared) != 1 || d.NotCompared[0].Name != "Kustomization flux-system/app" || !strings.Contains(d.NotCompared[0].Reason, "gone.yaml") || !d.Differs() {
		t.Errorf("%+v", d.NotCompared)
	}
	if len(d.Findings) == 0 || d.Findings[0].Rule != "kustomization-build-failed" {
		t.Errorf("findings %+v", d.Findings)
	}
}

func TestCompare_Clusters(t *testing.T) {
	two := with(tree(), "clusters/away/flux-system/gotk-sync.yaml", strings.Replace(sync, "clusters/home", "clusters/away", 1), "clusters/away/app.yaml", ks("app", pruned))
	d := compare(t, two, with(two, "app/claim.yaml", ""))
	var clusters []string
	for _, o := range d.Objects {
		clusters = append(clusters, o.Cluster+" "+o.Object.Name)
	}
	if diff := cmp.Diff([]string{"clusters/away data", "clusters/home data"}, clusters); diff != "" {
		t.Errorf("objects by cluster (-want +got):\n%s", diff)
	}
	if len(d.Effects) != 2 || d.Effects[0].Cluster != "clusters/away" {
		t.Errorf("effects: %+v", d.Effects)
	}
}
