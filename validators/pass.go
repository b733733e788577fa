package validators

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Operation is what is being done to an object.
type Operation string

// The operations that rules are asked about. Deletions never reach a rule.
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
	// Old is the stored object on an update, nil otherwise. A check of a Git tree has none.
	Old *unstructured.Unstructured
	// User is the name of the user who makes the request; empty outside a cluster.
	User string
	// Stage selects the rules that are evaluated; zero selects those of every stage. A rule's Check does not see it.
	Stage Stage
	// Unresolved are the fields of Object whose value cannot be known here: it is encrypted, or comes from a variable that is not in Git.
	Unresolved []Path
	// Provenance says how the object came to be in a Git tree; nil outside one.
	Provenance *Provenance
}

// Pass is a rule's only window on the world, for one object.
type Pass struct {
	Request
	// Lookup gives other objects.
	Lookup Lookup
	// Params are the rule's typed parameters, as Meta.Params makes them, with the policy's values.
	Params any

	rule     *Meta
	findings []*Finding
	skipped  []Skipped
}

// EditOp is the operation of an Edit, in the words of JSON Patch (RFC 6902).
type EditOp string

// The edits that rules and mutators use.
const (
	EditAdd     EditOp = "add"
	EditReplace EditOp = "replace"
	EditRemove  EditOp = "remove"
	EditMove    EditOp = "move"
)

// Edit is one operation of a JSON Patch that would repair a finding.
type Edit struct {
	Op   EditOp
	Path Path
	// From is the source of a move; unused otherwise.
	From Path
	// Value is what add and replace write.
	Value any
}

// Finding is one problem of one object or file, reported by a rule.
type Finding struct {
	Diagnostic
	Rule *Meta
	// Path is the offending field; for a missing field, the field that should be there.
	Path Path
	// Value is the value at Path; nil when there is none or it must not be printed.
	Value any
	// Key tells two findings of the same rule at the same path apart, across changes that leave the problem as it was. Message when the rule set none.
	Key string
	// Preexisting is set by the Suite on an update: the stored object has the same problem already.
	Preexisting bool
}

// Skipped is a rule that was not, or not wholly, evaluated, and why.
type Skipped struct {
	Rule   *Meta
	Reason string
	// Unknown tells that data was missing: the policy's onUnknown applies. Otherwise the object itself asks not to be judged.
	Unknown bool
	// Cause is the error that Reason quotes; nil when it quotes none.
	Cause error
}

// RuleError is a rule that could not run: it returned an error or panicked.
type RuleError struct {
	Rule *Meta
	Err  error
}

// Report adds a finding at path. A nil value is never printed (it may be a secret). The message is a sentence without a period.
// The returned finding may be given a Fix, Edits or a Key before Check returns.
func (p *Pass) Report(path Path, value any, format string, args ...any) *Finding {
	f := &Finding{Diagnostic: Diagnostic{Message: fmt.Sprintf(format, args...), Fix: p.rule.Doc.Fix}, Rule: p.rule, Path: path, Value: value}
	p.findings = append(p.findings, f)
	return f
}

// Skip says aloud that the rule does not judge the object, because the object asks for that.
func (p *Pass) Skip(format string, args ...any) {
	p.skipped = append(p.skipped, Skipped{Rule: p.rule, Reason: fmt.Sprintf(format, args...)})
}

// Unknown says aloud that the rule cannot judge the object, or not all of it, because something could not be seen. An error among the arguments is the cause.
func (p *Pass) Unknown(format string, args ...any) {
	s := Skipped{Rule: p.rule, Reason: fmt.Sprintf(format, args...), Unknown: true}
	for _, a := range args {
		if err, ok := a.(error); ok {
			s.Cause = err
		}
	}
	p.skipped = append(p.skipped, s)
}
