package validators

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Operation is the write of an object.
type Operation string

// The operations. Deletions are not evaluated.
const (
	Create Operation = "CREATE"
	Update Operation = "UPDATE"
)

// Request is one object to evaluate.
type Request struct {
	Operation Operation
	// Object is the object as it is to be stored; nil for a file. Rules must not change it.
	Object *unstructured.Unstructured
	// File is a file of a Git tree, for rules of that scope; nil for an object.
	File *File
	// Old is the stored object on an update, else nil. In a Git tree there is none.
	Old *unstructured.Unstructured
	// User is the name of the user of the request; empty outside a cluster.
	User string
	// Stage selects the rules that are evaluated; zero selects those of every stage. A rule's Check does not see it.
	Stage Stage
	// Confined means that findings must not name objects of other namespaces that the object does not name itself: whoever
	// reads them need not have permission to see those. It is always set at admission.
	Confined bool
	// Now is the time that durations in the object's status end at. It is zero where nothing is compared with the time: at
	// admission and in a Git tree.
	Now time.Time
	// Unresolved are the fields of Object with an unknown value: it is encrypted, or comes from a variable outside Git.
	Unresolved []Path
	// Incomplete explains which fields of Object and Old are left out, those of Unresolved; nil if none are. Only rules that
	// read no other object are evaluated then, and no finding at these fields is reported.
	Incomplete error
	// Provenance is how a Git tree contains the object; nil outside a Git tree.
	Provenance *Provenance
}

// Pass is the input of a rule's Check for one object, and collects what it reports.
type Pass struct {
	Request
	// Lookup returns other objects.
	Lookup Lookup
	// Params are the rule's typed parameters, as returned by Meta.Params, with the policy's values.
	Params any

	rule     *Meta
	findings []*Finding
	skipped  []Skipped
	// next is when the first duration ends that Elapsed found not to have ended; zero for none.
	next time.Time
}

// EditOp is the operation of an Edit: those of JSON Patch (RFC 6902).
type EditOp string

// The operations of rules and mutators.
const (
	EditAdd     EditOp = "add"
	EditReplace EditOp = "replace"
	EditRemove  EditOp = "remove"
	EditMove    EditOp = "move"
)

// Edit is one operation of a JSON Patch (RFC 6902).
type Edit struct {
	Op   EditOp
	Path Path
	// From is the source of a move; unused otherwise.
	From Path
	// Value is the new value of add and replace.
	Value any
}

// Finding is one problem of one object or file, reported by a rule.
type Finding struct {
	Diagnostic
	Rule *Meta
	// Path is the offending field, also if it is missing.
	Path Path
	// Value is the value at Path; nil when there is none or it must not be printed.
	Value any
	// Key identifies a finding among those of the same rule and path. It must not change while the problem remains;
	// default: Message.
	Key string
	// Uncertain means that the evidence does not exclude that the object is valid, such as a schema of an older release than the cluster's: no
	// policy refuses the object for it, it is at most a warning. The message states what is not known.
	Uncertain bool
	// OnPurpose means that the object itself shows that its author meant it: check reports it only with a policy that asks
	// for the rule.
	OnPurpose bool
	// Preexisting is set by the Suite on an update if the stored object has the same problem.
	Preexisting bool
}

// Skipped is a rule that was not evaluated, or not completely, with the reason.
type Skipped struct {
	Rule   *Meta
	Reason string
	// Unknown means that data was missing: the policy's onUnknown applies. Otherwise a setting disables what the rule
	// evaluates.
	Unknown bool
	// Cause is the error in Reason; nil if there is none.
	Cause error
}

// RuleError is the error of a rule that could not run: Check returned it or panicked.
type RuleError struct {
	Rule *Meta
	Err  error
}

// Report adds a finding at a path and returns it, so that Check can set its Fix, Edits, Position or Key. The value is
// printed unless it is nil: pass nil if it may be a secret. The message is one sentence without a period.
func (p *Pass) Report(path Path, value any, format string, args ...any) *Finding {
	f := &Finding{
		Diagnostic: Diagnostic{Message: fmt.Sprintf(format, args...), Fix: p.rule.Doc.Fix},
		Rule:       p.rule,
		Path:       path,
		Value:      value,
	}
	p.findings = append(p.findings, f)
	return f
}

// Elapsed reports whether a duration has passed since a time. Until then the audit evaluates the object again when it has. It
// returns false for a time that is not known, which is zero, and where nothing is compared with the time.
func (p *Pass) Elapsed(since time.Time, d time.Duration) bool {
	if p.Now.IsZero() || since.IsZero() {
		return false
	}
	end := since.Add(d)
	if !p.Now.Before(end) {
		return true
	}
	if p.next.IsZero() || end.Before(p.next) {
		p.next = end
	}
	return false
}

// Skip records that the rule does not evaluate the object, or not completely, because a setting of the object or of the
// operator disables what it evaluates.
func (p *Pass) Skip(format string, args ...any) {
	p.skipped = append(p.skipped, Skipped{Rule: p.rule, Reason: fmt.Sprintf(format, args...)})
}

// Unknown records that the rule cannot evaluate the object, or not completely, because something could not be read. An
// error among the arguments is the cause.
func (p *Pass) Unknown(format string, args ...any) {
	s := Skipped{Rule: p.rule, Reason: fmt.Sprintf(format, args...), Unknown: true}
	for _, a := range args {
		if err, ok := a.(error); ok {
			s.Cause = err
		}
	}
	p.skipped = append(p.skipped, s)
}
