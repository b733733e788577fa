package delivery

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

// kstatusCases are objects of kinds that both know, beside those of testdata/chains.
const kstatusCases = `apiVersion: apps/v1
kind: Deployment
metadata: {name: rolling-out, generation: 2}
spec: {replicas: 2}
status: {observedGeneration: 1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: deadline, generation: 1}
spec: {replicas: 1}
status: {observedGeneration: 1, conditions: [{type: Progressing, status: "False", reason: ProgressDeadlineExceeded, message: timed out}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: partly, generation: 1}
spec: {replicas: 3, updateStrategy: {type: RollingUpdate}}
status: {observedGeneration: 1, replicas: 3, readyReplicas: 1, currentReplicas: 3, updatedReplicas: 3}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agents, generation: 1}
status: {observedGeneration: 1, desiredNumberScheduled: 2, currentNumberScheduled: 2, updatedNumberScheduled: 2, numberAvailable: 2, numberReady: 2}
---
apiVersion: batch/v1
kind: Job
metadata: {name: failed, generation: 1}
status: {conditions: [{type: Failed, status: "True", reason: BackoffLimitExceeded, message: too often}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: complete, generation: 1}
status: {succeeded: 1, startTime: "2026-11-26T10:00:00Z", conditions: [{type: Complete, status: "True"}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: pending}
status: {phase: Pending}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: bound}
status: {phase: Bound}
---
apiVersion: v1
kind: Service
metadata: {name: balanced}
spec: {type: LoadBalancer}
status: {}
---
apiVersion: v1
kind: Pod
metadata: {name: done}
status: {phase: Succeeded}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: as.example.com, generation: 1}
status: {conditions: [{type: NamesAccepted, status: "False", reason: ListKindConflict, message: taken}]}
---
apiVersion: example.com/v1
kind: A
metadata: {name: stalled, generation: 1}
status: {conditions: [{type: Stalled, status: "True", reason: Broken, message: broken}]}
---
apiVersion: example.com/v1
kind: A
metadata: {name: reconciling, generation: 1}
status: {conditions: [{type: Reconciling, status: "True", reason: Working, message: working}]}
---
apiVersion: example.com/v1
kind: A
metadata: {name: ready, generation: 1}
status: {observedGeneration: 1, conditions: [{type: Ready, status: "True", reason: Done, message: done}]}
---
apiVersion: example.com/v1
kind: A
metadata: {name: not-ready, generation: 1}
status: {observedGeneration: 1, conditions: [{type: Ready, status: "False", reason: Broken, message: broken}]}
---
apiVersion: example.com/v1
kind: A
metadata: {name: deleted, generation: 1, deletionTimestamp: "2026-11-26T10:00:00Z"}
`

// explained are the differences to kstatus, "KIND: state here, state there", with the reason.
var explained = map[string]string{
	"A: Failed, InProgress":                  "kstatus takes every Ready=False for progress; the reason is no word for progress",
	"APIService: Failed, Current":            "kstatus does not know the condition Available",
	"BackupStorageLocation: Failed, Current": "kstatus does not know the phase",
	"ClusterSecretStore: Failed, InProgress": "kstatus takes every Ready=False for progress",
	"ExternalSecret: Failed, InProgress":     "kstatus takes every Ready=False for progress",
	"GitRepository: Failed, InProgress":      "kstatus takes every Ready=False for progress",
	"HelmChart: Failed, InProgress":          "kstatus takes every Ready=False for progress",
	"HelmRepository: Failed, InProgress":     "kstatus takes every Ready=False for progress",
	"HelmRelease: Failed, InProgress":        "kstatus takes every Ready=False for progress",
	"HelmRelease: Suspended, Current":        "kstatus does not know spec.suspend: the release was never installed",
	"Kustomization: Failed, InProgress":      "kustomize-controller sets Reconciling=True while it fails and tries again",
	"Kustomization: InProgress, Current":     "a Kustomization without a condition has not been reconciled",
}

// TestStateOf_KStatus: the states are those of kstatus, but for differences with a reason.
func TestStateOf_KStatus(t *testing.T) {
	objects, err := Read(bytes.NewReader([]byte(kstatusCases)))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/chains/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			if f.Name != "objects.yaml" {
				continue
			}
			more, err := Read(bytes.NewReader(f.Data))
			if err != nil {
				t.Fatal(err)
			}
			objects = append(objects, more...)
		}
	}
	states := map[State]status.Status{Ready: status.CurrentStatus, Failed: status.FailedStatus, InProgress: status.InProgressStatus, Terminating: status.TerminatingStatus}
	same, sameReadiness := 0, 0
	var differences []string
	for _, o := range objects {
		result, err := status.Compute(o)
		if err != nil {
			t.Fatal(err)
		}
		state := stateOf(o).state
		if (state == Ready) == (result.Status == status.CurrentStatus) {
			sameReadiness++
		}
		if states[state] == result.Status {
			same++
			continue
		}
		if d := fmt.Sprintf("%s: %s, %s", o.GetKind(), state, result.Status); !slices.Contains(differences, d) {
			differences = append(differences, d)
		}
	}
	var known []string
	for d := range explained {
		known = append(known, d)
	}
	slices.Sort(known)
	slices.Sort(differences)
	if diff := cmp.Diff(known, differences); diff != "" {
		t.Errorf("differences to kstatus (-explained +found):\n%s", diff)
	}
	t.Logf("of %d objects %d %% are in the state of kstatus; on whether they are ready both agree for %d %%",
		len(objects), 100*same/len(objects), 100*sameReadiness/len(objects))
}
