// Package report writes what a check has found: as text for people, and in the formats that CI systems read. It only writes; what is a
// finding and what is done about it is decided before.
package report

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

// FormatVersion is the version of the JSON format, that Report.Version has. It changes when a reader of the old one would break.
const FormatVersion = "1"

// Report is what a check has found. The JSON tags are the JSON format, which docs/schemas/report.schema.json describes.
type Report struct {
	Version  string    `json:"version"`
	Tool     Tool      `json:"tool"`
	Findings []Finding `json:"findings"`
	Skipped  []Skipped `json:"skipped"`
	Errors   []Error   `json:"errors"`
	Summary  Summary   `json:"summary"`
	// Rules are those that were evaluated, for the formats that carry their texts.
	Rules []*validators.Meta `json:"-"`
	// Graph is drawn in HTML.
	Graph Graph `json:"-"`
}

// Tool names the program that wrote the report.
type Tool struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Object names an object, with the namespace that it has in the cluster.
type Object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
}

// String returns the object for a person: Deployment apps/web.
func (o Object) String() string {
	name := o.Name
	if o.Namespace != "" {
		name = o.Namespace + "/" + o.Name
	}
	return strings.TrimSpace(o.Kind + " " + name)
}

// Position is a place in a file. Line and column count from 1; 0 when they are not known.
type Position struct {
	// File is relative to the root of the tree, with slashes.
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	// Note says what is there, such as "the parent's namespace".
	Note string `json:"note,omitempty"`
}

// String returns file:line:column, as compilers write it.
func (p Position) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// SuppressedBy says why a finding does not count.
type SuppressedBy string

// The reasons for which a finding does not count.
const (
	ByBaseline  SuppressedBy = "baseline"  // it stands in the baseline file
	ByException SuppressedBy = "exemption" // the policy excepts the object
)

// Suppression takes a finding out of the count.
type Suppression struct {
	By     SuppressedBy `json:"by"`
	Reason string       `json:"reason,omitempty"`
}

// Finding is one problem at one place.
type Finding struct {
	Rule     string              `json:"rule"`
	ID       string              `json:"id"`
	Severity validators.Severity `json:"severity"`
	// Action is what the policy does about it: Deny, Warn or Audit.
	Action v1alpha1.Action `json:"action"`
	Object Object          `json:"object"`
	// Path is the offending field of the object; empty for the object itself.
	Path   string `json:"path"`
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	// Related are further places that belong to it.
	Related []Position `json:"also,omitempty"`
	Message string     `json:"message"`
	Fix     string     `json:"fix"`
	// Fixable says that the finding carries edits that repair it.
	Fixable bool `json:"fixable"`
	// Kustomization is the namespace/name of the Kustomization that applies the object; empty for none.
	Kustomization string `json:"kustomization,omitempty"`
	// Fingerprint names the finding from one run to the next; Normalize sets it.
	Fingerprint string       `json:"fingerprint"`
	Suppressed  *Suppression `json:"suppressed,omitempty"`
	// Key is the rule's own name for the problem, that stays the same while the problem does.
	Key string `json:"-"`
	// Fold joins findings of one rule into one in what people read, even where their messages differ. Those with the same message are
	// always joined.
	Fold string `json:"-"`
}

// Position is where the finding is.
func (f *Finding) Position() Position { return Position{File: f.File, Line: f.Line, Column: f.Column} }

// Counts tells whether the finding is none of those that are suppressed.
func (f *Finding) Counts() bool { return f.Suppressed == nil }

// Identity is what makes a finding the same in two runs: everything but the line, which moves when something above it is edited, and
// the version of the API.
type Identity struct {
	Rule, Group, Kind, Namespace, Name, Path, Key string
}

// Identity returns what the finding is known by.
func (f *Finding) Identity() Identity {
	group, _, ok := strings.Cut(f.Object.APIVersion, "/")
	if !ok {
		group = ""
	}
	return Identity{
		Rule: f.Rule, Group: group, Kind: f.Object.Kind, Namespace: f.Object.Namespace, Name: f.Object.Name, Path: f.Path, Key: cmp.Or(f.Key, f.Message),
	}
}

// Fingerprint returns the identity as 32 hexadecimal digits.
func (i Identity) Fingerprint() string {
	// No part can hold a NUL: they come from YAML.
	sum := sha256.Sum256([]byte(strings.Join([]string{i.Rule, i.Group, i.Kind, i.Namespace, i.Name, i.Path, i.Key}, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// Skipped is something that was not evaluated.
type Skipped struct {
	// Rule is empty when it concerns no single rule.
	Rule string `json:"rule,omitempty"`
	ID   string `json:"id,omitempty"`
	// Object is nil when it concerns no single object.
	Object *Object `json:"object,omitempty"`
	File   string  `json:"file,omitempty"`
	Line   int     `json:"line,omitempty"`
	Reason string  `json:"reason"`
	// Unknown tells that something could not be seen; otherwise the object asks not to be judged.
	Unknown bool `json:"unknown"`
}

// Error is something that could not be done.
type Error struct {
	Rule    string  `json:"rule,omitempty"`
	ID      string  `json:"id,omitempty"`
	Object  *Object `json:"object,omitempty"`
	File    string  `json:"file,omitempty"`
	Line    int     `json:"line,omitempty"`
	Column  int     `json:"column,omitempty"`
	Message string  `json:"message"`
}

// Position is where the error is.
func (e *Error) Position() Position { return Position{File: e.File, Line: e.Line, Column: e.Column} }

// Summary are the counts. Normalize sets all but the last four.
type Summary struct {
	// Findings are those that count: Deny, Warn and Audit together.
	Findings   int `json:"findings"`
	Deny       int `json:"deny"`
	Warn       int `json:"warn"`
	Audit      int `json:"audit"`
	Suppressed int `json:"suppressed"`
	Fixable    int `json:"fixable"`
	Skipped    int `json:"skipped"`
	Errors     int `json:"errors"`
	// Objects, Kustomizations and Files are what was looked at.
	Objects        int `json:"objects"`
	Kustomizations int `json:"kustomizations"`
	Files          int `json:"files"`
	// StaleBaseline is the number of entries of the baseline that nothing was found for.
	StaleBaseline int `json:"staleBaseline"`
}

// NodeState says how a node of the graph fares.
type NodeState string

// The states of a node, worst first.
const (
	NodeMissing NodeState = "missing" // something refers to it, and it is not there
	NodeFailing NodeState = "failing" // it has a finding that is refused, or does not build
	NodeWarned  NodeState = "warned"  // it has findings, none of them refused
	NodeUnknown NodeState = "unknown" // it was not, or not wholly, evaluated
	NodeOK      NodeState = "ok"
)

// Graph is what depends on what.
type Graph struct {
	Nodes []Node
	Edges []Edge
}

// Node is one Kustomization, or another object that is waited for.
type Node struct {
	// ID is unique; for a Kustomization it is the namespace/name that Finding.Kustomization has.
	ID    string
	Label string
	// Detail is shown for a node that is pointed at.
	Detail string
	State  NodeState
}

// Edge says that From waits for To.
type Edge struct {
	From, To string
	// Broken marks an edge that cannot be satisfied: to something missing, or part of a cycle.
	Broken bool
}

// Normalize brings the report into its one order, fills in what follows from the rest (version, fingerprints, counts), and makes empty lists
// of missing ones. Call it before writing.
func (r *Report) Normalize() {
	r.Version = FormatVersion
	r.Findings, r.Skipped, r.Errors = notNil(r.Findings), notNil(r.Skipped), notNil(r.Errors)
	s := &r.Summary
	s.Findings, s.Deny, s.Warn, s.Audit, s.Suppressed, s.Fixable = 0, 0, 0, 0, 0, 0
	s.Skipped, s.Errors = len(r.Skipped), len(r.Errors)
	for i := range r.Findings {
		f := &r.Findings[i]
		f.Fingerprint = f.Identity().Fingerprint()
		slices.SortFunc(f.Related, comparePlaces)
		if !f.Counts() {
			s.Suppressed++
			continue
		}
		s.Findings++
		switch f.Action {
		case v1alpha1.ActionDeny:
			s.Deny++
		case v1alpha1.ActionWarn:
			s.Warn++
		case v1alpha1.ActionAudit, v1alpha1.ActionOff:
			s.Audit++
		}
		if f.Fixable {
			s.Fixable++
		}
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(comparePlaces(a.Position(), b.Position()), cmp.Compare(a.ID, b.ID), compareObjects(a.Object, b.Object),
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message))
	})
	slices.SortStableFunc(r.Skipped, func(a, b Skipped) int {
		return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Reason, b.Reason), compareObjects(deref(a.Object), deref(b.Object)), cmp.Compare(a.File, b.File))
	})
	slices.SortStableFunc(r.Errors, func(a, b Error) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Message, b.Message))
	})
	slices.SortFunc(r.Graph.Nodes, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(r.Graph.Edges, func(a, b Edge) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
}

// comparePlaces puts what has no file last.
func comparePlaces(a, b Position) int {
	if (a.File == "") != (b.File == "") {
		if a.File == "" {
			return 1
		}
		return -1
	}
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
}

func compareObjects(a, b Object) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.APIVersion, b.APIVersion))
}

func deref(o *Object) Object {
	if o == nil {
		return Object{}
	}
	return *o
}

func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// Format names a way to write a report.
type Format string

// The formats.
const (
	Text   Format = "text"
	JSON   Format = "json"
	SARIF  Format = "sarif"
	JUnit  Format = "junit"
	GitHub Format = "github"
	HTML   Format = "html"
)

// Formats returns all formats, in the order of the documentation.
func Formats() []Format { return []Format{Text, JSON, SARIF, JUnit, GitHub, HTML} }

// Options say how a report is written.
type Options struct {
	// Color paints text; see ColorWanted.
	Color bool
	// ByKustomization groups text by Kustomization instead of by file.
	ByKustomization bool
	// PathPrefix is put before every file in the formats that name files from the root of a repository (sarif, github), with a slash at its end;
	// empty when the tree is the repository.
	PathPrefix string
	// DocsURL is the folder with the rules' pages, with a slash at its end: NAME.md is put after it. Empty for no links.
	DocsURL string
}

// Write writes a normalized report in a format.
func Write(w io.Writer, format Format, r *Report, o Options) error {
	var err error
	switch format {
	case Text:
		err = WriteText(w, r, o)
	case JSON:
		err = WriteJSON(w, r)
	case SARIF:
		err = WriteSARIF(w, r, o)
	case JUnit:
		err = WriteJUnit(w, r)
	case GitHub:
		err = WriteGitHub(w, r, o)
	case HTML:
		err = WriteHTML(w, r, o)
	default:
		names := make([]string, 0, len(Formats()))
		for _, f := range Formats() {
			names = append(names, string(f))
		}
		return fmt.Errorf("no output format is called %q: use one of %s", format, strings.Join(names, ", "))
	}
	if err != nil {
		return fmt.Errorf("writing the report as %s: %w", format, err)
	}
	return nil
}
