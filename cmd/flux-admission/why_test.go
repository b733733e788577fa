package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// notReady has a Kustomization that the API server refuses to apply an object of, and one that depends on it.
const notReady = `apiVersion: v1
kind: List
items:
- apiVersion: kustomize.toolkit.fluxcd.io/v1
  kind: Kustomization
  metadata: {name: nessie, namespace: flux-system, generation: 1}
  spec: {interval: 1h, path: ./nessie, sourceRef: {kind: GitRepository, name: flux-system}}
  status:
    conditions:
    - {type: Ready, status: "False", observedGeneration: 1, reason: ReconciliationFailed, message: "Cluster/nessie/db dry-run failed (Invalid): failed to create typed patch object (nessie/db; postgresql.cnpg.io/v1, Kind=Cluster): .spec.monitoring.enabled: field not declared in schema"}
- apiVersion: kustomize.toolkit.fluxcd.io/v1
  kind: Kustomization
  metadata: {name: web, namespace: flux-system, generation: 1}
  spec: {interval: 1h, path: ./web, dependsOn: [{name: nessie}], sourceRef: {kind: GitRepository, name: flux-system}}
  status:
    conditions:
    - {type: Ready, status: "False", observedGeneration: 1, reason: DependencyNotReady, message: "dependency 'flux-system/nessie' is not ready"}
`

// nessieTree is the Git tree of notReady.
var nessieTree = map[string]string{
	"clusters/main/flux-system/gotk-sync.yaml": `apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 1m, url: "https://git.example.com/fleet", ref: {branch: main}}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 1h, path: ./clusters/main, prune: true, sourceRef: {kind: GitRepository, name: flux-system}}
`,
	"clusters/main/apps.yaml": `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: nessie, namespace: flux-system}
spec: {interval: 1h, path: ./nessie, prune: true, sourceRef: {kind: GitRepository, name: flux-system}}
`,
	"nessie/cluster.yaml": `apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata:
  name: db
  namespace: nessie
spec:
  instances: 1
  storage: {size: 1Gi}
  monitoring:
    enabled: true
`,
}

func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestWhy_Text(t *testing.T) {
	dir := writeFiles(t, map[string]string{"objects.yaml": notReady})
	tree := writeFiles(t, nessieTree)
	code, stdout, stderr := execute(t, "why", "-f", dir, "--tree", tree)
	const want = `2 not ready, 1 root

Failed  Cluster nessie/db  (Kustomization flux-system/nessie)
  cause:    InvalidObject
  message:  Cluster/nessie/db dry-run failed (Invalid): failed to create typed patch object (nessie/db; postgresql.cnpg.io/v1, Kind=Cluster): .spec.monitoring.enabled: field not declared in schema
  evidence: condition Ready=False, reason ReconciliationFailed of Kustomization flux-system/nessie
  in Git:   nessie/cluster.yaml:10
  fix:      Correct the field that the message names in the manifest that Kustomization flux-system/nessie applies
  blocks 2:
  └─ Kustomization flux-system/nessie
     └─ Kustomization flux-system/web
`
	if diff := cmp.Diff(want, stdout); diff != "" || code != exitFailed || stderr != "" {
		t.Errorf("exit code %d, error %q, output (-want +got):\n%s", code, stderr, diff)
	}
}

func TestWhy_JSON(t *testing.T) {
	dir := writeFiles(t, map[string]string{"objects.yaml": notReady})
	code, stdout, stderr := execute(t, "why", "ks", "flux-system/web", "-f", filepath.Join(dir, "objects.yaml"), "-o", "json")
	if code != exitFailed || stderr != "" {
		t.Fatalf("exit code %d, error %q", code, stderr)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	summary := map[string]any{"objects": 2.0, "notReady": 2.0, "roots": 1.0, "inProgress": 0.0, "unknown": 0.0}
	if diff := cmp.Diff(summary, got["summary"]); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
	of := map[string]any{"group": "kustomize.toolkit.fluxcd.io", "kind": "Kustomization", "namespace": "flux-system", "name": "web"}
	if diff := cmp.Diff(of, got["of"]); diff != "" {
		t.Errorf("of (-want +got):\n%s", diff)
	}
	for _, key := range []string{"version", "tool", "roots", "notReady", "notRead"} {
		if got[key] == nil {
			t.Errorf("the key %s is missing", key)
		}
	}
}

// TestWhy_HTML: names of the cluster are escaped, and the page loads nothing.
func TestWhy_HTML(t *testing.T) {
	hostile := strings.ReplaceAll(notReady, "failed to create", "<script>alert(1)</script> failed to create")
	dir := writeFiles(t, map[string]string{"objects.yaml": hostile})
	code, stdout, stderr := execute(t, "why", "-f", dir, "-o", "html")
	if code != exitFailed || stderr != "" {
		t.Fatalf("exit code %d, error %q", code, stderr)
	}
	if strings.Contains(stdout, "<script>alert") || strings.Contains(stdout, "http://") || strings.Contains(stdout, "https://") {
		t.Error("the page has a script of the cluster, or loads something")
	}
	for _, want := range []string{"<svg id=\"graph\"", "Content-Security-Policy", "Cluster nessie/db", "2 not ready, 1 root"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the page has no %q", want)
		}
	}
}

func TestWhy_Ready(t *testing.T) {
	dir := writeFiles(t, map[string]string{"objects.json": `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "b"}}`})
	code, stdout, stderr := execute(t, "why", "-f", dir)
	if code != 0 || stdout != "1 object, all ready\n" || stderr != "" {
		t.Errorf("exit code %d, output %q, error %q", code, stdout, stderr)
	}
	if code, stdout, _ = execute(t, "why", "configmap", "b/a", "-f", dir); code != 0 || stdout != "ConfigMap b/a is ready\n" {
		t.Errorf("exit code %d, output %q", code, stdout)
	}
}

func TestWhy_InvalidArguments(t *testing.T) {
	dir := writeFiles(t, map[string]string{"objects.yaml": notReady, "more.txt": "not: read"})
	cases := map[string]struct {
		args []string
		want string
	}{
		"no cluster":        {[]string{"why"}, "no cluster: name a kubeconfig file with --kubeconfig or $KUBECONFIG"},
		"unknown format":    {[]string{"why", "-o", "sarif"}, `--output "sarif": use text, json or html`},
		"no such file":      {[]string{"why", "-f", "nothing.yaml"}, "--filename: "},
		"no name":           {[]string{"why", "kustomization", "-f", dir}, "the name of the kustomization is missing"},
		"no kind":           {[]string{"why", "flux-system/web", "-f", dir}, "give a kind and a name"},
		"no such object":    {[]string{"why", "ks", "flux-system/none", "-f", dir}, "ks flux-system/none does not exist"},
		"no such kind":      {[]string{"why", "pod", "a", "-f", dir}, "no object of kind pod was read"},
		"not an object":     {[]string{"why", "-f", writeFiles(t, map[string]string{"a.yaml": "a: b\n"})}, "it is not a Kubernetes object"},
		"a directory empty": {[]string{"why", "-f", t.TempDir()}, "no objects in "},
		"no time":           {[]string{"why", "--timeout", "0s"}, "--timeout 0s must be positive"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := execute(t, c.args...)
			if code != exitUsage || stdout != "" || !strings.Contains(stderr, c.want) {
				t.Errorf("exit code %d, output %q, error %q; want 2 and %q", code, stdout, stderr, c.want)
			}
		})
	}
}
