//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/test/controlplane/assets"
	"github.com/flux-admission/flux-admission/test/flux"
)

const (
	// whyUser may list everything that `why` reads.
	whyUser = "why"
	whyRole = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: why}
rules: [{apiGroups: ["*"], resources: ["*"], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: why}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: why}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: ` + whyUser + `}]
`
)

// why runs `flux-admission why` as a person of the cluster. It returns the roots that somebody has to repair, in the
// order of their names, and the whole output.
func why(t *testing.T) (roots []string, output string) {
	t.Helper()
	out, code, err := shared.Run(t.Context(), whyUser, "why", "--output", "json")
	if err != nil || code > 1 {
		t.Fatalf("why: exit code %d, %v\n%s", code, err, out)
	}
	var d report.Delivery
	decode(t, out, &d)
	for _, r := range d.Roots {
		if r.State.Certain() {
			roots = append(roots, fmt.Sprintf("%s %s %s", r.Object, r.State, r.Cause))
		}
	}
	slices.Sort(roots)
	return roots, out
}

// decode reads the JSON of an output, which may begin with warnings.
func decode(t *testing.T, output string, into any) {
	t.Helper()
	if err := json.NewDecoder(strings.NewReader(output[max(strings.IndexByte(output, '{'), 0):])).Decode(into); err != nil {
		t.Fatalf("decoding: %v\n%s", err, output)
	}
}

// waitForRoots waits until `why` names exactly these roots.
func waitForRoots(t *testing.T, what string, want ...string) string {
	t.Helper()
	slices.Sort(want)
	ticker := time.NewTicker(2 * time.Second)
	defer ticker.Stop()
	for deadline := time.Now().Add(reconcileTimeout); ; {
		got, output := why(t)
		diff := cmp.Diff(want, got)
		if diff == "" || len(want)+len(got) == 0 {
			return output
		}
		if time.Now().After(deadline) {
			text, _, _ := shared.Run(t.Context(), whyUser, "why")
			t.Fatalf("%s: roots (-want +got):\n%s\n%s", what, diff, text)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-ticker.C:
		}
	}
}

// TestWhy_Evening: everything of one evening is wrong at the same time, and ten services wait. `why` names the roots and
// nothing else, and after each repair one root less.
func TestWhy_Evening(t *testing.T) {
	setPolicy(t, "Enforce")
	waitForRoots(t, "before anything is wrong")
	e := newEvening(t)
	e.commit(e.files())
	if err := shared.Apply(t.Context(), e.kustomization("evening", "cluster", "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, _, err := shared.ControlPlane.Kubectl(context.WithoutCancel(t.Context()), nil, "delete", "kustomization.kustomize.toolkit.fluxcd.io/evening", "-n", flux.Namespace, "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	// The CRD is deleted while an instance has a finalizer that nobody removes: no snapshot-controller runs.
	waitFor(t, "platform", flux.Ready(""))
	apply(t, snapshotContent("old", `, finalizers: ["snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"]`))
	e.kubectl("delete", "crd", contents, "--wait=false")
	// The platform is suspended, and then there is a new revision.
	e.suspend("platform", true)
	e.commit(map[string]string{e.ns + "/platform/object.yaml": e.configMap("platform") + "data: {a: b}\n", e.ns + "/snapshots/object.yaml": snapshotContent("new", "")})

	roots := map[string]string{
		"nessie":    "Cluster " + e.ns + "/db Failed InvalidObject",
		"team":      "Kustomization " + e.ns + "/misplaced Failed AdmissionDenied",
		"airflow":   "HelmRelease " + e.ns + "/airflow Failed AdmissionDenied",
		"secrets":   "Secret flux-system/entered-by-hand Missing NotFound",
		"snapshots": "VolumeSnapshotContent old Terminating Terminating",
		"platform":  "Kustomization flux-system/platform Suspended Suspended",
	}
	left := func() []string { return slices.Sorted(maps.Values(roots)) }
	output := waitForRoots(t, "everything is wrong", left()...)
	for i := range 10 {
		if name := fmt.Sprintf(`"svc-%d"`, i+1); !strings.Contains(output, name) {
			t.Errorf("the report does not have %s, which waits", name)
		}
	}
	if !strings.Contains(output, `"controller": "gone"`) {
		t.Error("the controller of the finalizer is not gone")
	}
	for _, repair := range []struct {
		root string
		do   func()
	}{
		{"nessie", func() {
			e.commit(map[string]string{e.ns + "/nessie/object.yaml": cluster(e.ns, "{enablePodMonitor: false}")})
		}},
		{"platform", func() {
			e.suspend("platform", false)
		}},
		{"team", func() {
			e.commit(map[string]string{e.ns + "/team/object.yaml": kustomization("misplaced-"+e.ns, "flux-system", "./nowhere", "  targetNamespace: "+e.ns+"\n")})
		}},
		{"secrets", func() {
			apply(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: entered-by-hand, namespace: flux-system}\nstringData: {a: b}\n")
			e.reconcile("secrets")
		}},
		{"airflow", func() { e.commit(map[string]string{e.ns + "/airflow/object.yaml": release(e.ns, "{user: airflow}")}) }},
		{"snapshots", func() {
			e.kubectl("patch", contents+"/old", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
			e.kubectl("wait", "--for=delete", "crd/"+contents, "--timeout=60s")
			paths, err := assets.CRDs(t.Context(), assets.VolumeSnapshots)
			if err != nil {
				t.Fatal(err)
			}
			if err := shared.ControlPlane.InstallCRDs(t.Context(), paths...); err != nil {
				t.Fatal(err)
			}
			e.reconcile("snapshots")
		}},
	} {
		repair.do()
		delete(roots, repair.root)
		waitForRoots(t, "after the repair of "+repair.root, left()...)
	}
	for i := range 10 {
		waitFor(t, fmt.Sprintf("svc-%d", i+1), flux.Ready(""))
	}
}

// contents is the CRD of External Snapshotter that is deleted.
const contents = "volumesnapshotcontents.snapshot.storage.k8s.io"

func snapshotContent(name, meta string) string {
	return fmt.Sprintf(`apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotContent
metadata: {name: %s%s}
spec: {driver: csi, deletionPolicy: Retain, source: {snapshotHandle: a}, volumeSnapshotRef: {name: a, namespace: default}}
`, name, meta)
}

// evening has the files of the tree and the cluster of TestWhy_Evening.
type evening struct {
	t  *testing.T
	ns string
}

func newEvening(t *testing.T) *evening {
	t.Helper()
	e := &evening{t, shared.Namespace(t, "evening-")}
	apply(t, helmRepository(e.ns))
	return e
}

// kustomization returns a Flux Kustomization. It is not tried again before somebody repairs something, so that its
// status is that of its last failure.
func (e *evening) kustomization(name, dir, more string) string {
	return fmt.Sprintf(`apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: %s, namespace: flux-system}
spec:
  interval: 1h
  timeout: 20s
  path: ./%s/%s
  prune: true
  sourceRef: {kind: GitRepository, name: tree}
%s`, name, e.ns, dir, more)
}

func (e *evening) configMap(name string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: %s}\n", name, e.ns)
}

// files returns five Kustomizations with what is wrong, one that is suspended later, and ten services behind them.
func (e *evening) files() map[string]string {
	files := map[string]string{}
	add := func(name, more, manifest string) {
		files[e.ns+"/cluster/"+name+".yaml"] = e.kustomization(name, name, more)
		files[e.ns+"/"+name+"/object.yaml"] = manifest
	}
	add("nessie", "", cluster(e.ns, "{enabled: true}"))
	add("team", "", kustomization("misplaced", e.ns, "./nowhere", "  targetNamespace: "+e.ns+"\n"))
	add("airflow", "", release(e.ns, "{existingSecret: db, existingSecretKey: uri}"))
	add("secrets", "  postBuild: {substituteFrom: [{kind: Secret, name: entered-by-hand}]}\n", e.configMap("secrets"))
	add("snapshots", "", e.configMap("snapshots"))
	add("platform", "", e.configMap("platform"))
	for i, on := range []string{"nessie", "nessie", "team", "airflow", "airflow", "secrets", "platform", "snapshots", "svc-7", "svc-8"} {
		name := fmt.Sprintf("svc-%d", i+1)
		add(name, "  dependsOn: [{name: "+on+"}]\n", e.configMap(name))
	}
	return files
}

func (e *evening) kubectl(args ...string) {
	e.t.Helper()
	if _, stderr, err := shared.ControlPlane.Kubectl(e.t.Context(), nil, args...); err != nil {
		e.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
}

// commit has Flux fetch a commit of the files.
func (e *evening) commit(files map[string]string) {
	e.t.Helper()
	if _, err := shared.Git.Commit(e.t.Context(), files, "Change the evening"); err != nil {
		e.t.Fatal(err)
	}
	if err := flux.Reconcile(e.t.Context(), shared.Client, flux.GitRepository(flux.Namespace, "tree")); err != nil {
		e.t.Fatal(err)
	}
}

// suspend does what `flux suspend` and `flux resume` do. kustomize-controller reverts fields that kubectl manages.
func (e *evening) suspend(kustomization string, on bool) {
	e.t.Helper()
	e.kubectl("patch", "kustomization.kustomize.toolkit.fluxcd.io/"+kustomization, "-n", flux.Namespace, "--field-manager=flux", "--type=merge",
		"-p", fmt.Sprintf(`{"spec":{"suspend":%t}}`, on))
}

func (e *evening) reconcile(kustomization string) {
	e.t.Helper()
	if err := flux.Reconcile(e.t.Context(), shared.Client, flux.Kustomization(flux.Namespace, kustomization)); err != nil {
		e.t.Fatal(err)
	}
}
