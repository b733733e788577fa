package check_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/mutators"
	allmutators "github.com/flux-admission/flux-admission/mutators/all"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// Whole trees, with what is to be found in them: the rule, the object, the place in Git and the message.
//
//	want: RULE KIND NAMESPACE/NAME FILE:LINE:COLUMN "regexp"
//	also: FILE:LINE:COLUMN   (a further place of the finding above; any number)
//	suppressed: RULE         (a finding that does not count)
func TestTrees(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatalf("no trees: %v", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			archive := txtar.Parse(data)
			r := run(t, archive)
			for _, e := range r.Errors {
				t.Errorf("error: %+v", e)
			}
			compare(t, string(archive.Comment), r.Findings)
		})
	}
}

var wantLine = regexp.MustCompile(`^want: (\S+) (\S+ \S+) (\S+) "(.*)"$`)

func compare(t *testing.T, comment string, findings []report.Finding) {
	t.Helper()
	left := slices.Clone(findings)
	var last report.Finding
	for line := range strings.Lines(comment) {
		line = strings.TrimSpace(line)
		word, rest, _ := strings.Cut(line, ": ")
		switch m := wantLine.FindStringSubmatch(line); {
		case m != nil:
			message := regexp.MustCompile(m[4])
			i := slices.IndexFunc(left, func(f report.Finding) bool {
				return f.Suppressed == nil && f.Rule == m[1] && f.Object.String() == m[2] && message.MatchString(f.Message) &&
					fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column) == m[3]
			})
			if i < 0 {
				t.Errorf("missing: %s", line)
				continue
			}
			last = left[i]
			left = slices.Delete(left, i, i+1)
		case word == "also":
			if !slices.ContainsFunc(last.Related, func(p report.Position) bool { return p.String() == rest }) {
				t.Errorf("%s: the further places are %v, without %s", last.Rule, last.Related, rest)
			}
		case word == "suppressed":
			i := slices.IndexFunc(left, func(f report.Finding) bool { return f.Suppressed != nil && f.Rule == rest })
			if i < 0 {
				t.Errorf("missing: %s", line)
				continue
			}
			left = slices.Delete(left, i, i+1)
		}
	}
	for _, f := range left {
		t.Errorf("unexpected: %s %s %s:%d:%d %q (suppressed: %v)", f.Rule, f.Object, f.File, f.Line, f.Column, f.Message, f.Suppressed)
	}
}

func run(t *testing.T, archive *txtar.Archive) *report.Report {
	t.Helper()
	dir := t.TempDir()
	for _, f := range archive.Files {
		path := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	options := kustomization.Options{Root: dir}
	rendered, err := kustomization.Tree(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	by := compile(t, rendered)
	amendments, err := check.Amend(t.Context(), rendered, by)
	if err != nil {
		t.Fatal(err)
	}
	if len(amendments) > 0 {
		options.Amend = amendments.Of
		if rendered, err = kustomization.Tree(t.Context(), options); err != nil {
			t.Fatal(err)
		}
	}
	o := check.Options{Policy: by}
	if _, err := os.Stat(filepath.Join(dir, "charts")); err == nil {
		resolver, err := chartsource.New(chartsource.Options{Dirs: []string{filepath.Join(dir, "charts")}, Templates: true})
		if err != nil {
			t.Fatal(err)
		}
		defer resolver.Close()
		o.Charts = resolver
	}
	r, err := check.Run(t.Context(), rendered, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// compile returns the policy that the tree applies, or the one that ships.
func compile(t testing.TB, rendered *kustomization.Result) *policy.Policy {
	t.Helper()
	parsed, err := policy.Default()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range rendered.Clusters[0].Objects {
		if o.GetKind() != v1alpha1.Kind {
			continue
		}
		data, err := o.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if parsed, err = policy.ParseObject(data); err != nil {
			t.Fatal(err)
		}
	}
	suite, err := validators.NewSuite(allvalidators.Rules()...)
	if err != nil {
		t.Fatal(err)
	}
	set, err := mutators.NewSet(allmutators.Mutators()...)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Compile(parsed, suite, set, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
