package admission_test

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/ssa"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/test/chartrepo"
	"github.com/flux-admission/flux-admission/test/flux"
	"github.com/flux-admission/flux-admission/test/sharedinputs"
	"github.com/flux-admission/flux-admission/test/writepath"
)

const kustomization = `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: %s, namespace: %s}
spec:
  interval: 10m
  path: ./kubernetes/apps/airflow/app
  prune: true
  sourceRef: {kind: GitRepository, name: flux-system}
`

const release = `apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: %s, namespace: %s}
spec:
  interval: 10m
  chart:
    spec:
      chart: airflow
      version: 1.x
      sourceRef: {kind: HelmRepository, name: airflow}
  values:
    data:
      metadataConnection: %s
`

const repository = `apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmRepository
metadata: {name: airflow, namespace: %s}
spec: {interval: 1h, url: %s}
`

// fluxPaths are the write paths of Flux's own objects. On all of them the webhook gets the complete object.
func fluxPaths() []writepath.Path {
	return []writepath.Path{
		writepath.Kubectl("apply"),
		writepath.Kubectl("apply", "--dry-run=server"),
		writepath.Kubectl("apply", "--server-side"),
		writepath.Kubectl("create"),
		writepath.Flux(),
		writepath.Create(),
		writepath.Create(client.DryRunAll),
	}
}

func isDryRun(p writepath.Path) bool { return strings.Contains(p.Name, "dry-run") }

// deniedOnEveryPath sends the manifest that newManifest returns, on every path and in every mode, and checks the answer, the
// stored object and the audit annotations. The denial contains each of parts; the first is the rule's ID.
func deniedOnEveryPath(t *testing.T, parts []string, newManifest func(t *testing.T, ns string) string) {
	t.Helper()
	for i, path := range fluxPaths() {
		for _, m := range modes {
			t.Run(fmt.Sprintf("%s with action %s", path.Name, m), func(t *testing.T) {
				setPolicy(t, m, "")
				ns := namespace(t)
				manifest := newManifest(t, ns)
				answer := path.Write(t.Context(), shared.ControlPlane, manifest)
				o, err := writepath.Parse(manifest)
				if err != nil {
					t.Fatal(err)
				}
				got := stored(t, manifest)
				if refused := m == deny; refused != (answer.Err != nil) {
					t.Fatalf("answer %s; want refused: %t", answer, refused)
				}
				dry := isDryRun(path) || i == len(fluxPaths())-1
				if want := m != deny && !dry; want != (got != nil) {
					t.Errorf("stored %v; want it stored: %t", got, want)
				}
				if m == deny {
					for _, part := range parts {
						if !strings.Contains(answer.Err.Error(), part) {
							t.Errorf("answer %s, want %q in it", answer, part)
						}
					}
				}
				if path.Name != writepath.Flux().Name {
					if warned := strings.Contains(strings.Join(answer.Warnings, "\n"), parts[0]); warned != (m == warn) {
						t.Errorf("warnings %q in mode %s", answer.Warnings, m)
					}
				}
				if !recorded(t, ns, o.GetName(), parts[0]) {
					t.Errorf("no audit annotation of %s", parts[0])
				}
			})
		}
	}
}

func TestWebhook_KustomizationNamespace(t *testing.T) {
	deniedOnEveryPath(t, []string{"KS001", "kustomization-namespace", `must be "flux-system"`}, func(_ *testing.T, ns string) string {
		return fmt.Sprintf(kustomization, "airflow", ns)
	})
}

func TestWebhook_HelmValuesSchema(t *testing.T) {
	parts := []string{"HR001", "helm-values-schema", "/data/metadataConnection", "existingSecret", "existingSecretKey"}
	deniedOnEveryPath(t, parts, func(t *testing.T, ns string) string {
		t.Helper()
		addRepository(t, ns)
		return fmt.Sprintf(release, "airflow", ns, "{existingSecret: airflow-db, existingSecretKey: uri}")
	})
}

func addRepository(t *testing.T, ns string) {
	t.Helper()
	if a := writepath.Kubectl("apply").Write(t.Context(), shared.ControlPlane, fmt.Sprintf(repository, ns, shared.Charts.URL)); a.Err != nil {
		t.Fatal(a.Err)
	}
}

func TestWebhook_ValidReleaseIsAllowed(t *testing.T) {
	setPolicy(t, deny, "")
	ns := namespace(t)
	addRepository(t, ns)
	for i, path := range fluxPaths() {
		if a := path.Write(t.Context(), shared.ControlPlane, fmt.Sprintf(release, fmt.Sprint("airflow-", i), ns, "{user: airflow}")); a.Err != nil || len(a.Warnings) > 0 {
			t.Errorf("%s: %s", path.Name, a)
		}
	}
}

// Values from ConfigMaps count. Those from Secrets do not, because the webhook server authenticates no clients here,
// whatever it may read; test/authentication has the same release with authenticated clients.
func TestWebhook_ValuesFrom(t *testing.T) {
	setPolicy(t, deny, "")
	ns := namespace(t)
	addRepository(t, ns)
	const secretValue = "hunter2-do-not-print"
	for _, o := range []struct{ kind, field string }{{"Secret", "stringData"}, {"ConfigMap", "data"}} {
		objects := fmt.Sprintf(`apiVersion: v1
kind: %s
metadata: {name: values, namespace: %s}
%s:
  values.yaml: |
    data: {metadataConnection: {port: %s}}
`, o.kind, ns, o.field, secretValue)
		if a := writepath.Kubectl("apply").Write(t.Context(), shared.ControlPlane, objects); a.Err != nil {
			t.Fatal(a.Err)
		}
	}
	manifest := fmt.Sprintf(release, "airflow", ns, "{user: airflow}") + "  valuesFrom: [{kind: %s, name: values}]\n"
	a := writepath.Kubectl("apply").Write(t.Context(), shared.ControlPlane, fmt.Sprintf(manifest, "ConfigMap"))
	if a.Err == nil || !strings.Contains(a.Err.Error(), "/data/metadataConnection/port") {
		t.Errorf("answer %s, want a refusal of /data/metadataConnection/port", a)
	}
	a = writepath.Kubectl("apply").Write(t.Context(), shared.ControlPlane, fmt.Sprintf(manifest, "Secret"))
	if a.Err != nil || len(a.Warnings) > 0 {
		t.Errorf("answer %s to values from a Secret, want none", a)
	}
	if strings.Contains(a.String(), secretValue) || strings.Contains(shared.Webhook().Log(), secretValue) {
		t.Error("a value is in the answer or in the log")
	}
	if recorded(t, ns, "airflow", secretValue) {
		t.Error("a value is in the audit log")
	}
}

// A denial has every finding of an object, because one denied object blocks its whole Kustomization.
func TestWebhook_DenialHasAllFindings(t *testing.T) {
	setPolicy(t, deny, "")
	ns := namespace(t)
	manifest := fmt.Sprintf(kustomization, "airflow", ns) + `  patches:
    - target: {kind: Cluster}
      patch: |
        - {op: add, path: /spec/monitoring/enabled, value: true}
`
	for _, path := range []writepath.Path{writepath.Kubectl("apply"), writepath.Flux(), writepath.Create()} {
		a := path.Write(t.Context(), shared.ControlPlane, manifest)
		if a.Err == nil || !strings.Contains(a.Err.Error(), "KS001") || !strings.Contains(a.Err.Error(), "PG001") {
			t.Errorf("%s: %s; want KS001 and PG001 in one answer", path.Name, a)
		}
	}
	var status apierrors.APIStatus
	if a := writepath.Create().Write(t.Context(), shared.ControlPlane, manifest); !errors.As(a.Err, &status) {
		t.Fatalf("%v is no API status", a.Err)
	}
	got := status.Status()
	if got.Code != 422 || got.Details == nil || len(got.Details.Causes) != 2 {
		t.Fatalf("status %+v; want code 422 with two causes", got)
	}
	var fields []string
	for _, c := range got.Details.Causes {
		fields = append(fields, c.Field)
	}
	if f := strings.Join(fields, " "); !strings.Contains(f, "metadata.namespace") || !strings.Contains(f, "spec.patches[0].patch") {
		t.Errorf("fields of the causes: %s", f)
	}
}

// Flux with force and kubectl apply --force delete and recreate an object if an error looks like that of an immutable field. A
// denial must not.
func TestWebhook_DenialWithForce(t *testing.T) {
	setPolicy(t, deny, "")
	ns := namespace(t)
	good := fmt.Sprintf(kustomization, "forced", "flux-system")
	if a := writepath.Create().Write(t.Context(), shared.ControlPlane, good); a.Err != nil {
		t.Fatal(a.Err)
	}
	uid := stored(t, good).GetUID()
	bad := good + `  patches:
    - target: {kind: Cluster}
      patch: |
        - {op: add, path: /spec/monitoring/enabled, value: true}
`
	o, err := writepath.Parse(bad)
	if err != nil {
		t.Fatal(err)
	}
	o.SetAnnotations(map[string]string{"kustomize.toolkit.fluxcd.io/force": "enabled"})
	if _, err := flux.Apply(t.Context(), shared.ControlPlane.Config(), client.ObjectKey{Namespace: ns, Name: "apps"}, o); err == nil || !strings.Contains(err.Error(), "PG001") {
		t.Errorf("Flux with force: %v; want a refusal by PG001", err)
	}
	if a := writepath.Kubectl("apply", "--force").Write(t.Context(), shared.ControlPlane, bad); a.Err == nil || !strings.Contains(a.Err.Error(), "PG001") {
		t.Errorf("kubectl apply --force: %s; want a refusal by PG001", a)
	}
	if got := stored(t, good); got == nil || got.GetUID() != uid {
		t.Fatal("the object was deleted and recreated")
	}
}

func TestWebhook_DeletionsAndFinalizersAreAllowed(t *testing.T) {
	setPolicy(t, audit, "")
	ns := namespace(t)
	manifest := fmt.Sprintf(kustomization, "airflow", ns)
	if a := writepath.Create().Write(t.Context(), shared.ControlPlane, manifest); a.Err != nil {
		t.Fatal(a.Err)
	}
	setPolicy(t, deny, "  ratchet: Disabled\n  onError: Deny\n")
	for _, patch := range []string{`{"metadata":{"finalizers":["example.com/f"]}}`, `{"metadata":{"annotations":{"example.com/a":"b"}}}`} {
		if a := writepath.MergePatch(patch).Write(t.Context(), shared.ControlPlane, manifest); a.Err != nil {
			t.Errorf("patch %s: %s", patch, a)
		}
	}
	o := stored(t, manifest)
	if err := shared.Client.Delete(t.Context(), o); err != nil {
		t.Errorf("delete: %v", err)
	}
	// The object is being deleted and has a finalizer: no write, not even to spec, may be denied.
	for _, patch := range []string{`{"spec":{"interval":"5m"}}`, `{"metadata":{"finalizers":null}}`} {
		if a := writepath.MergePatch(patch).Write(t.Context(), shared.ControlPlane, manifest); a.Err != nil {
			t.Errorf("patch %s of an object that is being deleted: %s", patch, a)
		}
	}
	if got := stored(t, manifest); got != nil {
		t.Errorf("still there: %v", got.Object["metadata"])
	}
}

const mapToNamespace = `  mutations:
    target-namespace:
      - match: {namespaces: [flux-system], path: '^\./kubernetes/apps/(?P<ns>[^/]+)/'}
        targetNamespace: "{ns}"
`

func TestMutatingWebhook_TargetNamespaceOnCreate(t *testing.T) {
	ns := namespace(t)
	inNamespace := func(name string) string {
		return strings.Replace(fmt.Sprintf(kustomization, name, "flux-system"), "/apps/airflow/", "/apps/"+ns+"/", 1)
	}
	setPolicy(t, deny, "")
	before := inNamespace("before-" + ns)
	if a := writepath.Create().Write(t.Context(), shared.ControlPlane, before); a.Err != nil {
		t.Fatal(a.Err)
	}
	setPolicy(t, deny, mapToNamespace)
	for i, path := range []writepath.Path{writepath.Kubectl("apply"), writepath.Flux(), writepath.Create(), writepath.Kubectl("apply", "--server-side")} {
		manifest := inNamespace(fmt.Sprintf("created-%d-%s", i, ns))
		if a := path.Write(t.Context(), shared.ControlPlane, manifest); a.Err != nil {
			t.Fatalf("%s: %s", path.Name, a)
		}
		if got := field(stored(t, manifest), "spec.targetNamespace"); got != ns {
			t.Errorf("%s: targetNamespace is %v, want %s", path.Name, got, ns)
		}
	}
	if a := writepath.Kubectl("apply").Write(t.Context(), shared.ControlPlane, before+"  suspend: true\n"); a.Err != nil {
		t.Fatal(a.Err)
	}
	if got := field(stored(t, before), "spec.targetNamespace"); got != nil {
		t.Errorf("an update injected targetNamespace %v", got)
	}
	missing := strings.Replace(inNamespace("missing-"+ns), "/"+ns+"/", "/no-such-namespace/", 1)
	a := writepath.Kubectl("apply").Write(t.Context(), shared.ControlPlane, missing)
	if a.Err != nil || !strings.Contains(strings.Join(a.Warnings, " "), `namespace "no-such-namespace" does not exist`) {
		t.Errorf("%s; want a warning about the namespace", a)
	}
	if got := field(stored(t, missing), "spec.targetNamespace"); got != nil {
		t.Errorf("a namespace that does not exist was injected: %v", got)
	}
}

func TestMutatingWebhook_TargetNamespaceOnReapply(t *testing.T) {
	setPolicy(t, deny, mapToNamespace)
	ns := namespace(t)
	manifest := strings.Replace(fmt.Sprintf(kustomization, "stays-"+ns, "flux-system"), "/apps/airflow/", "/apps/"+ns+"/", 1)
	for i := range 10 {
		if a := writepath.Flux().Write(t.Context(), shared.ControlPlane, manifest); a.Err != nil || i > 0 && !strings.Contains(a.Text, string(ssa.UnchangedAction)) {
			t.Fatalf("apply %d: %s; want no drift", i+1, a)
		}
	}
	got := stored(t, manifest)
	if got.GetGeneration() != 1 || field(got, "spec.targetNamespace") != ns {
		t.Errorf("generation %d, targetNamespace %v; want 1 and %s", got.GetGeneration(), field(got, "spec.targetNamespace"), ns)
	}
	// A replace omits the field; the webhook keeps the stored value.
	if a := writepath.Kubectl("replace").Write(t.Context(), shared.ControlPlane, manifest); a.Err != nil {
		t.Fatal(a.Err)
	}
	if got := field(stored(t, manifest), "spec.targetNamespace"); got != ns {
		t.Errorf("after a replace targetNamespace is %v, want %s", got, ns)
	}
	// A user's own change is allowed, with a warning about the objects that Flux deletes.
	a := writepath.MergePatch(`{"spec":{"targetNamespace":"elsewhere"}}`).Write(t.Context(), shared.ControlPlane, manifest)
	if a.Err != nil || !strings.Contains(strings.Join(a.Warnings, " "), "Flux will delete what this Kustomization applied to "+ns) {
		t.Errorf("%s; want a warning with the blast radius", a)
	}
	if got := field(stored(t, manifest), "spec.targetNamespace"); got != "elsewhere" {
		t.Errorf("a user's change became %v", got)
	}
}

// A recorded release and the chart that it names: the webhook refuses the values before they were corrected, and allows
// them after.
func TestWebhook_RecordedAirflowRelease(t *testing.T) {
	dir := sharedinputs.Dir(t)
	chart := filepath.Join(dir, "charts", "airflow-1.16.0")
	bundle := filepath.Join(dir, "replay", "trees.bundle")
	setPolicy(t, deny, "")
	server, err := chartrepo.Serve(t.TempDir(), chart)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	clone := filepath.Join(t.TempDir(), "replay")
	if out, err := exec.CommandContext(t.Context(), "git", "clone", "-q", "--no-checkout", bundle, clone).CombinedOutput(); err != nil {
		t.Fatalf("cloning the replay: %v\n%s", err, out)
	}
	for _, tc := range []struct {
		tag     string
		refused bool
	}{{"t-28185b2", true}, {"t-a8a58c1", false}} {
		t.Run(tc.tag, func(t *testing.T) {
			ns := namespace(t)
			cmd := exec.CommandContext(t.Context(), "git", "-C", clone, "show", tc.tag+":kubernetes/apps/airflow/airflow/app/helmrelease.yaml")
			text, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			o := &unstructured.Unstructured{}
			if err := yaml.Unmarshal(text, &o.Object); err != nil {
				t.Fatal(err)
			}
			o.SetNamespace(ns)
			source, _, _ := unstructured.NestedStringMap(o.Object, "spec", "chart", "spec", "sourceRef")
			sourceNamespace := source["namespace"]
			if sourceNamespace == "" {
				sourceNamespace = ns
			}
			createSource(t, sourceNamespace, source["name"], server.URL)
			manifest, err := yaml.Marshal(o.Object)
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range []writepath.Path{writepath.Kubectl("apply"), writepath.Flux()} {
				a := path.Write(t.Context(), shared.ControlPlane, string(manifest))
				if tc.refused != (a.Err != nil) {
					t.Errorf("%s: %s; want refused: %t", path.Name, a, tc.refused)
					continue
				}
				for _, part := range []string{"/data/metadataConnection", "existingSecret", "existingSecretKey"} {
					if tc.refused && !strings.Contains(a.Err.Error(), part) {
						t.Errorf("%s: %s; want %q in it", path.Name, a, part)
					}
				}
			}
		})
	}
}

func createSource(t *testing.T, namespace, name, url string) {
	t.Helper()
	ns := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": namespace}}}
	if err := shared.Client.Create(t.Context(), ns); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	o, err := writepath.Parse(fmt.Sprintf(repository, namespace, url))
	if err != nil {
		t.Fatal(err)
	}
	o.SetName(name)
	if err := shared.Client.Create(t.Context(), o); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}
