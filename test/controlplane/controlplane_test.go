package controlplane_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/controlplane"
)

var plane *controlplane.ControlPlane

// killedEnv makes this test binary start a control plane and wait to be killed.
const killedEnv = "FLUX_ADMISSION_TEST_WAITS_TO_BE_KILLED"

func TestMain(m *testing.M) {
	if program := os.Getenv(programEnv); program != "" {
		os.Exit(runProgram(program))
	}
	options := controlplane.Options{CRDSets: controlplane.DefaultCRDs(), Audit: true}
	waits := os.Getenv(killedEnv) != ""
	if waits {
		options = controlplane.Options{}
	}
	os.Exit(controlplane.Main(m, options, func(cp *controlplane.ControlPlane) error {
		plane = cp
		if waits {
			if _, err := os.Stdout.WriteString(cp.Dir() + "\n"); err != nil {
				return err
			}
			time.Sleep(time.Minute)
		}
		return nil
	}))
}

func TestStart_Version(t *testing.T) {
	c, err := discovery.NewDiscoveryClientForConfig(plane.Config())
	if err != nil {
		t.Fatal(err)
	}
	version, err := c.ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := version.GitVersion+" "+version.Major+" "+version.Minor, "v1.37.2 1 37"; got != want {
		t.Errorf("/version: got %q, want %q", got, want)
	}
	stdout, _, err := plane.Kubectl(t.Context(), nil, "version")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Client Version: v1.37.2\n", "Server Version: v1.37.2\n"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("kubectl version: %q is not in\n%s", want, stdout)
		}
	}
}

func TestStart_ServesCRDs(t *testing.T) {
	for _, resource := range []string{
		"clusters.postgresql.cnpg.io", "helmreleases.helm.toolkit.fluxcd.io",
		"kustomizations.kustomize.toolkit.fluxcd.io", "gitrepositories.source.toolkit.fluxcd.io",
	} {
		if _, _, err := plane.Kubectl(t.Context(), nil, "get", resource); err != nil {
			t.Error(err)
		}
	}
}

const clusterWithMonitoring = `apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata:
  name: db
  namespace: default
spec:
  instances: 1
  storage:
    size: 1Gi
  monitoring:
    enabled: true
`

func TestKubectl_UnknownField(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string
	}{
		{
			name: "apply validates strictly unless told otherwise",
			args: []string{"apply", "-f", "-"},
			want: `Error from server (BadRequest): error when creating "STDIN": Cluster in version "v1" cannot be handled as a Cluster: strict decoding error: unknown field "spec.monitoring.enabled"`,
		},
		{
			name: "server-side apply knows the schema's fields only",
			args: []string{"apply", "--server-side", "--validate=false", "-f", "-"},
			want: `failed to create typed patch object (default/db; postgresql.cnpg.io/v1, Kind=Cluster): .spec.monitoring.enabled: field not declared in schema`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, stderr, err := plane.Kubectl(t.Context(), strings.NewReader(clusterWithMonitoring), test.args...)
			if err == nil {
				t.Fatal("the API server accepted the Cluster")
			}
			if !strings.Contains(stderr, test.want) {
				t.Errorf("got\n%s\nwant\n%s", stderr, test.want)
			}
		})
	}
}

func TestKubectl_UnknownFieldWithoutValidation(t *testing.T) {
	if _, _, err := plane.Kubectl(t.Context(), strings.NewReader(clusterWithMonitoring), "apply", "--validate=false", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	stored, _, err := plane.Kubectl(t.Context(), nil, "get", "clusters.postgresql.cnpg.io", "db", "-o", "jsonpath={.spec.monitoring}")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(stored, `"enabled"`) {
		t.Errorf("the field is stored: %s", stored)
	}
}

func TestAuditEvents(t *testing.T) {
	c := newClient(t)
	if err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "audited"}}); err != nil {
		t.Fatal(err)
	}
	events, err := plane.AuditEvents()
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range events {
		if event.Verb == "create" && event.ObjectRef != nil && event.ObjectRef.Resource == "namespaces" && event.ObjectRef.Name == "audited" {
			return
		}
	}
	t.Errorf("no event of the %d recorded is the creation of the namespace", len(events))
}

func TestUser_HasNoPermissions(t *testing.T) {
	config, err := plane.User("nobody-special")
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = c.List(t.Context(), &corev1.SecretList{})
	if err == nil || !strings.Contains(err.Error(), `User "nobody-special" cannot list resource "secrets"`) {
		t.Errorf("listing secrets: %v", err)
	}
}

func TestInstallManifests_CRDsFirst(t *testing.T) {
	err := plane.InstallManifests(t.Context(), filepath.Join("testdata", "manifests"), func(object *unstructured.Unstructured) {
		switch object.GetName() {
		case "left-out":
			object.Object = nil
		case "edited":
			object.SetLabels(map[string]string{"edited": "yes"})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := plane.Kubectl(t.Context(), nil, "get", "widgets,configmaps", "-n", "widgets", "--no-headers", "-o", "custom-columns=:kind,:metadata.name,:metadata.labels")
	if err != nil {
		t.Fatal(err)
	}
	want := "Widget first <none> ConfigMap edited map[edited:yes]"
	if got := strings.Join(strings.Fields(got), " "); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestInstallManifests_UnknownField(t *testing.T) {
	err := plane.InstallManifests(t.Context(), filepath.Join("testdata", "manifests"), func(object *unstructured.Unstructured) {
		if object.GetKind() == "Widget" {
			object.Object["spec"] = map[string]any{"sise": int64(1)}
		}
	})
	if err == nil || !strings.Contains(err.Error(), `strict decoding error: unknown field "spec.sise"`) {
		t.Errorf("got %v", err)
	}
}

func TestStart_FailureLeavesNothing(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	_, err := controlplane.Start(t.Context(), controlplane.Options{
		Assets:        plane.Assets(),
		APIServerArgs: map[string][]string{"no-such-flag": {"1"}},
	})
	if err == nil || !strings.Contains(err.Error(), "unknown flag: --no-such-flag") {
		t.Errorf("got %v", err)
	}
	requireEmpty(t, tmp)
}

func requireEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		t.Errorf("left behind: %s", entry.Name())
	}
}

func newClient(t *testing.T) client.Client {
	t.Helper()
	c, err := client.New(plane.Config(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
