package delivery

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/condition"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// finding is the state of an object and where it comes from.
type finding struct {
	state    State
	cause    Cause
	message  string
	evidence string
	cond     *condition.Condition
}

func ready() finding { return finding{state: Ready} }

// fromCondition returns a finding whose evidence is a condition.
func fromCondition(state State, cause Cause, c *condition.Condition) finding {
	return finding{state: state, cause: cause, message: c.Message, evidence: c.Evidence(), cond: c}
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
		if f := read(o, condition.Of(o)); f.state != "" {
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
	list := condition.Of(o)
	is := condition.Find(list, "Ready")
	stalled := condition.Find(list, "Stalled")
	suspended := boolAt(o.Object, "spec", "suspend")
	switch {
	case withoutStatus(gk, o) && !is.Is("False"):
		return ready()
	case is.Is("True") && gk == flux.HelmRelease && newerFailure(list, is) != nil:
		// Ready can be stale: the release itself is authoritative.
		return fromCondition(Failed, CauseUnknown, newerFailure(list, is))
	case is.Is("True") && (suspended || !outdated(o, is)) && !stalled.Is("True"):
		return ready()
	case suspended:
		f := finding{state: Suspended, cause: CauseSuspended, evidence: "spec.suspend"}
		if is != nil {
			f.message, f.cond = is.Message, is
		}
		return f
	case stalled.Is("True") && !outdated(o, stalled):
		f := fromCondition(Failed, CauseUnknown, stalled)
		if is.Is("False") {
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
	case is.Is("False"):
		return fromCondition(Failed, CauseUnknown, is)
	default:
		f := fromCondition(InProgress, CauseProgressing, is)
		if r := condition.Find(list, "Reconciling"); r.Is("True") && r.Message != "" {
			f = fromCondition(InProgress, CauseProgressing, r)
		}
		return f
	}
}

// observed returns the generation that a condition is about; 0 if that is not known.
func observed(o *unstructured.Unstructured, c *condition.Condition) int64 {
	if c.ObservedGeneration != 0 {
		return c.ObservedGeneration
	}
	// A Kustomization that fails leaves status.observedGeneration behind.
	if c.Is("True") {
		return intAt(o.Object, "status", "observedGeneration")
	}
	return 0
}

// outdated reports whether a condition is about an older generation of the object.
func outdated(o *unstructured.Unstructured, c *condition.Condition) bool {
	n := observed(o, c)
	return n != 0 && n < o.GetGeneration()
}

// newerFailure returns the condition of a failed release that is at least as new as Ready; nil if there is none.
func newerFailure(list []*condition.Condition, is *condition.Condition) *condition.Condition {
	if c := condition.Find(list, "Released"); c.Is("False") && c.ObservedGeneration >= is.ObservedGeneration && strings.HasSuffix(c.Reason, "Failed") && !c.Since.Before(is.Since) {
		return c
	}
	return nil
}

// readers are the states of kinds whose status is not a condition Ready, or whose reasons are known. An empty state
// leaves the object to genericState.
var readers = map[schema.GroupKind]func(*unstructured.Unstructured, []*condition.Condition) finding{
	secretKind:    always,
	configMapKind: always,
	namespaceKind: always,
	apiServiceKind: func(_ *unstructured.Unstructured, list []*condition.Condition) finding {
		if c := condition.Find(list, "Available"); c.Is("False") || c.Is("Unknown") {
			return fromCondition(Failed, CauseAPIService, c)
		}
		return ready()
	},
	cnpgClusterKind: func(o *unstructured.Unstructured, list []*condition.Condition) finding {
		phase, reason := stringAt(o.Object, "status", "phase"), stringAt(o.Object, "status", "phaseReason")
		text := phase
		if reason != "" {
			text += ": " + reason
		}
		f := finding{cause: CauseNotHealthy, message: text, evidence: "status.phase", cond: condition.Find(list, "Ready")}
		switch {
		case phase == "Cluster in healthy state" || phase == "" && f.cond.Is("True"):
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
	clusterExternalSecretKind: func(_ *unstructured.Unstructured, list []*condition.Condition) finding {
		for _, kind := range []string{"NotReady", "PartiallyReady"} {
			if c := condition.Find(list, kind); c.Is("True") && !condition.Find(list, "Ready").Is("True") {
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
	replicationKind: func(o *unstructured.Unstructured, list []*condition.Condition) finding {
		if stringAt(o.Object, "status", "latestMoverStatus", "result") == "Failed" {
			return finding{state: Failed, cause: CauseNotHealthy, message: "the last run of the mover failed", evidence: "status.latestMoverStatus.result"}
		}
		if c := condition.Find(list, "Synchronizing"); c.Is("False") && c.Reason == "Error" {
			return fromCondition(Failed, CauseNotHealthy, c)
		}
		return ready()
	},
}

func always(*unstructured.Unstructured, []*condition.Condition) finding { return ready() }

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
func snapshotState(o *unstructured.Unstructured, _ []*condition.Condition) finding {
	if boolAt(o.Object, "status", "readyToUse") {
		return ready()
	}
	if message := stringAt(o.Object, "status", "error", "message"); message != "" {
		return finding{state: Failed, cause: CauseNotHealthy, message: message, evidence: "status.error.message"}
	}
	return finding{state: InProgress, cause: CauseProgressing, evidence: "status.readyToUse is not true"}
}

// phaseState returns a reader of status.phase.
func phaseState(failed ...string) func(*unstructured.Unstructured, []*condition.Condition) finding {
	return func(o *unstructured.Unstructured, _ []*condition.Condition) finding {
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
func stateState(failed ...string) func(*unstructured.Unstructured, []*condition.Condition) finding {
	return func(o *unstructured.Unstructured, _ []*condition.Condition) finding {
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
	list := condition.Of(o)
	is := condition.Find(list, "Ready")
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
		if is.Is("False") && !isWorkload(RefOf(o).GroupKind()) && !progress[is.Reason] && !outdatedStatus(o) {
			return fromCondition(Failed, CauseNotHealthy, is)
		}
		if is != nil && !is.Is("True") && is.Message != "" {
			f.message, f.evidence = is.Message, is.Evidence()
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
