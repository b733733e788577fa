package report

import (
	"fmt"
	"io"
	"net/url"
	"path"
	"strings"

	"github.com/flux-admission/flux-admission/validators"
)

// The subset of SARIF 2.1.0 that WriteSARIF writes (https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html).
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool              sarifTool         `json:"tool"`
		AutomationDetails sarifAutomation   `json:"automationDetails"`
		Invocations       []sarifInvocation `json:"invocations"`
		ColumnKind        string            `json:"columnKind"`
		Results           []sarifResult     `json:"results"`
	}
	// sarifAutomation names the series of runs that this one belongs to. What is up to the last slash of the ID is its category in GitHub's code
	// scanning, in which a later run replaces this one.
	sarifAutomation struct {
		ID string `json:"id"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		Version        string      `json:"version,omitempty"`
		InformationURI string      `json:"informationUri,omitempty"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID                   string           `json:"id"`
		Name                 string           `json:"name"`
		ShortDescription     sarifText        `json:"shortDescription"`
		FullDescription      sarifText        `json:"fullDescription"`
		Help                 sarifText        `json:"help"`
		HelpURI              string           `json:"helpUri,omitempty"`
		DefaultConfiguration sarifRuleConfig  `json:"defaultConfiguration"`
		Properties           sarifRuleDetails `json:"properties"`
	}
	sarifRuleConfig struct {
		Level string `json:"level"`
	}
	sarifRuleDetails struct {
		Tags []string `json:"tags"`
		// Severity is the sort key of GitHub's code scanning.
		Severity string `json:"problem.severity"`
	}
	sarifText struct {
		Text     string `json:"text"`
		Markdown string `json:"markdown,omitempty"`
	}
	sarifResult struct {
		RuleID              string             `json:"ruleId"`
		RuleIndex           *int               `json:"ruleIndex,omitempty"`
		Level               string             `json:"level"`
		Message             sarifText          `json:"message"`
		Locations           []sarifLocation    `json:"locations"`
		RelatedLocations    []sarifLocation    `json:"relatedLocations,omitempty"`
		PartialFingerprints map[string]string  `json:"partialFingerprints"`
		Fixes               []sarifFix         `json:"fixes,omitempty"`
		Suppressions        []sarifSuppression `json:"suppressions,omitempty"`
		Properties          sarifDetails       `json:"properties"`
	}
	sarifDetails struct {
		Action string `json:"action"`
		Object Object `json:"object"`
		Path   string `json:"path"`
		Fix    string `json:"fix,omitempty"`
		Cause  string `json:"cause"`
		// Cluster is the name of the cluster.
		Cluster string `json:"cluster,omitempty"`
	}
	sarifLocation struct {
		ID               int            `json:"id,omitempty"`
		Message          *sarifText     `json:"message,omitempty"`
		PhysicalLocation *sarifPhysical `json:"physicalLocation,omitempty"`
		LogicalLocations []sarifLogical `json:"logicalLocations,omitempty"`
	}
	sarifPhysical struct {
		ArtifactLocation sarifArtifact `json:"artifactLocation"`
		Region           *sarifRegion  `json:"region,omitempty"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine   int `json:"startLine"`
		StartColumn int `json:"startColumn,omitempty"`
		EndLine     int `json:"endLine,omitempty"`
		EndColumn   int `json:"endColumn,omitempty"`
	}
	sarifFix struct {
		Description sarifText     `json:"description"`
		Changes     []sarifChange `json:"artifactChanges"`
	}
	sarifChange struct {
		ArtifactLocation sarifArtifact      `json:"artifactLocation"`
		Replacements     []sarifReplacement `json:"replacements"`
	}
	sarifReplacement struct {
		DeletedRegion   sarifRegion `json:"deletedRegion"`
		InsertedContent sarifText   `json:"insertedContent"`
	}
	sarifLogical struct {
		FullyQualifiedName string `json:"fullyQualifiedName"`
		Kind               string `json:"kind"`
	}
	sarifSuppression struct {
		Kind          string `json:"kind"`
		Justification string `json:"justification,omitempty"`
	}
	sarifInvocation struct {
		ExecutionSuccessful        bool                `json:"executionSuccessful"`
		ToolExecutionNotifications []sarifNotification `json:"toolExecutionNotifications,omitempty"`
	}
	sarifNotification struct {
		Level          string          `json:"level"`
		Message        sarifText       `json:"message"`
		Locations      []sarifLocation `json:"locations,omitempty"`
		AssociatedRule *sarifRuleID    `json:"associatedRule,omitempty"`
	}
	sarifRuleID struct {
		ID string `json:"id"`
	}
)

const sarifSchema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

// WriteSARIF writes the report as a SARIF 2.1.0 log with one run. Files are relative to the root of the repository, by Options.PathPrefix.
func WriteSARIF(w io.Writer, r *Report, o Options) error {
	run := sarifRun{
		Tool:              sarifTool{Driver: sarifDriver{Name: r.Tool.Name, Version: r.Tool.Version, InformationURI: o.DocsURL, Rules: []sarifRule{}}},
		Invocations:       []sarifInvocation{{ExecutionSuccessful: len(r.Errors) == 0}},
		AutomationDetails: sarifAutomation{path.Join("flux-admission", o.Category) + "/"},
		ColumnKind:        "unicodeCodePoints",
		Results:           []sarifResult{},
	}
	index := map[string]int{}
	for i, m := range r.Rules {
		index[m.ID] = i
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRuleOf(m, o))
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		res := sarifResultOf(f, o)
		if n, ok := index[f.ID]; ok {
			res.RuleIndex = &n
		}
		run.Results = append(run.Results, res)
	}
	notify := func(level, text, id string, at validators.Position) {
		n := sarifNotification{Level: level, Message: sarifText{Text: text}}
		if at.File != "" {
			n.Locations = []sarifLocation{{PhysicalLocation: sarifPhysicalOf(at, o)}}
		}
		if _, known := index[id]; known {
			n.AssociatedRule = &sarifRuleID{id}
		}
		run.Invocations[0].ToolExecutionNotifications = append(run.Invocations[0].ToolExecutionNotifications, n)
	}
	for i := range r.Errors {
		e := &r.Errors[i]
		notify("error", e.Message, e.ID, e.Position())
	}
	for _, g := range groupSkipped(r.Skipped) {
		if g.Unknown {
			notify("note", "not evaluated: "+g.Text(), g.ID, validators.Position{File: g.File, Line: g.Line})
		}
	}
	return writeJSON(w, sarifLog{Schema: sarifSchema, Version: "2.1.0", Runs: []sarifRun{run}})
}

func sarifRuleOf(m *validators.Meta, o Options) sarifRule {
	r := sarifRule{
		ID:               m.ID,
		Name:             m.Name,
		ShortDescription: sarifText{Text: m.Doc.Title + "."},
		FullDescription:  sarifText{Text: m.Doc.Why},
		Help: sarifText{
			Text:     m.Doc.Why + "\n\nFix: " + m.Doc.Fix,
			Markdown: "# " + m.Doc.Title + "\n\n" + m.Doc.Why + "\n\n**Fix:** " + m.Doc.Fix + "\n",
		},
		DefaultConfiguration: sarifRuleConfig{Level: severityLevel(m.Severity)},
		Properties:           sarifRuleDetails{Tags: []string{"flux", "kubernetes"}, Severity: problemSeverity(m.Severity)},
	}
	if o.DocsURL != "" {
		r.HelpURI = o.DocsURL + url.PathEscape(m.Name) + ".md"
	}
	return r
}

func problemSeverity(s validators.Severity) string {
	switch s {
	case validators.SeverityError:
		return "error"
	case validators.SeverityWarning:
		return "warning"
	case validators.SeverityInfo:
		return "recommendation"
	}
	return "recommendation"
}

func sarifResultOf(f *Finding, o Options) sarifResult {
	text := f.Message
	if f.Fix != "" {
		text += ". " + f.Fix
	}
	res := sarifResult{
		RuleID: f.ID, Level: level(f.Action), Message: sarifText{Text: text},
		Locations:           []sarifLocation{},
		PartialFingerprints: map[string]string{"fluxAdmissionIdentity/v1": f.Fingerprint},
		Properties:          sarifDetails{Action: string(f.Action), Object: f.Object, Path: f.Path, Fix: f.Fix, Cause: f.Cause, Cluster: f.Cluster},
	}
	loc := sarifLocation{LogicalLocations: []sarifLogical{{FullyQualifiedName: strings.TrimSpace(f.Object.String() + " " + f.Path), Kind: "object"}}}
	if f.File != "" {
		loc.PhysicalLocation = sarifPhysicalOf(f.Position(), o)
	}
	res.Locations = append(res.Locations, loc)
	for i, p := range f.Related {
		related := sarifLocation{ID: i + 1, PhysicalLocation: sarifPhysicalOf(p.Position, o)}
		if p.Note != "" {
			related.Message = &sarifText{Text: p.Note}
		}
		res.RelatedLocations = append(res.RelatedLocations, related)
	}
	if e := f.Edit; e != nil {
		res.Fixes = []sarifFix{{
			Description: sarifText{Text: f.Fix},
			Changes: []sarifChange{{
				ArtifactLocation: sarifPhysicalOf(e.From, o).ArtifactLocation,
				Replacements: []sarifReplacement{{
					DeletedRegion:   sarifRegion{e.From.Line, e.From.Column, e.To.Line, e.To.Column},
					InsertedContent: sarifText{Text: e.Text},
				}},
			}},
		}}
	}
	if s := f.Suppressed; s != nil {
		kind, reason := "external", "in the baseline"
		switch s.By {
		case ByExemption:
			reason = "exempted by the policy"
		case ByComment:
			kind, reason = "inSource", "ignored by a comment"
		case ByBaseline:
		}
		if s.Reason != "" {
			reason = fmt.Sprintf("%s: %s", reason, s.Reason)
		}
		res.Suppressions = []sarifSuppression{{Kind: kind, Justification: reason}}
	}
	return res
}

func sarifPhysicalOf(p validators.Position, o Options) *sarifPhysical {
	// A file name may contain characters that a URI may not, and the prefix of "a:b" must not become a scheme.
	uri := (&url.URL{Path: o.PathPrefix + p.File}).EscapedPath()
	if first, _, _ := strings.Cut(uri, "/"); strings.Contains(first, ":") {
		uri = "./" + uri
	}
	out := &sarifPhysical{ArtifactLocation: sarifArtifact{URI: uri}}
	if p.Line > 0 {
		out.Region = &sarifRegion{StartLine: p.Line, StartColumn: p.Column}
	}
	return out
}

// severityLevel returns the level of a rule whose results have none.
func severityLevel(s validators.Severity) string {
	switch s {
	case validators.SeverityError:
		return "error"
	case validators.SeverityWarning:
		return "warning"
	case validators.SeverityInfo:
		return "note"
	}
	return "note"
}
