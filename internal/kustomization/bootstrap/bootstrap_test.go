package bootstrap_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/internal/kustomization/bootstrap"
	"github.com/flux-admission/flux-admission/internal/sourcetree"
)

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		".sourceignore":              "/*\n!/kubernetes\n",
		"bootstrap/helmfile/00.yaml": "releases:\n  - name: prometheus-crds\n    chart: oci://ghcr.io/x/charts/prometheus-operator-crds\n    namespace: monitoring\n",
		"bootstrap/helmfile.d/apps.yaml.gotmpl": "{{ range .Values.x }}\nreleases:\n  - name: external-secrets\n" +
			"    chart: external-secrets/external-secrets # not the other\n{{ end }}\n",
		"scripts/install.sh": "echo ceph.rook.io\nkubectl apply -f https://x.test/crd/monitoring.coreos.com_servicemonitors.yaml\n" +
			"kubectl wait crd/ciliumnodes.cilium.io\n",
		"Taskfile.yaml":                        "tasks:\n  cnpg: helm upgrade --install cnpg cnpg/cloudnative-pg\n",
		"kubernetes/apps/kustomization.yaml":   "resources: [https://x.test/apply/gateway.networking.k8s.io.yaml]\n",
		"kubernetes/apps/readme.md":            "helm install keda\n",
		"bootstrap/kustomization.yaml":         "resources:\n  - https://github.com/kubernetes-csi/external-snapshotter/client/config/crd\n",
		"bootstrap/helmfile/broken.yaml":       "releases: [\n",
		"bootstrap/network/kustomization.yaml": "namespace: network\nresources: [secret.yaml]\n",
		"bootstrap/network/secret.yaml":        "apiVersion: v1\nkind: Secret\nmetadata: {name: tunnel-id}\n",
		"bootstrap/resources.yaml.j2":          "apiVersion: v1\nkind: Secret\nmetadata: {name: token, namespace: auth}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: '{{ x }}', namespace: auth}\n",
		"bootstrap/loop.yaml.j2":               "{% for x in y %}\napiVersion: v1\nkind: Secret\nmetadata: {name: never}\n{% endfor %}\n",
		"clusters/bootstrap/secret.yaml":       "apiVersion: v1\nkind: Secret\nmetadata: {name: applied}\n",
		"clusters/home.yaml":                   "apiVersion: v1\nkind: Namespace\nmetadata: {name: flux-system}\n",
	} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := sourcetree.Open(t.Context(), dir, "", sourcetree.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	found := bootstrap.Find(tree, func(f *sourcetree.File) bool { return strings.HasPrefix(f.Path(), "clusters/bootstrap/") }, "clusters/home.yaml")
	var objects []string
	for _, o := range found.Objects {
		objects = append(objects, o.GetKind()+" "+o.GetNamespace()+"/"+o.GetName())
	}
	want := []string{"Namespace /network", "Secret network/tunnel-id", "Secret auth/token", "Namespace /monitoring", "Namespace /flux-system"}
	for _, o := range want {
		if !slices.Contains(objects, o) {
			t.Errorf("%s is not among the objects %v", o, objects)
		}
	}
	if len(objects) != len(want) {
		t.Errorf("the objects are %v, want %v", objects, want)
	}
	got := found.Installs
	for _, name := range []string{"prometheus-crds", "prometheus-operator-crds", "external-secrets", "cloudnative-pg", "external-snapshotter"} {
		if !got.Installs("none.test", name) {
			t.Errorf("the chart %s is not found in %v", name, got.Charts)
		}
	}
	for _, group := range []string{"monitoring.coreos.com", "cilium.io"} {
		if !got.Installs(group) {
			t.Errorf("the group %s is not found in %v", group, got.Groups)
		}
	}
	for _, group := range []string{"ceph.rook.io", "gateway.networking.k8s.io"} {
		if got.Installs(group, "keda") {
			t.Errorf("the group %s is found in %v", group, got.Groups)
		}
	}
}
