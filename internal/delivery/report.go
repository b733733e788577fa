package delivery

import (
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Input is what Analyze reads.
type Input struct {
	// Objects are the objects of a cluster, with their status. They are not changed. Of Secrets and ConfigMaps the names
	// and the keys are read, never a value.
	Objects []*unstructured.Unstructured
	// Complete reports whether Objects has every object of a kind, so that one that is not there does not exist; nil for
	// no kind. Without it, an object is missing only where a condition reports that.
	Complete func(schema.GroupKind) bool
	// Get returns an object that is not among Objects when something refers to it. Nil with known means that it does not
	// exist. It is called at most once for each reference; nil to read nothing more.
	Get func(Ref) (o *unstructured.Unstructured, known bool)
	// Inventory returns a whole Kustomization or HelmRelease, if those of Objects and Get have no status.inventory; nil if it
	// cannot be read. It is called at most once for each; nil if they have one.
	Inventory func(Ref) *unstructured.Unstructured
	// Now is the time at which Objects were read; zero to not compare with any time.
	Now time.Time
	// NotRead are the kinds that could not be read.
	NotRead []NotRead
}

// NotRead is a kind, or a part of it, that could not be read.
type NotRead struct {
	What   string `json:"what"`
	Reason string `json:"reason"`
}

// State is what is known about an object.
type State string

// The states of objects.
const (
	// Ready: nothing has to be done.
	Ready State = "Ready"
	// Failed: its controller, or what applies it, reports that it failed.
	Failed State = "Failed"
	// Hung: it has been in progress longer than its own timeout, or than the timeout of what waits for it.
	Hung State = "Hung"
	// Missing: something refers to it, and it does not exist.
	Missing State = "Missing"
	// Suspended: it is not reconciled until somebody resumes it.
	Suspended State = "Suspended"
	// Terminating: it is deleted, but finalizers keep it.
	Terminating State = "Terminating"
	// InProgress: it may become ready without anybody's help.
	InProgress State = "InProgress"
	// Unknown: it is not ready, or was not read, and the cause cannot be determined.
	Unknown State = "Unknown"
)

// Certain reports whether an object in that state is a root that somebody has to repair.
func (s State) Certain() bool { return s != Ready && s != InProgress && s != Unknown }

// Report is the result of Analyze.
type Report struct {
	Summary Summary `json:"summary"`
	// Roots are sorted: those with the most objects behind them first, then by reference. Those in progress and unknown
	// ones come last.
	Roots []*Root `json:"roots"`
	// Objects are the existing objects that are not ready, sorted by reference.
	Objects []*Object `json:"notReady"`
	NotRead []NotRead `json:"notRead"`
}

// Summary has the numbers of a report.
type Summary struct {
	// Objects is the number of objects that were read, NotReady that of those that are not ready.
	Objects  int `json:"objects"`
	NotReady int `json:"notReady"`
	// Roots is the number of roots that somebody has to repair. InProgress and Unknown are those of the other roots.
	Roots      int `json:"roots"`
	InProgress int `json:"inProgress"`
	Unknown    int `json:"unknown"`
}

// Root is an object at the end of a chain: it waits for nothing else.
type Root struct {
	Object Ref   `json:"object"`
	State  State `json:"state"`
	Cause  Cause `json:"cause"`
	// Message is what its controller, or what applies it, reports; empty if nothing does.
	Message string `json:"message,omitempty"`
	// Fix is what to do.
	Fix string `json:"fix"`
	// Evidence is where the state comes from: a condition, a field, or the condition of another object.
	Evidence string `json:"evidence,omitempty"`
	// Since is the time of the last change of that condition.
	Since *time.Time `json:"since,omitempty"`
	// Owner is the Flux object that applies the object; the object itself if it is one of Flux and nothing is known to apply
	// it.
	Owner *Ref `json:"owner,omitempty"`
	// Finalizers are what keeps an object that is deleted.
	Finalizers []Finalizer `json:"finalizers,omitempty"`
	// Cycle are the objects that wait for each other, if the root is a cycle.
	Cycle []Ref `json:"cycle,omitempty"`
	// Blocked are the objects that are not ready because of this root, other than those of Cycle, sorted.
	Blocked []Ref `json:"blocked"`
	// Notes is what else matters to the repair, such as a suspended owner.
	Notes []string `json:"notes,omitempty"`
	// Source is where the object is written in Git; nil if it is not known.
	Source *Source `json:"source,omitempty"`
}

// Source is a line of a file.
type Source struct {
	File string `json:"file"`
	Line int    `json:"line"`
}

// Finalizer is a finalizer of an object that is deleted.
type Finalizer struct {
	Name string `json:"name"`
	// Controller is the state of the controller that removes it: alive, gone or unknown.
	Controller ControllerState `json:"controller"`
	// Detail names the controller.
	Detail string `json:"detail,omitempty"`
}

// ControllerState is what is known about a controller.
type ControllerState string

// The states of a controller. Time alone never proves that a controller is gone.
const (
	// Alive: a ready workload runs it.
	Alive ControllerState = "alive"
	// Gone: all workloads were read and none runs it.
	Gone ControllerState = "gone"
	// NotKnown: neither can be shown.
	NotKnown ControllerState = "unknown"
)

// Object is an object that is not ready.
type Object struct {
	Object  Ref    `json:"object"`
	State   State  `json:"state"`
	Cause   Cause  `json:"cause"`
	Message string `json:"message,omitempty"`
	// WaitsFor are the objects that it waits for directly, sorted; after one that does not exist come those that it waits
	// for itself, such as the ExternalSecret of a Secret.
	WaitsFor []Edge `json:"waitsFor"`
	// Roots are the ends of its chains, sorted: itself if it waits for nothing.
	Roots []Ref `json:"roots"`
}

// EdgeType is the kind of a relation between two objects.
type EdgeType string

// The types of edges.
const (
	DependsOn   EdgeType = "dependsOn"
	FromSource  EdgeType = "source"
	FromChart   EdgeType = "chart"
	Reference   EdgeType = "reference"
	Substitutes EdgeType = "substitution"
	HealthCheck EdgeType = "healthCheck"
	Applies     EdgeType = "applies"
	AppliedBy   EdgeType = "appliedBy"
	ProducedBy  EdgeType = "producedBy"
	Owns        EdgeType = "owns"
	InNamespace EdgeType = "namespace"
	OfKind      EdgeType = "kind"
	Calls       EdgeType = "webhook"
	ServedBy    EdgeType = "servedBy"
	HeldBy      EdgeType = "heldBy"
	RunBy       EdgeType = "controller"
)

// Edge is a relation of an object to one that it waits for.
type Edge struct {
	To   Ref      `json:"to"`
	Type EdgeType `json:"type"`
	// Evidence is the field or the condition that the edge comes from.
	Evidence string `json:"evidence"`
}

// Why returns the part of the report about one object: the object itself if it is not ready, and the roots of its chains
// with the objects on the way. found is false if the report has no such object: it is ready, or was not read.
func (r *Report) Why(ref Ref) (part *Report, found bool) {
	byRef := make(map[Ref]*Object, len(r.Objects))
	for _, o := range r.Objects {
		byRef[o.Object] = o
	}
	roots := map[Ref]bool{}
	if o := byRef[ref]; o != nil {
		for _, root := range o.Roots {
			roots[root] = true
		}
	}
	onTheWay := map[Ref]bool{ref: true}
	for queue := []Ref{ref}; len(queue) > 0; queue = queue[1:] {
		o := byRef[queue[0]]
		if o == nil {
			continue
		}
		for _, e := range o.WaitsFor {
			if !onTheWay[e.To] {
				onTheWay[e.To] = true
				queue = append(queue, e.To)
			}
		}
	}
	part = &Report{Roots: []*Root{}, Objects: []*Object{}, NotRead: r.NotRead, Summary: Summary{Objects: r.Summary.Objects}}
	for _, root := range r.Roots {
		if roots[root.Object] || root.Object == ref {
			part.Roots = append(part.Roots, root)
		}
	}
	for _, o := range r.Objects {
		if onTheWay[o.Object] {
			part.Objects = append(part.Objects, o)
		}
	}
	part.count()
	return part, len(part.Roots) > 0
}

// count sets the numbers of the summary other than that of all objects.
func (r *Report) count() {
	r.Summary.NotReady, r.Summary.Roots, r.Summary.InProgress, r.Summary.Unknown = len(r.Objects), 0, 0, 0
	for _, root := range r.Roots {
		switch {
		case root.State.Certain():
			r.Summary.Roots++
		case root.State == InProgress:
			r.Summary.InProgress++
		default:
			r.Summary.Unknown++
		}
	}
}
