package delivery

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/validators/flux"
)

// finding is the state of an object and where it comes from.
type finding struct {
	state    State
	cause    Cause
	message  string
	evidence string
	cond     *condition
}

func ready() finding { return finding{state: Ready} }

// fromCondition returns a finding whose evidence is a condition.
func fromCondition(state State, cause Cause, c *condition) finding {
	return finding{state: state, cause: cause, message: c.message, evidence: c.evidence(), cond: c}
}

// evidence names the condition.
func (c *condition) evidence() string {
	if c.reason == "" {
		return fmt.Sprintf("condition %s=%s", c.kind, c.status)
	}
	return fmt.Sprintf("condition %s=%s, reason %s", c.kind, c.status, c.reason)
}

// StateOf returns the state of an object from its own fields alone: Analyze may find that it has another one, such as Hung.
func StateOf(o *unstructured.Unstructured) State { return stateOf(o).state }

// stateOf returns the state of an object from its own fields, with where it comes from.
func stateOf(o *unstructured.Unstructured) finding {
	ref := RefOf(o)
	gk := ref.GroupKind()
	if o.GetDeletionTimestamp() != nil {
		return finding{state: Terminating, cause: CauseTerminating, evidence: "metadata.deletionTimestamp"}
	}
	if isFlux(gk) {
		return fluxState(gk, o)
	}
	if read := readers[gk]; read != nil {
		if f := read(o, conditions(o)); f.state != "" {
			return f
		}
	}
	return genericState(o)
}

// withoutStatus are kinds of Flux that no controller reports a status of.
func withoutStatus(gk schema.GroupKind, o *unstructured.Unstructured) bool {
	return gk == flux.Alert || gk == flux.Provider || gk == flux.HelmRepository && stringAt(o.Object, "spec", "type") == "oci"
}

func fluxState(gk schema.GroupKind, o *unstructured.Unstructured) finding {
	list := conditions(o)
	is := find(list, "Ready")
	stalled := find(list, "Stalled")
	suspended := boolAt(o.Object, "spec", "suspend")
	switch {
	case withoutStatus(gk, o) && !is.is("False"):
		return ready()
	case is.is("True") && gk == flux.HelmRelease && newerFailure(list, is) != nil:
		// Ready can be stale: the release itself is authoritative.
		return fromCondition(Failed, CauseUnknown, newerFailure(list, is))
	case is.is("True") && (suspended || !outdated(o, is)) && !stalled.is("True"):
		return ready()
	case suspended:
		f := finding{state: Suspended, cause: CauseSuspended, evidence: "spec.suspend"}
		if is != nil {
			f.message, f.cond = is.message, is
		}
		return f
	case stalled.is("True") && !outdated(o, stalled):
		f := fromCondition(Failed, CauseUnknown, stalled)
		if is.is("False") {
			f = fromCondition(Failed, CauseUnknown, is)
		}
		return f
	case is == nil:
		return finding{state: InProgress, cause: CauseNotReconciled, evidence: "no condition Ready"}
	case outdated(o, is):
		return finding{
			state: InProgress, cause: CauseNotReconciled, cond: is,
			evidence: fmt.Sprintf("generation %d, condition Ready is of generation %d", o.GetGeneration(), observed(o, is)),
		}
	case is.is("False"):
		return fromCondition(Failed, CauseUnknown, is)
	default:
		f := fromCondition(InProgress, CauseProgressing, is)
		if r := find(list, "Reconciling"); r.is("True") && r.message != "" {
			f = fromCondition(InProgress, CauseProgressing, r)
		}
		return f
	}
}

// observed returns the generation that a condition is about; 0 if that is not known.
func observed(o *unstructured.Unstructured, c *condition) int64 {
	if c.observedGeneration != 0 {
		return c.observedGeneration
	}
	// A Kustomization that fails leaves status.observedGeneration behind.
	if c.is("True") {
		return intAt(o.Object, "status", "observedGeneration")
	}
	return 0
}

// outdated reports whether a condition is about an older generation of the object.
func outdated(o *unstructured.Unstructured, c *condition) bool {
	n := observed(o, c)
	return n != 0 && n < o.GetGeneration()
}

// newerFailure returns the condition of a failed release that is at least as new as Ready; nil if there is none.
func newerFailure(list []condition, is *condition) *condition {
	if c := find(list, "Released"); c.is("False") && c.observedGeneration >= is.observedGeneration && strings.HasSuffix(c.reason, "Failed") && !c.since.Before(is.since) {
		return c
	}
	return nil
}

// readers are the states of kinds whose status is not a condition Ready, or whose reasons are known. An empty state
// leaves the object to genericState.
var readers = map[schema.GroupKind]func(*unstructured.Unstructured, []condition) finding{
	secretKind:    always,
	configMapKind: always,
	namespaceKind: always,
	apiServiceKind: func(_ *unstructured.Unstructured, list []condition) finding {
		if c := find(list, "Available"); c.is("False") || c.is("Unknown") {
			return fromCondition(Failed, CauseAPIService, c)
		}
		return ready()
	},
	cnpgClusterKind: func(o *unstructured.Unstructured, list []condition) finding {
		phase, reason := stringAt(o.Object, "status", "phase"), stringAt(o.Object, "status", "phaseReason")
		text := phase
		if reason != "" {
			text += ": " + reason
		}
		f := finding{cause: CauseNotHealthy, message: text, evidence: "status.phase", cond: find(list, "Ready")}
		switch {
		case phase == "Cluster in healthy state" || phase == "" && f.cond.is("True"):
			return ready()
		case cnpgFailed[phase]:
			f.state = Failed
		case phase == "":
			f.state, f.cause, f.evidence = InProgress, CauseNotReconciled, "no status"
		default:
			f.state = InProgress
		}
		return f
	},
	clusterExternalSecretKind: func(_ *unstructured.Unstructured, list []condition) finding {
		for _, kind := range []string{"NotReady", "PartiallyReady"} {
			if c := find(list, kind); c.is("True") && !find(list, "Ready").is("True") {
				return fromCondition(Failed, CauseNotHealthy, c)
			}
		}
		return finding{}
	},
	snapshotKind:        snapshotState,
	snapshotContentKind: snapshotState,
	backupLocationKind:  phaseState("Unavailable"),
	backupKind:          phaseState("FailedValidation"),
	scheduleKind:        phaseState("FailedValidation"),
	orderKind:           stateState("invalid", "errored", "expired"),
	challengeKind:       stateState("invalid", "errored", "expired"),
	replicationKind: func(o *unstructured.Unstructured, list []condition) finding {
		if stringAt(o.Object, "status", "latestMoverStatus", "result") == "Failed" {
			return finding{state: Failed, cause: CauseNotHealthy, message: "the last run of the mover failed", evidence: "status.latestMoverStatus.result"}
		}
		if c := find(list, "Synchronizing"); c.is("False") && c.reason == "Error" {
			return fromCondition(Failed, CauseNotHealthy, c)
		}
		return ready()
	},
}

func always(*unstructured.Unstructured, []condition) finding { return ready() }

// cnpgFailed are the phases of a CloudNativePG Cluster that somebody has to end.
var cnpgFailed = map[string]bool{
	"Cluster is unrecoverable and needs manual intervention":                           true,
	"Invalid cluster definition":                                                       true,
	"Unable to create required cluster objects":                                        true,
	"Cluster cannot proceed to reconciliation due to an unknown plugin being required": true,
	"Cluster has incomplete or invalid image catalog":                                  true,
	"Not enough disk space":                                                            true,
}

// snapshotState reads a VolumeSnapshot or its content.
func snapshotState(o *unstructured.Unstructured, _ []condition) finding {
	if boolAt(o.Object, "status", "readyToUse") {
		return ready()
	}
	if message := stringAt(o.Object, "status", "error", "message"); message != "" {
		return finding{state: Failed, cause: CauseNotHealthy, message: message, evidence: "status.error.message"}
	}
	return finding{state: InProgress, cause: CauseProgressing, evidence: "status.readyToUse is not true"}
}

// phaseState returns a reader of status.phase.
func phaseState(failed ...string) func(*unstructured.Unstructured, []condition) finding {
	return func(o *unstructured.Unstructured, _ []condition) finding {
		phase := stringAt(o.Object, "status", "phase")
		if !slices.Contains(failed, phase) {
			return ready()
		}
		text := phase
		if message := stringAt(o.Object, "status", "message"); message != "" {
			text += ": " + message
		}
		return finding{state: Failed, cause: CauseNotHealthy, message: text, evidence: "status.phase"}
	}
}

// stateState returns a reader of status.state of cert-manager's ACME kinds.
func stateState(failed ...string) func(*unstructured.Unstructured, []condition) finding {
	return func(o *unstructured.Unstructured, _ []condition) finding {
		state, message := stringAt(o.Object, "status", "state"), stringAt(o.Object, "status", "reason")
		f := finding{state: InProgress, cause: CauseProgressing, message: message, evidence: "status.state"}
		switch {
		case state == "valid" || state == "ready":
			return ready()
		case slices.Contains(failed, state):
			f.state, f.cause = Failed, CauseNotHealthy
		}
		return f
	}
}

// progress are reasons of a condition Ready=False that mean work in progress, other than those that begin or end with a
// word of progressWords.
var progress = map[string]bool{
	"Issuing": true, "Pending": true, "DoesNotExist": true, "Initializing": true, "Starting": true, "ContainersNotReady": true,
	"ClusterIsNotReady": true, "Waiting": true, "Upgrading": true, "Updating": true, "Creating": true, "Provisioning": true, "Deploying": true,
	"Progressing": true, "Reconciling": true, "InProgress": true,
}

// genericState returns the state by kstatus, with the condition that it comes from. kstatus calls every Ready=False
// "in progress": where the reason does not mean that, it is a failure.
func genericState(o *unstructured.Unstructured) finding {
	result, err := status.Compute(o)
	if err != nil {
		return finding{state: Unknown, cause: CauseUnknown, message: err.Error(), evidence: "status"}
	}
	list := conditions(o)
	is := find(list, "Ready")
	if is == nil && reportsReady[RefOf(o).GroupKind()] {
		return finding{state: InProgress, cause: CauseNotReconciled, evidence: "no condition Ready"}
	}
	f := finding{cause: CauseNotHealthy, message: result.Message, evidence: "status", cond: is}
	switch result.Status {
	case status.CurrentStatus:
		return ready()
	case status.FailedStatus:
		f.state = Failed
		if len(result.Conditions) > 0 {
			f.evidence = "status: " + result.Conditions[0].Reason
		}
	case status.InProgressStatus:
		f.state, f.cause = InProgress, CauseProgressing
		if is.is("False") && !isWorkload(RefOf(o).GroupKind()) && !progress[is.reason] && !outdatedStatus(o) {
			return fromCondition(Failed, CauseNotHealthy, is)
		}
		if is != nil && !is.is("True") && is.message != "" {
			f.message, f.evidence = is.message, is.evidence()
		}
	case status.TerminatingStatus:
		f.state, f.cause = Terminating, CauseTerminating
	default:
		f.state, f.cause = Unknown, CauseUnknown
	}
	return f
}

// reportsReady are kinds beside those of Flux whose controllers always set a condition Ready. kstatus calls an object
// without conditions ready.
var reportsReady = map[schema.GroupKind]bool{
	externalSecretKind: true, secretStoreKind: true, clusterSecretStoreKind: true,
	{Group: "external-secrets.io", Kind: "PushSecret"}: true, clusterExternalSecretKind: true,
	certificateKind: true, requestKind: true, issuerKind: true, clusterIssuerKind: true,
}

// outdatedStatus reports whether the controller has not observed the newest generation.
func outdatedStatus(o *unstructured.Unstructured) bool {
	n := intAt(o.Object, "status", "observedGeneration")
	return n != 0 && n < o.GetGeneration()
}

// isWorkload reports whether the kind has a template of Pods.
func isWorkload(gk schema.GroupKind) bool {
	return gk == deploymentKind || gk == statefulKind || gk == daemonKind || gk == replicaKind || gk == jobKind || gk == cronJobKind || gk == podKind
}
