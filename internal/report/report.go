// Package report writes the result of a check as text, HTML, or a format that CI systems read. It does not decide what a finding is or which
// action applies.
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

// FormatVersion is the version of the JSON format. It changes with every incompatible change of the format.
const FormatVersion = "1"

// Report is the result of a check. Its JSON tags define the JSON format, which docs/schemas/report.schema.json describes.
type Report struct {
	Version  string    `json:"version"`
	Tool     Tool      `json:"tool"`
	Findings []Finding `json:"findings"`
	Skipped  []Skipped `json:"skipped"`
	Errors   []Error   `json:"errors"`
	Summary  Summary   `json:"summary"`
	// Clusters are those that the tree's Flux entry points define, sorted by name.
	Clusters []Cluster `json:"clusters,omitempty"`
	// Baseline is what has to change in the baseline; nil if there is none.
	Baseline *Baseline `json:"baseline,omitempty"`
	// Tree is the name of the tree, with its revision if it has one; part of the HTML format only.
	Tree string `json:"-"`
	// Rules are the evaluated rules, for the formats that include their documentation.
	Rules []*validators.Meta `json:"-"`
	// Graph is part of the HTML format only.
	Graph Graph `json:"-"`
	// Live means that the objects are those of a cluster, which have no file.
	Live bool `json:"-"`
}

// section returns the heading that a finding is below: its file, or in a cluster its namespace.
func (r *Report) section(o Options, f *Finding) string {
	switch {
	case f.File != "":
		return withPrefix(o, f.File)
	case r.Live && f.Object.Namespace != "":
		return "namespace " + f.Object.Namespace
	case r.Live:
		return "no namespace"
	}
	return "no file"
}

// Baseline names entries of the baseline.
type Baseline struct {
	// Stale are entries without a finding.
	Stale []string `json:"stale,omitempty"`
	// Expired are entries that have expired and whose findings count again.
	Expired []string `json:"expired,omitempty"`
}

// Cluster is a cluster of the tree, with its share of what was evaluated. Normalize sets the counts of findings.
type Cluster struct {
	// Name is the directory of the entry point.
	Name string `json:"name"`
	// Policy is where the policy comes from: a file, a position in the tree, or the default policy.
	Policy         string `json:"policy"`
	Kustomizations int    `json:"kustomizations"`
	Objects        int    `json:"objects"`
	Deny           int    `json:"deny"`
	Warn           int    `json:"warn"`
	Audit          int    `json:"audit"`
}

// Tool is the program that wrote the report.
type Tool struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Object identifies an object, with its namespace in the cluster.
type Object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
}

// String returns the kind, namespace and name of the object: Deployment apps/web.
func (o Object) String() string {
	name := o.Name
	if o.Namespace != "" {
		name = o.Namespace + "/" + o.Name
	}
	return strings.TrimSpace(o.Kind + " " + name)
}

// Position is a position in a file with a note.
type Position struct {
	validators.Position
	// Note describes the position, such as "the parent's namespace".
	Note string `json:"note,omitempty"`
}

// SuppressedBy is the reason why a finding is suppressed.
type SuppressedBy string

// The reasons why a finding is suppressed, with their names in version 1 of the JSON format.
const (
	ByBaseline  SuppressedBy = "baseline"  // the baseline file contains it
	ByExemption SuppressedBy = "exception" // the policy exempts the object
	ByComment   SuppressedBy = "comment"   // a comment in the file ignores it
)

// String returns the reason for a person.
func (b SuppressedBy) String() string {
	if b == ByExemption {
		return "exemption"
	}
	return string(b)
}

// Suppression excludes a finding from the counts and the exit code.
type Suppression struct {
	By     SuppressedBy `json:"by"`
	Reason string       `json:"reason,omitempty"`
	// Position is that of the comment; nil for others.
	Position *validators.Position `json:"position,omitempty"`
}

// Finding is one problem at one position.
type Finding struct {
	Rule     string              `json:"rule"`
	ID       string              `json:"id"`
	Severity validators.Severity `json:"severity"`
	// Action is the action of the policy: Deny, Warn or Audit.
	Action v1alpha1.Action `json:"action"`
	Object Object          `json:"object"`
	// Path is the offending field of the object; empty for the object itself.
	Path   string `json:"path"`
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	// Related are other positions that belong to the finding.
	Related []Position `json:"also,omitempty"`
	Message string     `json:"message"`
	Fix     string     `json:"fix"`
	// Fixable reports whether fix repairs the finding without being given its rule.
	Fixable bool `json:"fixable"`
	// Kustomization is the namespace/name of the Kustomization that applies the object; empty if there is none.
	Kustomization string `json:"kustomization,omitempty"`
	// Cluster is the name of the cluster; empty for what belongs to none or to several.
	Cluster string `json:"cluster,omitempty"`
	// Fingerprint identifies the finding across runs. Normalize sets it.
	Fingerprint string `json:"fingerprint"`
	// Cause is the fingerprint of the first finding with the same cause, which may be the finding itself. Normalize sets it.
	Cause      string       `json:"cause"`
	Suppressed *Suppression `json:"suppressed,omitempty"`
	// Edit repairs a fixable finding; nil if no single edit of its file does.
	Edit *Edit `json:"-"`
	// Of is the rule's finding; nil in a report that was not made by a check.
	Of *validators.Finding `json:"-"`
	// Key is the rule's stable identifier of the problem; empty for the message.
	Key string `json:"-"`
	// Group is the name of a cause that the findings of a rule have in common, although their messages differ.
	Group string `json:"-"`
	// Source is the position of the field in the object's own file, if that is not Position.
	Source validators.Position `json:"-"`
	// Built means that the object is what Flux is about to apply, not what the cluster has.
	Built bool `json:"-"`
}

// Edit replaces what is between two positions of a file, the second one excluded, by a text.
type Edit struct {
	From, To validators.Position
	Text     string
}

// Position returns the position of the finding.
func (f *Finding) Position() validators.Position {
	return validators.Position{File: f.File, Line: f.Line, Column: f.Column}
}

// Counts reports whether the finding is not suppressed.
func (f *Finding) Counts() bool { return f.Suppressed == nil }

// Identity identifies a finding across runs. It contains neither the line, which moves with edits above it, nor the API version.
type Identity struct {
	Rule, Group, Kind, Namespace, Name, Path, Key string
	// Cluster is the name of the cluster; part of the fingerprint in a tree with several clusters only.
	Cluster string
}

// Identity returns the identity of the finding.
func (f *Finding) Identity() Identity {
	group, _, ok := strings.Cut(f.Object.APIVersion, "/")
	if !ok {
		group = ""
	}
	return Identity{
		Rule: f.Rule, Group: group, Kind: f.Object.Kind, Namespace: f.Object.Namespace, Name: f.Object.Name, Path: f.Path, Key: cmp.Or(f.Key, f.Message),
		Cluster: f.Cluster,
	}
}

// Fingerprint returns the identity as 32 hexadecimal digits.
func (i Identity) Fingerprint() string {
	// No part contains a NUL, since all of them come from YAML.
	parts := []string{i.Rule, i.Group, i.Kind, i.Namespace, i.Name, i.Path, i.Key}
	if i.Cluster != "" {
		parts = append(parts, i.Cluster)
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// Skipped is something that was not evaluated.
type Skipped struct {
	// Rule is empty if it concerns no single rule.
	Rule string `json:"rule,omitempty"`
	ID   string `json:"id,omitempty"`
	// Object is nil if it concerns no single object.
	Object *Object `json:"object,omitempty"`
	File   string  `json:"file,omitempty"`
	Line   int     `json:"line,omitempty"`
	Reason string  `json:"reason"`
	// Leading puts it before all others: it changes how the whole report is read.
	Leading bool `json:"-"`
	// Unknown reports whether the rule was inconclusive; otherwise it does not apply to the object.
	Unknown bool `json:"unknown"`
}

// Error is a failure of the check itself.
type Error struct {
	Rule    string  `json:"rule,omitempty"`
	ID      string  `json:"id,omitempty"`
	Object  *Object `json:"object,omitempty"`
	File    string  `json:"file,omitempty"`
	Line    int     `json:"line,omitempty"`
	Column  int     `json:"column,omitempty"`
	Message string  `json:"message"`
}

// Position returns the position of the error.
func (e *Error) Position() validators.Position {
	return validators.Position{File: e.File, Line: e.Line, Column: e.Column}
}

// Summary contains the counts. Normalize sets all but the last four.
type Summary struct {
	// Findings counts the findings that are not suppressed: the sum of Deny, Warn and Audit.
	Findings   int `json:"findings"`
	Deny       int `json:"deny"`
	Warn       int `json:"warn"`
	Audit      int `json:"audit"`
	Suppressed int `json:"suppressed"`
	// Causes is the number of causes of the findings that are not suppressed.
	Causes int `json:"causes"`
	// Ignored counts those of Suppressed that a comment ignores.
	Ignored int `json:"ignored"`
	Fixable int `json:"fixable"`
	Skipped int `json:"skipped"`
	Errors  int `json:"errors"`
	// Objects, Kustomizations and Files count what was evaluated.
	Objects        int `json:"objects"`
	Kustomizations int `json:"kustomizations"`
	Files          int `json:"files"`
	// Unknown counts the evaluations that were inconclusive; they are among Skipped.
	Unknown int `json:"unknown"`
	// StaleBaseline counts the entries of the baseline without a finding.
	StaleBaseline int `json:"staleBaseline"`
}

// Nothing reports whether nothing was evaluated, which is no reason to pass.
func (s Summary) Nothing() bool { return s.Objects == 0 && s.Findings == 0 && s.Suppressed == 0 }

// NodeState is the state of a node of the graph.
type NodeState string

// The states of a node, worst first.
const (
	NodeMissing NodeState = "missing" // referenced, but does not exist
	NodeFailing NodeState = "failing" // has a finding with action Deny, or fails to build
	NodeWarned  NodeState = "warned"  // has findings, none of them with action Deny
	NodeUnknown NodeState = "unknown" // not or only partly evaluated
	NodeOK      NodeState = "ok"
)

// Graph is the graph of dependencies.
type Graph struct {
	Nodes []Node
	Edges []Edge
}

// Node is a Kustomization or a missing dependency of one.
type Node struct {
	// ID is unique; for a Kustomization it is the namespace/name as in Finding.Kustomization.
	ID    string
	Label string
	// Detail is the tooltip.
	Detail string
	State  NodeState
}

// Edge is a dependency of From on To.
type Edge struct {
	From, To string
	// Broken marks a dependency that is never ready: a missing one, or one in a cycle.
	Broken bool
}

// Normalize sorts the report, sets the version, the fingerprints and the counts, and replaces nil lists by empty ones. Call it before Write.
func (r *Report) Normalize() {
	r.Version = FormatVersion
	r.Findings, r.Skipped, r.Errors = notNil(r.Findings), notNil(r.Skipped), notNil(r.Errors)
	s := &r.Summary
	s.Findings, s.Deny, s.Warn, s.Audit, s.Suppressed, s.Ignored, s.Fixable = 0, 0, 0, 0, 0, 0, 0
	s.Skipped, s.Errors = len(r.Skipped), len(r.Errors)
	s.Unknown = 0
	for _, skipped := range r.Skipped {
		if skipped.Unknown {
			s.Unknown++
		}
	}
	slices.SortFunc(r.Clusters, func(a, b Cluster) int { return cmp.Compare(a.Name, b.Name) })
	for i := range r.Clusters {
		r.Clusters[i].count(r.Findings)
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		id := f.Identity()
		if len(r.Clusters) < 2 {
			id.Cluster = ""
		}
		f.Fingerprint = id.Fingerprint()
		slices.SortFunc(f.Related, func(a, b Position) int { return comparePositions(a.Position, b.Position) })
		if !f.Counts() {
			s.Suppressed++
			if f.Suppressed.By == ByComment {
				s.Ignored++
			}
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
		if r.Live {
			if c := cmp.Compare(a.Object.Namespace, b.Object.Namespace); c != 0 {
				return c
			}
		}
		return cmp.Or(comparePositions(a.Position(), b.Position()), cmp.Compare(a.ID, b.ID), compareObjects(a.Object, b.Object),
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message), cmp.Compare(a.Cluster, b.Cluster))
	})
	s.Causes = setCauses(r.Findings)
	slices.SortStableFunc(r.Skipped, func(a, b Skipped) int {
		return cmp.Or(compareBools(b.Leading, a.Leading), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Reason, b.Reason), compareObjects(deref(a.Object), deref(b.Object)), cmp.Compare(a.File, b.File))
	})
	slices.SortStableFunc(r.Errors, func(a, b Error) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Message, b.Message))
	})
	slices.SortFunc(r.Graph.Nodes, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(r.Graph.Edges, func(a, b Edge) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
}

// count sets the counts of the findings of the cluster.
func (c *Cluster) count(findings []Finding) {
	c.Deny, c.Warn, c.Audit = 0, 0, 0
	for i := range findings {
		switch f := &findings[i]; {
		case f.Cluster != c.Name || !f.Counts():
		case f.Action == v1alpha1.ActionDeny:
			c.Deny++
		case f.Action == v1alpha1.ActionWarn:
			c.Warn++
		default:
			c.Audit++
		}
	}
}

// clustersOf returns the names of the clusters of findings, each once, in a report with several clusters; else none.
func (r *Report) clustersOf(findings ...*Finding) []string {
	var out []string
	for _, f := range findings {
		if len(r.Clusters) > 1 && f.Cluster != "" && !slices.Contains(out, f.Cluster) {
			out = append(out, f.Cluster)
		}
	}
	return out
}

// clusters returns "cluster a" or "clusters a, b" for the findings of a group; empty in a report with one cluster.
func (g *findingGroup) clusters(r *Report) string {
	switch names := r.clustersOf(append([]*Finding{g.first}, g.rest...)...); len(names) {
	case 0:
		return ""
	case 1:
		return "cluster " + names[0]
	default:
		return "clusters " + strings.Join(names, ", ")
	}
}

// compareBools sorts false before true.
func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// comparePositions sorts positions without a file last.
func comparePositions(a, b validators.Position) int {
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

// Format is an output format.
type Format string

// The formats.
const (
	Text   Format = "text"
	JSON   Format = "json"
	SARIF  Format = "sarif"
	JUnit  Format = "junit"
	GitHub Format = "github"
	HTML   Format = "html"
	// Markdown is the text of a comment.
	Markdown Format = "markdown"
)

// Formats returns all formats in the order of the documentation.
func Formats() []Format { return []Format{Text, JSON, SARIF, JUnit, GitHub, HTML, Markdown} }

// Options configure how a report is written.
type Options struct {
	// Color enables colors in the text format; see ColorWanted.
	Color bool
	// PathPrefix is the path of the tree in its repository, with a trailing slash, for the formats with paths from the root of the repository
	// (sarif, github); empty for the root.
	PathPrefix string
	// Category tells reports of one commit apart that are about different parts of a repository, such as a directory or a cluster, in SARIF;
	// empty for the whole repository.
	Category string
	// DocsURL is the URL of the directory with the pages of the rules, RULE.md, with a trailing slash; empty for no links.
	DocsURL string
}

// level is the severity of an action in SARIF, whose levels are error, warning and note.
func level(a v1alpha1.Action) string {
	switch a {
	case v1alpha1.ActionDeny:
		return "error"
	case v1alpha1.ActionWarn:
		return "warning"
	case v1alpha1.ActionAudit, v1alpha1.ActionOff:
		return "note"
	}
	return "note"
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
		err = WriteJUnit(w, r, o)
	case GitHub:
		err = WriteGitHub(w, r, o)
	case HTML:
		err = WriteHTML(w, r, o)
	case Markdown:
		err = WriteMarkdown(w, r, o)
	default:
		names := make([]string, 0, len(Formats()))
		for _, f := range Formats() {
			names = append(names, string(f))
		}
		return fmt.Errorf("unknown output format %q; must be one of %s", format, strings.Join(names, ", "))
	}
	if err != nil {
		return fmt.Errorf("writing the report as %s: %w", format, err)
	}
	return nil
}
