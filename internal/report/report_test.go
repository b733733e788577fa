package report_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v5"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/validators"
)

var update = flag.Bool("update", false, "update the golden files")

// hostile is a name that breaks every format that does not escape it.
const hostile = "</script><script>alert(1)</script>\"'&%\n::error::x\x1b[31m\u202e,:"

func rules() []*validators.Meta {
	meta := func(id, name, title string, s validators.Severity) *validators.Meta {
		return &validators.Meta{
			ID: id, Name: name, Severity: s, Scope: validators.Scope{Kinds: []schema.GroupKind{{Kind: "Widget"}}},
			Doc: validators.Doc{Title: title, Why: "The reconciliation hangs.", Fix: "Write what exists.", Since: "v0.1.0"},
		}
	}
	return []*validators.Meta{
		meta("KS010", "kustomization-dependency-missing", "Dependency on a Kustomization that does not exist", validators.SeverityError),
		meta("SC001", "unknown-field", "Field that the kind does not have", validators.SeverityError),
		meta("KS001", "kustomization-namespace", "Kustomization outside the allowed namespaces", validators.SeverityWarning),
		meta("XX001", "quiet", "Never found here", validators.SeverityInfo),
	}
}

// sample returns a report with an example of everything.
func sample() *report.Report {
	ks := func(ns, name string) report.Object {
		return report.Object{APIVersion: "kustomize.toolkit.fluxcd.io/v1", Kind: "Kustomization", Namespace: ns, Name: name}
	}
	r := &report.Report{
		Tool:  report.Tool{Name: "flux-admission", Version: "v0.1.0"},
		Rules: rules(),
		Findings: []report.Finding{
			{
				Rule: "unknown-field", ID: "SC001", Severity: validators.SeverityError, Action: v1alpha1.ActionDeny, Fixable: true,
				Object: report.Object{APIVersion: "apps/v1", Kind: "Deployment", Namespace: "web", Name: "shop"}, Path: "spec.replcas",
				File: "apps/shop/deployment.yaml", Line: 7, Column: 3, Kustomization: "web/shop",
				Message: "spec.replcas is not a field of Deployment (apps/v1); did you mean spec.replicas?", Fix: "Write spec.replicas instead.",
			},
			{
				Rule: "kustomization-dependency-missing", ID: "KS010", Severity: validators.SeverityError, Action: v1alpha1.ActionDeny,
				Object: ks("web", "shop"), Path: "spec.dependsOn[0]", File: "apps/shop/ks.yaml", Line: 12, Column: 7, Kustomization: "flux-system/apps",
				Message: "the Kustomization web/database does not exist; data/database does", Fix: "Write namespace: data.",
				Related: []report.Position{{
					Position: validators.Position{File: "apps/data/ks.yaml", Line: 4, Column: 3}, Note: "the one that exists",
				}},
			},
			{
				Rule: "unknown-field", ID: "SC001", Severity: validators.SeverityError, Action: v1alpha1.ActionDeny,
				Object: report.Object{APIVersion: "v1", Kind: "ConfigMap", Namespace: "web", Name: hostile}, Path: "spec[" + hostile + "]",
				File: "apps/b:c d/" + hostile + ".yaml", Line: 1, Column: 1, Kustomization: hostile, Message: hostile, Fix: hostile,
				Related: []report.Position{{Position: validators.Position{File: hostile}, Note: hostile}},
			},
			{
				Rule: "quiet", ID: "XX001", Severity: validators.SeverityInfo, Action: v1alpha1.ActionAudit,
				Object: report.Object{APIVersion: "v1", Kind: "Namespace", Name: "web"}, Message: "worth knowing", Fix: "Nothing.",
			},
			{
				Rule: "unknown-field", ID: "SC001", Severity: validators.SeverityError, Action: v1alpha1.ActionDeny, Kustomization: "web/shop",
				Object: report.Object{APIVersion: "v1", Kind: "Service", Namespace: "web", Name: "shop"}, Path: "spec.prots",
				File: "apps/shop/service.yaml", Line: 3, Column: 3, Message: "spec.prots is not a field of Service (v1)", Fix: "Remove it.",
				Suppressed: &report.Suppression{By: report.ByBaseline, Reason: "to be repaired with the next release"},
			},
			{
				Rule: "kustomization-namespace", ID: "KS001", Severity: validators.SeverityWarning, Action: v1alpha1.ActionAudit,
				Object: ks("legacy", "shop"), Path: "metadata.namespace", File: "apps/legacy/ks.yaml", Line: 5, Column: 3, Kustomization: "flux-system/apps",
				Message: "legacy/shop is not in flux-system", Fix: "Move it to flux-system.",
				Suppressed: &report.Suppression{By: report.ByExemption, Reason: "moves with the next release"},
			},
			{
				Rule: "unknown-field", ID: "SC001", Severity: validators.SeverityError, Action: v1alpha1.ActionDeny, Kustomization: "web/shop",
				Object: report.Object{APIVersion: "v1", Kind: "Service", Namespace: "web", Name: "shop"}, Path: "spec.sessions",
				File: "apps/shop/service.yaml", Line: 9, Column: 3, Message: "spec.sessions is not a field of Service (v1)", Fix: "Remove it.",
				Suppressed: &report.Suppression{
					By: report.ByComment, Reason: "a field of the vendor's fork", Position: &validators.Position{File: "apps/shop/service.yaml", Line: 8, Column: 3},
				},
			},
		},
		Skipped: []report.Skipped{
			{Rule: "helm-values-schema", ID: "HR001", Object: &report.Object{APIVersion: "helm.toolkit.fluxcd.io/v2", Kind: "HelmRelease", Namespace: "web", Name: "a"}, Reason: "charts are not fetched here", Unknown: true},
			{Rule: "helm-values-schema", ID: "HR001", Object: &report.Object{APIVersion: "helm.toolkit.fluxcd.io/v2", Kind: "HelmRelease", Namespace: "web", Name: "b"}, Reason: "charts are not fetched here", Unknown: true},
			{Reason: "https://example.com/base is not in the tree", File: "apps/remote/kustomization.yaml", Line: 3, Unknown: true},
			{Rule: "unknown-field", ID: "SC001", Object: &report.Object{APIVersion: "v1", Kind: "Secret", Namespace: "web", Name: "s"}, Reason: "the object is encrypted with SOPS"},
		},
		Errors: []report.Error{{File: "apps/broken.yaml", Line: 2, Column: 4, Message: "invalid YAML: did not find expected key"}},
		Summary: report.Summary{
			Objects: 120, Kustomizations: 14, Files: 61, StaleBaseline: 1,
		},
		Graph: report.Graph{
			Nodes: []report.Node{
				{ID: "web/shop", State: report.NodeFailing, Detail: "2 findings"}, {ID: "data/database", State: report.NodeOK}, {ID: "web/database", State: report.NodeMissing},
				{ID: hostile, Label: hostile, Detail: hostile, State: report.NodeFailing}, {ID: "flux-system/apps", State: report.NodeWarned}, {ID: "a/a", State: report.NodeFailing}, {ID: "b/b", State: report.NodeFailing},
				{ID: "infra/remote", State: report.NodeUnknown},
			},
			Edges: []report.Edge{
				{From: "web/shop", To: "web/database", Broken: true}, {From: "web/shop", To: "data/database"}, {From: "a/a", To: "b/b", Broken: true}, {From: "b/b", To: "a/a", Broken: true},
			},
		},
	}
	for i := range 5 {
		r.Findings = append(r.Findings, report.Finding{
			Rule: "kustomization-namespace", ID: "KS001", Severity: validators.SeverityWarning, Action: v1alpha1.ActionWarn,
			Object: ks("team", fmt.Sprintf("app-%d", i)), Path: "metadata.namespace", File: fmt.Sprintf("apps/app-%d/ks.yaml", i), Line: 5, Column: 3,
			Kustomization: "flux-system/apps", Message: fmt.Sprintf("team/app-%d is not in flux-system", i), Fix: "Move it to flux-system.", Group: "namespace",
		})
	}
	slices.Reverse(r.Findings) // Normalize sorts them
	r.Normalize()
	return r
}

func options() report.Options {
	return report.Options{PathPrefix: "clusters/", DocsURL: "https://example.com/rules/"}
}

func TestWrite_Golden(t *testing.T) {
	for name, tc := range map[string]struct {
		format report.Format
		report func() *report.Report
		change func(*report.Options)
	}{
		"text.txt":         {report.Text, sample, nil},
		"text-color.txt":   {report.Text, sample, func(o *report.Options) { o.Color = true }},
		"report.json":      {report.JSON, sample, nil},
		"report.sarif":     {report.SARIF, sample, nil},
		"junit.xml":        {report.JUnit, sample, nil},
		"github.txt":       {report.GitHub, sample, nil},
		"report.html":      {report.HTML, sample, nil},
		"clean.txt":        {report.Text, clean, nil},
		"clean.json":       {report.JSON, clean, nil},
		"clean.sarif":      {report.SARIF, clean, nil},
		"clean.xml":        {report.JUnit, clean, nil},
		"clean-github.txt": {report.GitHub, clean, nil},
		"clean.html":       {report.HTML, clean, nil},
		"report.md":        {report.Markdown, sample, nil},
		"clean.md":         {report.Markdown, clean, nil},
	} {
		t.Run(name, func(t *testing.T) {
			o := options()
			if tc.change != nil {
				tc.change(&o)
			}
			got := stopToken.ReplaceAll(write(t, tc.format, tc.report(), o), []byte("TOKEN"))
			path := filepath.Join("testdata", "golden", name)
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("output differs from %s; go test ./internal/report -update updates it (-want +got):\n%s", path, cmp.Diff(string(want), string(got)))
			}
		})
	}
}

// stopToken is a random text, between which GitHub executes no commands.
var stopToken = regexp.MustCompile(`\b[A-Z2-7]{26}\b`)

func clean() *report.Report {
	r := &report.Report{Tool: report.Tool{Name: "flux-admission", Version: "v0.1.0"}, Summary: report.Summary{Objects: 1}}
	r.Normalize()
	return r
}

func write(t testing.TB, f report.Format, r *report.Report, o report.Options) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := report.Write(&b, f, r, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWriteJSON_Schema(t *testing.T) {
	s, err := jsonschema.Compile(filepath.Join("..", "..", "docs", "schemas", "report.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*report.Report{"with findings": sample(), "clean": clean()} {
		validate(t, name, s, write(t, report.JSON, r, options()))
	}
	for name, change := range map[string]string{
		"an unknown action":     `"action": "Refuse"`,
		"an unknown severity":   `"severity": "bad"`,
		"a line that is a text": `"line": "7"`,
	} {
		key, _, _ := strings.Cut(change, ":")
		broken := regexp.MustCompile(key+`: [^,\n]+`).ReplaceAllLiteral(write(t, report.JSON, sample(), options()), []byte(change))
		var v any
		if err := json.Unmarshal(broken, &v); err != nil {
			t.Fatal(err)
		}
		if s.Validate(v) == nil {
			t.Errorf("%s is valid", name)
		}
	}
}

func TestWriteSARIF_Schema(t *testing.T) {
	s, err := jsonschema.Compile(filepath.Join("testdata", "sarif-schema-2.1.0.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*report.Report{"with findings": sample(), "clean": clean()} {
		validate(t, name, s, write(t, report.SARIF, r, options()))
	}
}

func validate(t *testing.T, name string, s *jsonschema.Schema, data []byte) {
	t.Helper()
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if err := s.Validate(v); err != nil {
		t.Errorf("%s: %#v", name, err)
	}
}

func TestWriteJUnit_XML(t *testing.T) {
	d := xml.NewDecoder(bytes.NewReader(write(t, report.JUnit, sample(), options())))
	for {
		if _, err := d.Token(); err != nil {
			if err.Error() != "EOF" {
				t.Error(err)
			}
			return
		}
	}
}

func TestWriteText_ControlCharacters(t *testing.T) {
	for _, r := range string(write(t, report.Text, sample(), options())) {
		if r < ' ' && r != '\n' || r == '\u202e' {
			t.Fatalf("the text contains the control character %U", r)
		}
	}
}

func TestWriteGitHub_Commands(t *testing.T) {
	r := sample()
	for i := range 40 {
		r.Findings = append(r.Findings, report.Finding{
			Rule: "unknown-field", ID: "SC001", Action: v1alpha1.ActionDeny, File: "a.yaml", Line: i + 1, Message: fmt.Sprintf("%d %s", i, strings.Repeat("ä", 5000)),
		})
	}
	r.Normalize()
	counts := map[string]int{}
	commands, log, _ := strings.Cut(string(write(t, report.GitHub, r, options())), "::stop-commands::")
	token, log, _ := strings.Cut(log, "\n")
	if !stopToken.MatchString(token) || !strings.HasSuffix(log, "\n::"+token+"::\n") || strings.Count(log, token) != 1 {
		t.Errorf("the text is not between two tokens: %q … %q", token, log[max(0, len(log)-100):])
	}
	if !strings.Contains(log, " 38 äää") {
		t.Error("the log does not have all findings")
	}
	line := regexp.MustCompile(`^::(error|warning|notice) [^\n:]*::(.*)$`)
	for l := range strings.Lines(commands) {
		m := line.FindStringSubmatch(strings.TrimSuffix(l, "\n"))
		if m == nil {
			t.Errorf("%.80q is not a command", l)
			continue
		}
		counts[m[1]]++
		if len(m[2]) > 5000 {
			t.Errorf("a message of %d bytes", len(m[2]))
		}
	}
	if counts["error"] != 10 || counts["warning"] != 1 || counts["notice"] != 1 {
		t.Errorf("annotations %v, want 10 errors, 1 warning, 1 notice", counts)
	}
}

func TestWriteMarkdown_IsLimitedAndEscaped(t *testing.T) {
	r := sample()
	for i := range 2000 {
		r.Findings = append(r.Findings, report.Finding{
			Rule: "unknown-field", ID: "SC001", Action: v1alpha1.ActionDeny, File: "a.yaml", Line: i + 1,
			Message: fmt.Sprintf("%d @everyone <img src=x> | [a](javascript:b)\n# heading", i),
		})
	}
	r.Normalize()
	text := string(write(t, report.Markdown, r, options()))
	if len(text) > 60_000 {
		t.Errorf("%d bytes", len(text))
	}
	if !strings.HasPrefix(text, report.MarkdownMarker+"\n") || !strings.Contains(text, "more entries omitted") {
		t.Errorf("no marker, or nothing is omitted: %.200s", text)
	}
	for _, bad := range []string{"@everyone", "<img", " [a](javascript", "\n# ", "<script"} {
		if strings.Contains(text, bad) {
			t.Errorf("the text contains %q", bad)
		}
	}
}

func TestWriteHTML_SelfContained(t *testing.T) {
	page := string(write(t, report.HTML, sample(), report.Options{}))
	if strings.ContainsAny(page, "\x1b\u202e") {
		t.Error("the page contains control characters of a name")
	}
	for _, bad := range []string{"http:", "https:", "src=", "@import", "url(", "<link", "alert(1)</script>", "{{", "ZgotmplZ"} {
		if i := strings.Index(strings.ReplaceAll(strings.ReplaceAll(page, "url(#head", ""), "https://example.com/base", ""), bad); i >= 0 {
			t.Errorf("the page contains %q: %.100s", bad, page[i:])
		}
	}
}

func TestWrite_UnknownFormat(t *testing.T) {
	err := report.Write(&bytes.Buffer{}, "yaml", sample(), report.Options{})
	const want = `unknown output format "yaml"; must be one of text, json, sarif, junit, github, html, markdown`
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// failing is a writer that fails after some bytes.
type failing struct{ left int }

var errFull = errors.New("no space left")

func (f *failing) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestWrite_WriterFails(t *testing.T) {
	for _, f := range report.Formats() {
		if err := report.Write(&failing{left: 10}, f, sample(), options()); !errors.Is(err, errFull) {
			t.Errorf("%s: error %v, want %q", f, err, errFull)
		}
	}
}

func TestColorWanted(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, tc := range []struct {
		env  map[string]string
		want bool
	}{
		{nil, false},
		{map[string]string{"FORCE_COLOR": "1"}, true},
		{map[string]string{"CLICOLOR_FORCE": "1", "TERM": "dumb"}, true},
		{map[string]string{"FORCE_COLOR": "0"}, false},
		{map[string]string{"FORCE_COLOR": "1", "NO_COLOR": "1"}, false},
	} {
		if got := report.ColorWanted(f, func(name string) string { return tc.env[name] }); got != tc.want {
			t.Errorf("with %v, color is wanted for a file: %t", tc.env, got)
		}
	}
}

func TestIdentity_Fingerprint(t *testing.T) {
	a := report.Finding{Rule: "r", Object: report.Object{APIVersion: "a/v1", Kind: "K", Name: "n"}, Path: "spec", Line: 1, Message: "m"}
	b := a
	b.Line, b.Object.APIVersion = 99, "a/v2"
	if a.Identity().Fingerprint() != b.Identity().Fingerprint() {
		t.Error("a line or a version changes the fingerprint")
	}
	b.Key = "other"
	if a.Identity().Fingerprint() == b.Identity().Fingerprint() {
		t.Error("another problem has the same fingerprint")
	}
}

func BenchmarkWrite(b *testing.B) {
	r := sample()
	for i := range 1000 {
		id := fmt.Sprintf("ns-%d/app-%d", i%40, i)
		r.Graph.Nodes = append(r.Graph.Nodes, report.Node{ID: id, State: report.NodeOK})
		for k := 1; k <= i%4 && k < i; k++ {
			r.Graph.Edges = append(r.Graph.Edges, report.Edge{From: id, To: fmt.Sprintf("ns-%d/app-%d", (i/(k+1))%40, i/(k+1))})
		}
		r.Findings = append(r.Findings, report.Finding{Rule: "unknown-field", ID: "SC001", Action: v1alpha1.ActionDeny, File: id, Line: i, Kustomization: id, Message: id})
	}
	r.Normalize()
	for _, f := range report.Formats() {
		b.Run(string(f), func(b *testing.B) {
			for b.Loop() {
				write(b, f, r, report.Options{})
			}
		})
	}
}
