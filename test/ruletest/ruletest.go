// Package ruletest runs a rule's cases: txtar archives in validators/<package>/testdata/<id>, beside the rule. Its own
// test runs the cases of all rules.
//
// A case is one archive:
//
//	A sentence that describes the case.
//	unknown: "regexp"        (any number: what the rule reports as unknown)
//	skipped: "regexp"        (any number: what it skips because the object opts out)
//	now: 2026-01-02T15:04:05Z  (the time of the evaluation; without the line nothing is compared with the time)
//	stage: admission         (the object comes from the API server; without the line the case is evaluated at every stage of the rule)
//	-- object.yaml --        the object; directives expect findings on the line of the offending field (see Directive):
//	spec: {...}  # want KS001 "regexp"      a finding
//	spec: {...}  # was KS001 "regexp"       a finding that the stored object has already (only with old.yaml)
//	-- file.yaml --          instead of object.yaml for rules on files: {name, problems: [{kind, message, position, ...}]}
//	-- old.yaml --           the stored object; makes the case an UPDATE
//	-- lookup/NAME.yaml --   objects that a lookup finds; all others are absent
//	-- lookup/hidden --      "Kind namespace/name: reason" or "Kind.group ..." a line: objects that are there and cannot be read
//	-- lookup/crds/NAME.yaml -- CustomResourceDefinitions that are installed; other kinds are Kubernetes' own, or absent. A line
//	                         "Kind group/Name: reason" in lookup/hidden makes a kind unknown
//	-- lookup/charts/... --  chart directories, for lookups of charts
//	-- lookup/builds.yaml -- what Flux Kustomizations build, a list; the Kustomizations themselves are objects of lookup/:
//	                         {kustomization: ns/name, applies: ["Kind.group ns/name", ...], dependents: [ns/name, ...], complete: true, problems: [{kind, path, message, ...}]}
//	-- provenance.yaml --    {declaredNamespace, declaredName, kustomization: ns/name, unapplied, referencedBy, written: {path: text}} of the object
//	-- policy.yaml --        the rule's parameters
//	-- fixed.yaml --         the object after the findings' edits; it must pass
package ruletest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/tools/txtar"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/all"
)

// Case is one parsed archive.
type Case struct {
	// Name is the archive's file name without its ending.
	Name string
	// Title is the first line of the archive.
	Title   string
	Request validators.Request
	// Source is object.yaml as it is written.
	Source []byte
	// Objects are those of lookup/*.yaml.
	Objects []*unstructured.Unstructured
	// Hidden are the objects that cannot be read, with the reason.
	Hidden map[ObjectKey]string
	// CRDs are the CustomResourceDefinitions of lookup/crds/.
	CRDs []*unstructured.Unstructured
	// Builds are what the Kustomizations of lookup/builds.yaml build.
	Builds map[types.NamespacedName]*validators.Build
	// Charts are the files below lookup/charts/, by their path below it.
	Charts map[string][]byte
	// Params is policy.yaml; nil when there is none.
	Params []byte
	// Fixed is fixed.yaml; nil when there is none.
	Fixed *unstructured.Unstructured
	Want  []Want
	// Unknown and Skipped match the reasons of evaluations without a result.
	Unknown, Skipped []*regexp.Regexp
}

// ObjectKey names one object by kind.
type ObjectKey struct {
	Kind string
	types.NamespacedName
}

// Want is one finding that a case expects.
type Want struct {
	Line int
	// Rule is the rule's ID.
	Rule    string
	Message *regexp.Regexp
	// Preexisting tells that the stored object has the problem already.
	Preexisting bool
}

// ChartsFunc makes a resolver of charts from a directory of chart directories.
type ChartsFunc func(t *testing.T, dir string) lookup.Charts

// Parse reads one archive.
func Parse(name string, data []byte) (*Case, error) {
	a := txtar.Parse(data)
	c := &Case{
		Name:    name,
		Request: validators.Request{Operation: validators.Create},
		Hidden:  map[ObjectKey]string{},
		Charts:  map[string][]byte{},
	}
	if err := c.header(string(a.Comment)); err != nil {
		return nil, err
	}
	for _, f := range a.Files {
		var err error
		switch {
		case f.Name == "object.yaml":
			c.Source = f.Data
			if c.Request.Object, err = object(f.Data); err == nil {
				c.Want, err = wants(f.Data)
			}
		case f.Name == "file.yaml":
			c.Source = f.Data
			if c.Request.File, err = file(f.Data); err == nil {
				c.Want, err = wants(f.Data)
			}
		case f.Name == "old.yaml":
			c.Request.Operation = validators.Update
			c.Request.Old, err = object(f.Data)
		case f.Name == "policy.yaml":
			c.Params = f.Data
		case f.Name == "fixed.yaml":
			c.Fixed, err = object(f.Data)
		case f.Name == "provenance.yaml":
			c.Request.Provenance, err = provenance(f.Data)
		case f.Name == "lookup/builds.yaml":
			c.Builds, err = builds(f.Data)
		case f.Name == "lookup/hidden":
			err = c.hidden(string(f.Data))
		case strings.HasPrefix(f.Name, "lookup/charts/"):
			c.Charts[strings.TrimPrefix(f.Name, "lookup/charts/")] = f.Data
		case strings.HasPrefix(f.Name, "lookup/crds/"):
			var o *unstructured.Unstructured
			if o, err = object(f.Data); err == nil {
				c.CRDs = append(c.CRDs, o)
			}
		case strings.HasPrefix(f.Name, "lookup/"):
			var o *unstructured.Unstructured
			if o, err = object(f.Data); err == nil {
				c.Objects = append(c.Objects, o)
			}
		default:
			err = errors.New("is not a file that a case has")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", name, f.Name, err)
		}
	}
	if (c.Request.Object == nil) == (c.Request.File == nil) {
		return nil, fmt.Errorf("%s: want one of object.yaml and file.yaml", name)
	}
	return c, nil
}

func (c *Case) header(comment string) error {
	for line := range strings.Lines(comment) {
		line = strings.TrimSpace(line)
		word, rest, _ := strings.Cut(line, ": ")
		if line == "stage: "+validators.StageAdmission.String() {
			c.Request.Stage = validators.StageAdmission
			continue
		}
		if word == "now" {
			now, err := time.Parse(time.RFC3339, rest)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", c.Name, line, err)
			}
			c.Request.Now = now
			continue
		}
		if word != "unknown" && word != "skipped" {
			if c.Title == "" {
				c.Title = line
			}
			continue
		}
		text, err := strconv.Unquote(rest)
		if err != nil {
			return fmt.Errorf("%s: %s: the regexp must be quoted: %w", c.Name, line, err)
		}
		re, err := regexp.Compile(text)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", c.Name, line, err)
		}
		if word == "unknown" {
			c.Unknown = append(c.Unknown, re)
		} else {
			c.Skipped = append(c.Skipped, re)
		}
	}
	if c.Title == "" {
		return fmt.Errorf("%s: the first line must say what the case shows", c.Name)
	}
	return nil
}

func (c *Case) hidden(text string) error {
	for line := range strings.Lines(text) {
		name, reason, ok := strings.Cut(strings.TrimSpace(line), ": ")
		kind, key, ok2 := strings.Cut(name, " ")
		if !ok || !ok2 {
			return fmt.Errorf("%q: want Kind namespace/name: reason", line)
		}
		ns, n, _ := strings.Cut(key, "/")
		c.Hidden[ObjectKey{kind, types.NamespacedName{Namespace: ns, Name: n}}] = reason
	}
	return nil
}

func object(data []byte) (*unstructured.Unstructured, error) {
	j, err := sigsyaml.YAMLToJSON(data)
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(j); err != nil {
		return nil, err
	}
	return u, nil
}

func wants(src []byte) ([]Want, error) {
	list, err := Directives(src)
	if err != nil {
		return nil, err
	}
	var out []Want
	for _, d := range list {
		if d.Message == nil || d.Word == "suppressed" {
			return nil, fmt.Errorf("line %d: a case of a rule needs want or was with a message", d.Line)
		}
		out = append(out, Want{Line: d.Line, Rule: d.Rule, Message: d.Message, Preexisting: d.Word == "was"})
	}
	return out, nil
}

// Load reads every archive of a directory, in the order of their names.
func Load(dir string) ([]*Case, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil {
		return nil, err
	}
	var cases []*Case
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		c, err := Parse(strings.TrimSuffix(filepath.Base(p), ".txtar"), data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		cases = append(cases, c)
	}
	if len(cases) == 0 {
		return nil, fmt.Errorf("%s: no *.txtar", dir)
	}
	return cases, nil
}

// Lookup returns what the case's rules can look up.
func (c *Case) Lookup(t *testing.T, charts ChartsFunc) *lookup.Memory {
	t.Helper()
	m := lookup.NewMemory(c.Objects...)
	for key, reason := range c.Hidden {
		m.Hide(schema.ParseGroupKind(key.Kind), key.NamespacedName, errors.New(reason))
	}
	if charts != nil {
		m.Charts = charts(t, c.WriteCharts(t))
	}
	m.Kinds = &kinds{c: c}
	if c.Builds != nil {
		m.Builds = built(c.Builds)
	}
	return m
}

// WriteCharts writes the case's charts below a temporary directory and returns it.
func (c *Case) WriteCharts(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range c.Charts {
		if !fs.ValidPath(name) {
			t.Fatalf("%s: chart file %s is not below lookup/charts", c.Name, name)
		}
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Suite returns a suite of the rule, with the case's parameters, and of the rules that supersede it.
func (c *Case) Suite(t *testing.T, rule *validators.Rule) *validators.Suite {
	t.Helper()
	s, err := validators.NewSuite(WithSuperseding(rule)...)
	if err != nil {
		t.Fatal(err)
	}
	if c.Params == nil {
		return s
	}
	if rule.Params == nil {
		t.Fatalf("%s: policy.yaml for a rule without parameters", c.Name)
	}
	params := rule.Params()
	if err := sigsyaml.UnmarshalStrict(c.Params, params); err != nil {
		t.Fatalf("%s: policy.yaml: %v", c.Name, err)
	}
	if cp, ok := params.(validators.Compiler); ok {
		if err := cp.Compile(); err != nil {
			t.Fatalf("%s: policy.yaml: %v", c.Name, err)
		}
	}
	return s.Bind(map[string]any{rule.Name: params}, func(*validators.Meta) bool { return true })
}

// WithSuperseding returns the rule and those of the product that supersede it.
func WithSuperseding(rule *validators.Rule) []*validators.Rule {
	out := []*validators.Rule{rule}
	for _, other := range all.Rules() {
		if slices.Contains(other.Supersedes, rule.Name) {
			out = append(out, other)
		}
	}
	return out
}

// Own returns what a result has of one rule.
func Own(res validators.Result, rule *validators.Rule) validators.Result {
	res.Findings = slices.DeleteFunc(res.Findings, func(f *validators.Finding) bool { return f.Rule.Name != rule.Name })
	res.Skipped = slices.DeleteFunc(res.Skipped, func(s validators.Skipped) bool { return s.Rule.Name != rule.Name })
	res.Errors = slices.DeleteFunc(res.Errors, func(e validators.RuleError) bool { return e.Rule.Name != rule.Name })
	return res
}

// Dir returns the directory of a rule's cases, below the directory of the repository: validators/<package>/testdata/<id
// in lower case>.
func Dir(t *testing.T, repository string, rule *validators.Rule) string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(repository, "validators", "*", "testdata", strings.ToLower(rule.ID)))
	if err != nil || len(dirs) != 1 {
		t.Fatalf(
			"rule %s: want one directory validators/*/testdata/%s, have %v (%v)",
			rule.ID,
			strings.ToLower(rule.ID),
			dirs,
			err,
		)
	}
	return dirs[0]
}

// Run runs the rule's cases in the directory and fails when none of them has a finding, or none passes. Charts may be
// nil for rules that look up no chart.
func Run(t *testing.T, dir string, rule *validators.Rule, charts ChartsFunc) {
	t.Helper()
	cases, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	failing, passing := 0, 0
	for _, c := range cases {
		if len(c.Want) > 0 {
			failing++
		} else if len(c.Unknown)+len(c.Skipped) == 0 {
			passing++
		}
		t.Run(c.Name, func(t *testing.T) { c.run(t, rule, charts) })
	}
	if failing == 0 || passing == 0 {
		t.Errorf("rule %s has %d cases with a finding and %d that pass; it needs one of each", rule.ID, failing, passing)
	}
}

func (c *Case) run(t *testing.T, rule *validators.Rule, charts ChartsFunc) {
	suite, look := c.Suite(t, rule), c.Lookup(t, charts)
	before := c.Request.Object.DeepCopy()
	res := Own(suite.Evaluate(t.Context(), c.Request, look), rule)
	if !reflect.DeepEqual(before, c.Request.Object) {
		t.Error("the rule changed the object")
	}
	for _, e := range res.Errors {
		t.Errorf("the rule could not run: %v", e.Err)
	}
	c.Compare(t, res.Findings)
	matchSkipped(t, "unknown", c.Unknown, res.Skipped, true)
	matchSkipped(t, "skipped", c.Skipped, res.Skipped, false)
	if c.Fixed != nil {
		c.checkFix(t.Context(), t, rule, look, res)
	}
}

// Compare holds findings against what the case wants: the line of each, its rule, its message, and whether the stored
// object has it.
func (c *Case) Compare(t *testing.T, findings []*validators.Finding) {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal(c.Source, &doc); err != nil {
		t.Fatal(err)
	}
	left := slices.Clone(c.Want)
	for _, f := range findings {
		line := yamlposition.Find(&doc, c.pathOf(f)).Line
		i := slices.IndexFunc(left, func(w Want) bool {
			return w.Line == line && w.Rule == f.Rule.ID && w.Preexisting == f.Preexisting && w.Message.MatchString(f.Message)
		})
		if i < 0 {
			t.Errorf(
				"unexpected finding: line %d: %s: %s: %s (preexisting: %t)",
				line,
				f.Rule.ID,
				f.Path,
				f.Message,
				f.Preexisting,
			)
			continue
		}
		left = slices.Delete(left, i, i+1)
		if !strings.HasSuffix(f.Fix, ".") {
			t.Errorf("%s: the fix must end with a period: %q", f.Rule.ID, f.Fix)
		}
	}
	for _, w := range left {
		t.Errorf("missing finding: line %d: %s %q (preexisting: %t)", w.Line, w.Rule, w.Message, w.Preexisting)
	}
}

// pathOf returns the path in object.yaml or file.yaml that a finding is about.
func (c *Case) pathOf(f *validators.Finding) validators.Path {
	if c.Request.File == nil {
		return f.Path
	}
	i := slices.IndexFunc(
		c.Request.File.Problems,
		func(p validators.Problem) bool { return p.Message == f.Message && p.Position == f.Position },
	)
	return validators.NewPath("problems").Index(max(i, 0))
}

func matchSkipped(t *testing.T, word string, want []*regexp.Regexp, got []validators.Skipped, unknown bool) {
	t.Helper()
	left := slices.Clone(want)
	for _, s := range got {
		if s.Unknown != unknown {
			continue
		}
		i := slices.IndexFunc(left, func(re *regexp.Regexp) bool { return re.MatchString(s.Reason) })
		if i < 0 {
			t.Errorf("unexpected %s: %s: %s", word, s.Rule.ID, s.Reason)
			continue
		}
		left = slices.Delete(left, i, i+1)
	}
	for _, re := range left {
		t.Errorf("missing %s: %q", word, re)
	}
}

func (c *Case) checkFix(
	ctx context.Context,
	t *testing.T,
	rule *validators.Rule,
	look validators.Lookup,
	res validators.Result,
) {
	t.Helper()
	var edits []validators.Edit
	for _, f := range res.Findings {
		edits = append(edits, f.Edits...)
	}
	got, err := validators.PatchObject(c.Request.Object, edits)
	if err != nil {
		t.Fatalf("applying the edits: %v", err)
	}
	if !reflect.DeepEqual(got.Object, c.Fixed.Object) {
		have, _ := sigsyaml.Marshal(got.Object)
		t.Errorf("the edits do not give fixed.yaml but:\n%s", have)
	}
	again := Own(c.Suite(t, rule).Evaluate(ctx, validators.Request{Operation: validators.Create, Object: got}, look), rule)
	for _, f := range again.Findings {
		t.Errorf("the fixed object still fails: %s: %s", f.Path, f.Message)
	}
}
