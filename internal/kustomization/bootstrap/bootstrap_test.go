package bootstrap_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/flux-admission/flux-admission/internal/kustomization/bootstrap"
	"github.com/flux-admission/flux-admission/internal/sourcetree"
)

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		".sourceignore":              "/*\n!/kubernetes\n",
		"bootstrap/helmfile/00.yaml": "releases:\n  - name: prometheus-crds\n    chart: oci://ghcr.io/x/charts/prometheus-operator-crds\n",
		"bootstrap/helmfile.d/apps.yaml.gotmpl": "{{ range .Values.x }}\nreleases:\n  - name: external-secrets\n" +
			"    chart: external-secrets/external-secrets # not the other\n{{ end }}\n",
		"scripts/install.sh": "echo ceph.rook.io\nkubectl apply -f https://x.test/crd/monitoring.coreos.com_servicemonitors.yaml\n" +
			"kubectl wait crd/ciliumnodes.cilium.io\n",
		"Taskfile.yaml":                      "tasks:\n  cnpg: helm upgrade --install cnpg cnpg/cloudnative-pg\n",
		"kubernetes/apps/kustomization.yaml": "resources: [https://x.test/apply/gateway.networking.k8s.io.yaml]\n",
		"kubernetes/apps/readme.md":          "helm install keda\n",
		"bootstrap/kustomization.yaml":       "resources:\n  - https://github.com/kubernetes-csi/external-snapshotter/client/config/crd\n",
		"bootstrap/helmfile/broken.yaml":     "releases: [\n",
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
	got := bootstrap.Find(tree)
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
