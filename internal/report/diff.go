package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/flux-admission/flux-admission/validators"
)

// Diff is what two trees apply differently. Its JSON tags define the JSON format.
type Diff struct {
	Version string   `json:"version"`
	Tool    Tool     `json:"tool"`
	Base    Revision `json:"base"`
	Head    Revision `json:"head"`
	// Effects are what the change does in the cluster, beside the changes themselves.
	Effects []Effect `json:"effects"`
	// Admission are the findings of the admission webhook on the changed objects.
	Admission []Finding `json:"admission"`
	// Findings are those of a check that the base does not have.
	Findings []Finding      `json:"findings"`
	Objects  []ObjectChange `json:"objects"`
	// NotCompared is what could not be compared, with the reasons.
	NotCompared []NotCompared `json:"notCompared"`
	Summary     DiffSummary   `json:"summary"`
	// Clusters are the names of the clusters, if there are several.
	Clusters []string `json:"-"`
}

// report returns a report of findings of the diff.
func (d *Diff) report(findings []Finding) *Report {
	r := &Report{Findings: findings}
	for _, name := range d.Clusters {
		r.Clusters = append(r.Clusters, Cluster{Name: name})
	}
	return r
}

// Revision is one side of a diff.
type Revision struct {
	// Name is what the user gave, or "working tree".
	Name   string `json:"name"`
	Commit string `json:"commit,omitempty"`
}

// String returns the name with the short commit.
func (r Revision) String() string {
	const short = 10
	if len(r.Commit) < short || r.Name == r.Commit {
		return r.Name
	}
	return r.Name + " (" + r.Commit[:short] + ")"
}

// Change is what happens to an object or field.
type Change string

// The changes.
const (
	Added   Change = "added"
	Removed Change = "removed"
	Changed Change = "changed"
	// Moved is an object that is in another namespace, or applied by another Kustomization.
	Moved Change = "moved"
)

// ObjectChange is an object that the trees apply differently.
type ObjectChange struct {
	Change  Change `json:"change"`
	Cluster string `json:"cluster,omitempty"`
	// Kustomization applies it at the head, or at the base if it is removed.
	Kustomization string `json:"kustomization,omitempty"`
	// Release is the HelmRelease whose chart creates it.
	Release string `json:"helmRelease,omitempty"`
	Object  Object `json:"object"`
	// From is what a moved object was; FromKustomization what applied it.
	From              *Object `json:"from,omitempty"`
	FromKustomization string  `json:"fromKustomization,omitempty"`
	File              string  `json:"file,omitempty"`
	Line              int     `json:"line,omitempty"`
	// Fields are the changed fields of a changed or moved object.
	Fields []FieldChange `json:"fields,omitempty"`
}

// FieldChange is a field that differs.
type FieldChange struct {
	Path   string `json:"path"`
	Change Change `json:"change"`
	Before any    `json:"before,omitempty"`
	After  any    `json:"after,omitempty"`
	// Masked means that the values differ and are not shown.
	Masked bool `json:"masked,omitempty"`
	// Hunks is the unified diff of a text of several lines.
	Hunks string `json:"hunks,omitempty"`
}

// EffectKind is a sort of effect.
type EffectKind string

// The kinds of effects.
const (
	EffectDelete    EffectKind = "delete"    // Flux deletes an object
	EffectOrphan    EffectKind = "orphan"    // an object stays that nothing applies any more
	EffectMove      EffectKind = "move"      // another namespace or Kustomization
	EffectImmutable EffectKind = "immutable" // the API server refuses the change
	EffectRefused   EffectKind = "refused"   // the API server or a webhook refuses an object, in a dry-run
	EffectReinstall EffectKind = "reinstall" // Helm uninstalls the release and installs it again
	EffectRestart   EffectKind = "restart"   // Pods are replaced
	EffectImage     EffectKind = "image"     // another image
	EffectConfig    EffectKind = "config"    // users of a ConfigMap or Secret
	EffectSuspended EffectKind = "suspended" // the change does not arrive
	EffectBlocked   EffectKind = "blocked"   // the Kustomization cannot be built
	EffectWaits     EffectKind = "waits"     // what waits for the change
)

// Effect is something that a change does in the cluster.
type Effect struct {
	Kind     EffectKind          `json:"kind"`
	Severity validators.Severity `json:"severity"`
	Cluster  string              `json:"cluster,omitempty"`
	Object   Object              `json:"object"`
	// Kustomization applies the object.
	Kustomization string `json:"kustomization,omitempty"`
	Message       string `json:"message"`
	// With are the objects that the effect takes along.
	With []string `json:"with,omitempty"`
}

// NotCompared is a Kustomization or release whose objects are not known on one side.
type NotCompared struct {
	Cluster string `json:"cluster,omitempty"`
	Name    string `json:"name"`
	Reason  string `json:"reason"`
}

// DiffSummary has the counts. NormalizeDiff sets it.
type DiffSummary struct {
	Added       int `json:"added"`
	Removed     int `json:"removed"`
	Changed     int `json:"changed"`
	Moved       int `json:"moved"`
	Errors      int `json:"errorEffects"`
	Warnings    int `json:"warningEffects"`
	Admission   int `json:"admission"`
	Deny        int `json:"deny"`
	Findings    int `json:"findings"`
	NotCompared int `json:"notCompared"`
}

// Differs reports whether the trees apply something different, as far as that is known.
func (d *Diff) Differs() bool {
	return len(d.Objects) > 0 || len(d.Effects) > 0 || len(d.NotCompared) > 0
}

// severityRank sorts severities, worst first.
func severityRank(s validators.Severity) int {
	return slices.Index([]validators.Severity{validators.SeverityError, validators.SeverityWarning, validators.SeverityInfo}, s)
}

// Normalize sorts the diff, counts, and replaces nil lists by empty ones. Call it before WriteDiff.
func (d *Diff) Normalize() {
	d.Version = FormatVersion
	for _, list := range [][]Finding{d.Admission, d.Findings} {
		d.report(list).Normalize()
	}
	d.Admission, d.Findings = notNil(d.Admission), notNil(d.Findings)
	d.Objects, d.Effects, d.NotCompared = notNil(d.Objects), notNil(d.Effects), notNil(d.NotCompared)
	slices.SortStableFunc(d.Objects, func(a, b ObjectChange) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Kustomization, b.Kustomization), cmp.Compare(a.Release, b.Release),
			compareObjects(a.Object, b.Object))
	})
	slices.SortStableFunc(d.Effects, func(a, b Effect) int {
		return cmp.Or(cmp.Compare(severityRank(a.Severity), severityRank(b.Severity)), cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Kind, b.Kind),
			compareObjects(a.Object, b.Object), cmp.Compare(a.Message, b.Message))
	})
	slices.SortStableFunc(d.NotCompared, func(a, b NotCompared) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Reason, b.Reason))
	})
	s := DiffSummary{Admission: len(d.Admission), Findings: len(d.Findings), NotCompared: len(d.NotCompared)}
	for _, o := range d.Objects {
		switch o.Change {
		case Added:
			s.Added++
		case Removed:
			s.Removed++
		case Changed:
			s.Changed++
		case Moved:
			s.Moved++
		}
	}
	for _, e := range d.Effects {
		switch e.Severity {
		case validators.SeverityError:
			s.Errors++
		case validators.SeverityWarning:
			s.Warnings++
		case validators.SeverityInfo:
		}
	}
	for i := range d.Admission {
		if level(d.Admission[i].Action) == "error" && d.Admission[i].Counts() {
			s.Deny++
		}
	}
	d.Summary = s
}

// DiffFormats returns the formats of a diff in the order of the documentation.
func DiffFormats() []Format { return []Format{Text, Markdown, HTML, JSON} }

// WriteDiff writes a normalized diff in one of DiffFormats.
func WriteDiff(w io.Writer, format Format, d *Diff, o Options) error {
	var err error
	switch format {
	case Text:
		err = writeDiffText(w, d, o)
	case Markdown:
		err = writeDiffMarkdown(w, d, o)
	case HTML:
		err = writeDiffHTML(w, d)
	case JSON:
		err = writeJSON(w, d)
	case SARIF, JUnit, GitHub:
		return fmt.Errorf("a diff has no format %s", format)
	default:
		return fmt.Errorf("a diff has no format %s", format)
	}
	if err != nil {
		return fmt.Errorf("writing the diff as %s: %w", format, err)
	}
	return nil
}
