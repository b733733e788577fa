// Package livediff_test compares trees with a real API server that has the admission webhook.
package livediff_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fluxcd/cli-utils/pkg/object"
	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/flux-admission/flux-admission/internal/chartinput"
	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
	"github.com/flux-admission/flux-admission/test/flux"
)

var shared *env.Env

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	os.Exit(env.Main(m, env.Options{ControlPlane: controlplane.Options{CRDSets: controlplane.DefaultCRDs()}}, func(ctx context.Context, e *env.Env) error {
		shared = e
		return e.Apply(ctx, users)
	}))
}

// users are one who may do everything, one who may not read Secrets, and one who may read and not patch.
const users = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: operator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: User, name: operator, apiGroup: rbac.authorization.k8s.io}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: developer}
rules:
- {apiGroups: ["", apps, kustomize.toolkit.fluxcd.io, source.toolkit.fluxcd.io], verbs: [get, patch, create], resources: [configmaps, namespaces, persistentvolumeclaims, deployments, kustomizations, gitrepositories]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: developer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: developer}
subjects: [{kind: User, name: developer, apiGroup: rbac.authorization.k8s.io}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: viewer}
rules: [{apiGroups: ["*"], verbs: [get, list], resources: ["*"]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: viewer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: viewer}
subjects: [{kind: User, name: viewer, apiGroup: rbac.authorization.k8s.io}]
`

const sync = `apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 1m, url: "https://example.com/fleet"}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 10m, path: ./cluster, prune: true, sourceRef: {kind: GitRepository, name: flux-system}}
`

const encrypted = "ENC[AES256_GCM,data:p673w==,iv:YY=,aad:UQ=,tag:UQ=,type:str]"

// before is the tree that the cluster has.
var before = map[string]string{
	"cluster/flux-system/gotk-sync.yaml": sync,
	"cluster/apps.yaml": `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: apps, namespace: flux-system}
spec:
  interval: 10m
  path: ./apps
  prune: true
  targetNamespace: shop
  decryption: {provider: sops}
  sourceRef: {kind: GitRepository, name: flux-system}
`,
	"apps/kustomization.yaml": `resources: [shop.yaml]
configMapGenerator: [{name: settings, literals: [color=red]}]
`,
	"apps/shop.yaml": `apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: same}
data: {a: "1"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: edited}
data: {a: "1", b: "1"}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {password: hunter2, user: u}
---
apiVersion: v1
kind: Secret
metadata: {name: sealed}
stringData: {token: "s3cret"}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "web:1", envFrom: [{configMapRef: {name: settings}}]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: fixed}
spec:
  selector: {matchLabels: {app: fixed}}
  template:
    metadata: {labels: {app: fixed}}
    spec: {containers: [{name: fixed, image: "fixed:1"}]}
`,
}

// after returns the tree with changes: an image, a field, a value of a Secret, a selector, a generated ConfigMap; a claim is
// removed; an object is new, one is of a kind that the cluster does not serve, and one is denied by the webhook.
func after() map[string]string {
	out := maps.Clone(before)
	out["apps/kustomization.yaml"] = strings.ReplaceAll(before["apps/kustomization.yaml"], "red", "blue")
	shop := strings.NewReplacer(
		"web:1", "web:2", `b: "1"`, `c: "3"`, "hunter2", "hunter3", "{app: fixed}", "{app: other}", `stringData: {token: "s3cret"}`, `stringData: {token: "`+encrypted+`"}`+"\nsops: {mac: \""+encrypted+`", lastmodified: "2026-01-01T00:00:00Z", version: 3.9.0}`,
		`apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
`, "").Replace(before["apps/shop.yaml"])
	out["apps/shop.yaml"] = shop + `---
apiVersion: v1
kind: ConfigMap
metadata: {name: new}
---
apiVersion: example.com/v1
kind: Widget
metadata: {name: w}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: child}
spec: {interval: 10m, path: ./child, prune: true, sourceRef: {kind: GitRepository, name: flux-system, namespace: flux-system}}
`
	out["child/cm.yaml"] = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: child, namespace: shop}\n"
	return out
}

func write(t *testing.T, tree map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range tree {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// apply applies a tree as kustomize-controller does, with the inventories.
func apply(t *testing.T, tree map[string]string) {
	t.Helper()
	built, err := check.Load(t.Context(), check.Input{Path: write(t, tree), ChartCache: chartinput.NoCache})
	if err != nil {
		t.Fatal(err)
	}
	defer built.Close()
	if err := shared.Apply(t.Context(), "apiVersion: v1\nkind: Namespace\nmetadata: {name: flux-system}\n---\n"+sync); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(shared.ControlPlane.Config(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range built.Clusters()[0].Kustomizations {
		if _, err := flux.Apply(t.Context(), shared.ControlPlane.Config(), k.Key, contents(k)...); err != nil {
			t.Fatal(err)
		}
		live := &unstructured.Unstructured{}
		live.SetGroupVersionKind(k.Object.GroupVersionKind())
		if err := c.Get(t.Context(), k.Key, live); err != nil {
			t.Fatal(err)
		}
		var entries []any
		for _, o := range k.Objects {
			entries = append(entries, map[string]any{"id": object.UnstructuredToObjMetadata(o.Unstructured).String(), "v": o.GroupVersionKind().Version})
		}
		live.Object["status"] = map[string]any{"inventory": map[string]any{"entries": entries}}
		if err := c.Status().Update(t.Context(), live); err != nil {
			t.Fatal(err)
		}
	}
}

func contents(k *kustomization.Kustomization) []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	for _, o := range k.Objects {
		out = append(out, o.DeepCopy())
	}
	return out
}

// diff runs the command as a user.
func diff(t *testing.T, user, dir string) (*report.Diff, string) {
	t.Helper()
	out, code, err := shared.Run(t.Context(), user, "diff", "--live", "--output", "json", dir)
	if err != nil || code != 0 {
		t.Fatalf("exit code %d: %v\n%s", code, err, out)
	}
	d := &report.Diff{}
	if err := json.Unmarshal([]byte(out), d); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return d, out
}

// changes returns the changes as "CHANGE KIND NAME: FIELDS".
func changes(d *report.Diff) []string {
	var out []string
	for _, o := range d.Objects {
		var fields []string
		for _, f := range o.Fields {
			fields = append(fields, string(f.Change)+" "+f.Path)
		}
		out = append(out, strings.TrimSuffix(fmt.Sprintf("%s %s %s: %s", o.Change, o.Object.Kind, o.Object.Name, strings.Join(fields, ", ")), ": "))
	}
	slices.Sort(out)
	return out
}

func effects(d *report.Diff, kind report.EffectKind) string {
	var out []string
	for _, e := range d.Effects {
		if e.Kind == kind {
			out = append(out, e.Message)
		}
	}
	return strings.Join(out, "\n")
}

func TestLive(t *testing.T) {
	apply(t, before)
	t.Run("the applied tree", func(t *testing.T) {
		d, out := diff(t, "operator", write(t, before))
		if len(d.Objects) > 0 || len(d.NotCompared) > 0 || len(d.Effects) > 0 {
			t.Errorf("there are differences:\n%s", out)
		}
	})
	changed := write(t, after())
	t.Run("changes", func(t *testing.T) {
		d, out := diff(t, "operator", changed)
		want := []string{
			"added ConfigMap child",
			"added ConfigMap new",
			"added Kustomization child",
			"added Widget w",
			"changed ConfigMap edited: removed data.b, added data.c",
			"changed ConfigMap settings: changed data.color",
			"changed Deployment fixed: changed spec.selector.matchLabels.app, changed spec.template.metadata.labels.app",
			"changed Deployment web: changed spec.template.spec.containers[name=web].image",
			"changed Secret password: changed data.password",
			"removed PersistentVolumeClaim data",
		}
		if diff := cmp.Diff(want, changes(d)); diff != "" {
			t.Errorf("changes (-want +got):\n%s", diff)
		}
		for kind, want := range map[report.EffectKind]string{
			report.EffectDelete:    "PersistentVolumeClaim shop/data is deleted",
			report.EffectImmutable: "spec.selector of Deployment fixed is immutable",
			report.EffectImage:     "image web:1 becomes web:2",
			report.EffectRefused:   "the cluster does not serve example.com/v1, Kind=Widget",
		} {
			if got := effects(d, kind); !strings.Contains(got, want) {
				t.Errorf("effects %s: %q is missing in %q", kind, want, got)
			}
		}
		if got := effects(d, report.EffectRefused); !strings.Contains(got, "Kustomization shop/child") || !strings.Contains(got, "KS001") {
			t.Errorf("the denial by the webhook is missing: %q", got)
		}
		if !slices.ContainsFunc(d.Admission, func(f report.Finding) bool { return f.ID == "KS001" && f.Object.Name == "child" }) {
			t.Errorf("the verdict on the child is missing: %v", d.Admission)
		}
		for _, secret := range []string{"hunter2", "hunter3", "s3cret", "aHVudGVy", "czNjcmV0"} {
			if strings.Contains(out, secret) {
				t.Errorf("the output has the value %s of a Secret", secret)
			}
		}
		if !slices.ContainsFunc(d.NotCompared, func(n report.NotCompared) bool { return strings.Contains(n.Reason, "1 values are not in Git") }) {
			t.Errorf("the encrypted value is not named: %v", d.NotCompared)
		}
	})
	t.Run("nothing is stored", func(t *testing.T) {
		if d, out := diff(t, "operator", write(t, before)); len(d.Objects) > 0 {
			t.Errorf("there are differences:\n%s", out)
		}
	})
	t.Run("forbidden", func(t *testing.T) {
		d, _ := diff(t, "developer", changed)
		named := fmt.Sprint(d.NotCompared)
		for _, want := range []string{"Secret shop/password", "Secret shop/sealed", `cannot get resource "secrets"`} {
			if !strings.Contains(named, want) {
				t.Errorf("%q is not named as not compared: %s", want, named)
			}
		}
		if got := strings.Join(changes(d), "\n"); strings.Contains(got, "Secret") || !strings.Contains(got, "changed ConfigMap edited") {
			t.Errorf("changes: %s", got)
		}
		d, _ = diff(t, "viewer", changed)
		if named := fmt.Sprint(d.NotCompared); !strings.Contains(named, "ConfigMap shop/edited") || !strings.Contains(named, "cannot patch") {
			t.Errorf("what may not be patched is not named: %s", named)
		}
	})
}
