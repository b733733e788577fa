// Package validators holds the contract between rules and the front ends that run them: a Rule looks at one object and reports
// findings; the Suite runs rules; what happens with a finding is the policy's to decide.
//
// Rules are pure. They see the world through a Pass only, and other objects through its three-valued Lookup.
package validators

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
)

// Severity is the author's opinion of how bad a finding is. What is done about it is the operator's Action, in the policy.
type Severity string

// The severities, worst first.
const (
	SeverityError   Severity = "error"   // the object will not reconcile, or does something else than it says
	SeverityWarning Severity = "warning" // likely a mistake, or a risk
	SeverityInfo    Severity = "info"    // worth knowing
)

// Doc is what a person reads about a rule: in the help, on the docs page, in SARIF.
type Doc struct {
	// Title names the mistake in a few words, without a period.
	Title string
	// Why says what happens when the mistake is applied. Whole sentences.
	Why string
	// Fix says what to write instead. Whole sentences.
	Fix string
	// Since is the first release with the rule, "v0.1.0".
	Since string
}

// Meta declares a rule, once, next to its code; every surface shows it.
type Meta struct {
	// ID is stable and never reused: two letters of the family, three digits.
	ID string
	// Name is the key in the policy, the metric label and the docs anchor: lower-case words joined by hyphens.
	Name string
	// Kinds are the kinds that Check is called for.
	Kinds []schema.GroupKind
	// AnyKind says that Check is called for every object, whatever its kind; Kinds is empty then. Such a rule is not asked about what
	// comes out of admission (Request.Admission), and no webhook is registered for it.
	AnyKind bool
	// Files says that Check is called for the objects that stand for files of a Git tree (FileKind); Kinds is empty then.
	Files bool
	// Unapplied says that Check is called for Flux objects that no Kustomization applies (Provenance.Unapplied), and for no other; Kinds is empty then.
	Unapplied bool
	// Offline says that Check needs a rendered Git tree: it is not asked about what comes out of admission. So it is with AnyKind, Files and Unapplied.
	Offline bool
	// Severity is the author's opinion; the operator's action is separate.
	Severity Severity
	// Doc is the text for people.
	Doc Doc
	// Reads lists the other kinds that Check may look up. RBAC and informers are made from it.
	Reads []schema.GroupKind
	// Params returns a pointer to the zero value of the rule's typed parameters; nil when it has none. The struct's JSON tags,
	// comments and kubebuilder markers become the rule's part of the AdmissionPolicy schema.
	Params func() any
}

// Rule reports problems of exactly one object.
type Rule struct {
	Meta
	// Check looks at p.Object and reports. An error means that the rule could not run; it is never a denial by itself.
	Check func(ctx context.Context, p *Pass) error
}

var (
	idPattern   = regexp.MustCompile(`^[A-Z]{2}[0-9]{3}$`)
	namePattern = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
)

// Validate reports what is missing or malformed in the declaration of a rule, so that a suite cannot be built from a broken one.
func (m *Meta) Validate() error {
	var problems []string
	bad := func(cond bool, text string) {
		if cond {
			problems = append(problems, text)
		}
	}
	bad(!idPattern.MatchString(m.ID), "ID must be two capital letters and three digits")
	bad(!namePattern.MatchString(m.Name), "Name must be lower-case words joined by hyphens")
	subjects := 0
	for _, is := range []bool{len(m.Kinds) > 0, m.AnyKind, m.Files, m.Unapplied} {
		if is {
			subjects++
		}
	}
	bad(subjects != 1, "one of Kinds, AnyKind, Files and Unapplied must be set, and only one")
	bad(m.Severity != SeverityError && m.Severity != SeverityWarning && m.Severity != SeverityInfo, "Severity must be error, warning or info")
	bad(m.Doc.Title == "" || strings.HasSuffix(m.Doc.Title, "."), "Doc.Title must be set and not end with a period")
	bad(!strings.HasSuffix(m.Doc.Why, "."), "Doc.Why must end with a period")
	bad(!strings.HasSuffix(m.Doc.Fix, "."), "Doc.Fix must end with a period")
	bad(!strings.HasPrefix(m.Doc.Since, "v"), "Doc.Since must be a version such as v0.1.0")
	if len(problems) > 0 {
		return fmt.Errorf("rule %s %s: %s", m.ID, m.Name, strings.Join(problems, "; "))
	}
	return nil
}

// AtAdmission tells whether the rule is asked about objects that come out of admission. No webhook is registered for the others.
func (m *Meta) AtAdmission() bool { return len(m.Kinds) > 0 && !m.Offline }

// Compiler is implemented by parameters and settings that are checked and prepared once, when a policy is read. After Compile
// they are shared between requests and do not change. The error names the field, relative to the parameters: "requiredFor[0].path: ...".
type Compiler interface {
	Compile() error
}

// DefaultAction is what a policy that names the rule does, when it says nothing else: errors are refused, warnings are shown, the rest is recorded.
func (m *Meta) DefaultAction() v1alpha1.Action {
	switch m.Severity {
	case SeverityError:
		return v1alpha1.ActionDeny
	case SeverityWarning:
		return v1alpha1.ActionWarn
	case SeverityInfo:
		return v1alpha1.ActionAudit
	}
	return v1alpha1.ActionAudit
}
