// Package validators is the contract between rules and the drivers that run them (the webhook, check, the audit). A
// Rule evaluates one object and reports findings, a Suite runs rules, and a policy decides what is done about the
// findings.
//
// Rules are pure: their only input is a Pass, with a three-valued Lookup of other objects. A rule does not know which
// driver runs it.
package validators

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
)

// Severity is the rule author's opinion of a finding. What is done about it is the operator's decision: the action in
// the policy.
type Severity string

// The severities, worst first.
const (
	SeverityError   Severity = "error"   // the object does not reconcile, or does something else than intended
	SeverityWarning Severity = "warning" // likely a mistake, or a risk
	SeverityInfo    Severity = "info"    // worth knowing
)

// Doc is the documentation of a rule: in the help, on its docs page, in SARIF.
type Doc struct {
	// Title is the diagnosis in at most eight words, without a period.
	Title string
	// Why is what happens if the mistake is applied, in whole sentences.
	Why string
	// Fix is what to do instead, in whole sentences that begin with an imperative.
	Fix string
	// Since is the first release with the rule, "v0.1.0".
	Since string
}

// Stage is where an object is evaluated, as a set of bits.
type Stage uint8

// The stages.
const (
	// StageAdmission: the API server is about to store an object. It has validated the object by its schema, and dropped
	// what is not in it.
	StageAdmission Stage = 1 << iota
	// StageOffline: an object or file of a Git tree, with what the tree builds.
	StageOffline
	// StageAudit: an object that is stored in a cluster.
	StageAudit

	// StageAll is every stage.
	StageAll = StageAdmission | StageOffline | StageAudit
)

// Has reports whether the set has all stages of the other one.
func (s Stage) Has(other Stage) bool { return s&other == other }

// String returns the names of the stages, joined by "|".
func (s Stage) String() string {
	var names []string
	for _, one := range []struct {
		stage Stage
		name  string
	}{{StageAdmission, "admission"}, {StageOffline, "offline"}, {StageAudit, "audit"}} {
		if s.Has(one.stage) {
			names = append(names, one.name)
		}
	}
	return strings.Join(names, "|")
}

// Scope is what a rule's Check is called for. Exactly one field is set.
type Scope struct {
	// Kinds: objects of these kinds.
	Kinds []schema.GroupKind
	// AnyKind: objects of every kind. No webhook is registered for such a rule.
	AnyKind bool
	// File: files of a Git tree (Request.File).
	File bool
	// Unapplied: objects that no Kustomization applies (Provenance.Unapplied), and no others.
	Unapplied bool
}

// String describes the scope: "Kustomization (kustomize.toolkit.fluxcd.io)", "objects of any kind".
func (s Scope) String() string {
	switch {
	case s.AnyKind:
		return "objects of any kind"
	case s.File:
		return "files of a Git tree"
	case s.Unapplied:
		return "Flux objects that no Kustomization applies"
	}
	names := make([]string, 0, len(s.Kinds))
	for _, gk := range s.Kinds {
		name := gk.Kind
		if gk.Group != "" {
			name += " (" + gk.Group + ")"
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// Defaults are the actions of the default policy, by stage.
type Defaults struct {
	Admission, Offline v1alpha1.Action
	// Audit is Admission when empty.
	Audit v1alpha1.Action
	// Reason is why the actions are not those that the severity suggests; a whole sentence, empty when they are. It
	// becomes a comment in the default policy.
	Reason string
}

// Meta declares a rule, once, next to its code. The README's table, the default policy, the docs page, the
// AdmissionPolicy's schema, RBAC and the webhook configurations are generated from it.
type Meta struct {
	// ID is stable and never reused: two letters of the family, three digits.
	ID string
	// Name is the key in the policy, the metric label and the docs anchor: lower-case words joined by hyphens.
	Name string
	// Scope is what Check is called for.
	Scope Scope
	// Stages are where Check is called.
	Stages Stage
	// KindStages are the stages of those of Scope.Kinds that Stages does not apply to.
	KindStages map[schema.GroupKind]Stage
	// Deletion means that Check is called for objects that are being deleted, and for no others. Other rules are not evaluated for
	// these by the audit.
	Deletion bool
	// Component is the component of the manifests that grants the background audit what it reads for the rule, and has it evaluate
	// the rule; empty for the base. The command audit evaluates all rules.
	Component string
	// Severity is the author's opinion; the operator's action is separate.
	Severity Severity
	// Defaults are the actions of the default policy.
	Defaults Defaults
	// Doc is the text for people.
	Doc Doc
	// Reads are the other kinds that Check may look up. RBAC and informers are generated from them.
	Reads []schema.GroupKind
	// Params returns a pointer to the default value of the rule's typed parameters; nil for a rule without any. The
	// struct's JSON tags, comments and kubebuilder markers become the rule's part of the AdmissionPolicy's schema.
	Params func() any
	// Convention means that the rule is about a convention that a tree may not have: a check does not report it where most
	// objects do otherwise, unless a policy lists the rule or a flag names it.
	Convention bool
	// Group is the name of a group of findings with one cause, which reports show as one; empty for none.
	Group string
	// Supersedes are the names of rules whose findings at the same position the rule's own findings replace.
	Supersedes []string
}

// ObjectOnly reports whether the rule evaluates the object alone: it declares no other kind but Namespace, which is always in
// memory, so that it needs neither the API server nor charts.
func (m *Meta) ObjectOnly() bool {
	return !slices.ContainsFunc(m.Reads, func(gk schema.GroupKind) bool { return gk != schema.GroupKind{Kind: "Namespace"} })
}

// Evaluates reports whether objects of a kind are in the rule's scope and evaluated at the stage.
func (m *Meta) Evaluates(gk schema.GroupKind, stage Stage) bool {
	return m.stagesOf(gk)&stage != 0 && slices.Contains(m.Scope.Kinds, gk)
}

// KindsAt returns the kinds of the rule's scope that are evaluated at the stage.
func (m *Meta) KindsAt(stage Stage) []schema.GroupKind {
	var out []schema.GroupKind
	for _, gk := range m.Scope.Kinds {
		if m.stagesOf(gk)&stage != 0 {
			out = append(out, gk)
		}
	}
	return out
}

func (m *Meta) stagesOf(gk schema.GroupKind) Stage {
	if stages, ok := m.KindStages[gk]; ok {
		return stages
	}
	return m.Stages
}

// DefaultAt returns the action of the default policy at one stage; empty when the rule is not evaluated there.
func (m *Meta) DefaultAt(stage Stage) v1alpha1.Action {
	switch {
	case !m.Stages.Has(stage):
		return ""
	case stage == StageOffline:
		return m.Defaults.Offline
	case stage == StageAudit && m.Defaults.Audit != "":
		return m.Defaults.Audit
	}
	return m.Defaults.Admission
}

// Rule reports problems of exactly one object.
type Rule struct {
	Meta
	// Check evaluates p.Object and reports findings. An error means that the rule could not run; it never denies by
	// itself.
	Check func(ctx context.Context, p *Pass) error
}

var (
	idPattern   = regexp.MustCompile(`^[A-Z]{2}[0-9]{3}$`)
	namePattern = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
)

// Validate returns an error that lists everything missing or malformed in the declaration.
func (m *Meta) Validate() error {
	var problems []string
	bad := func(cond bool, text string) {
		if cond {
			problems = append(problems, text)
		}
	}
	bad(!idPattern.MatchString(m.ID), "ID must be two capital letters and three digits")
	bad(!namePattern.MatchString(m.Name), "Name must be lower-case words joined by hyphens")
	scopes := 0
	for _, is := range []bool{len(m.Scope.Kinds) > 0, m.Scope.AnyKind, m.Scope.File, m.Scope.Unapplied} {
		if is {
			scopes++
		}
	}
	bad(scopes != 1, "Scope must have exactly one of Kinds, AnyKind, File and Unapplied")
	bad(m.Stages == 0, "Stages must be set")
	bad(m.Deletion && m.Stages != StageAudit, "only the audit evaluates objects that are being deleted")
	bad(len(m.Scope.Kinds) == 0 && m.Stages.Has(StageAdmission), "only a rule for Kinds can be evaluated at admission")
	for gk := range m.KindStages {
		bad(!slices.Contains(m.Scope.Kinds, gk), "KindStages must be of Scope.Kinds")
	}
	for _, stage := range []Stage{StageAdmission, StageOffline, StageAudit} {
		bad(
			m.Stages.Has(stage) && !slices.Contains(actions, m.DefaultAt(stage)),
			"Defaults must have an action for stage "+stage.String(),
		)
	}
	bad(
		!m.Stages.Has(StageAdmission) && m.Defaults.Admission != "" || !m.Stages.Has(StageOffline) && m.Defaults.Offline != "" ||
			!m.Stages.Has(StageAudit) && m.Defaults.Audit != "",
		"Defaults must have no action for a stage without the rule",
	)
	bad(m.Defaults.Reason != "" && !strings.HasSuffix(m.Defaults.Reason, "."), "Defaults.Reason must end with a period")
	bad(
		m.Severity != SeverityError && m.Severity != SeverityWarning && m.Severity != SeverityInfo,
		"Severity must be error, warning or info",
	)
	bad(len(strings.Fields(m.Doc.Title)) > 8, "Doc.Title must have at most eight words")
	bad(m.Doc.Title == "" || strings.HasSuffix(m.Doc.Title, "."), "Doc.Title must be set and not end with a period")
	bad(!strings.HasSuffix(m.Doc.Why, "."), "Doc.Why must end with a period")
	bad(!strings.HasSuffix(m.Doc.Fix, "."), "Doc.Fix must end with a period")
	bad(!strings.HasPrefix(m.Doc.Since, "v"), "Doc.Since must be a version such as v0.1.0")
	if len(problems) > 0 {
		return fmt.Errorf("rule %s %s: %s", m.ID, m.Name, strings.Join(problems, "; "))
	}
	return nil
}

// Compiler is implemented by parameters and settings that are validated and prepared once, when a policy is read. After
// Compile they are shared between requests and do not change. The error begins with the field, relative to the
// parameters: "requiredFor[0].path: ...".
type Compiler interface {
	Compile() error
}

// actions are all actions, mildest first.
var actions = []v1alpha1.Action{v1alpha1.ActionOff, v1alpha1.ActionAudit, v1alpha1.ActionWarn, v1alpha1.ActionDeny}

// DefaultAction returns the action of a policy that has no action for the rule: that of the default policy at the first of
// admission, check and audit that evaluates it.
func (m *Meta) DefaultAction() v1alpha1.Action {
	return cmp.Or(m.DefaultAt(StageAdmission), m.DefaultAt(StageOffline), m.DefaultAt(StageAudit))
}
