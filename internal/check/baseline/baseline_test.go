package baseline_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/internal/check/baseline"
	"github.com/flux-admission/flux-admission/internal/report"
)

func finding(rule, name, path, key string, line int) report.Finding {
	return report.Finding{
		Rule: rule, Object: report.Object{APIVersion: "apps/v1", Kind: "Deployment", Namespace: "web", Name: name}, Path: path, Key: key, Line: line, Message: "message of " + key,
	}
}

var now = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

const text = `# Existing findings of this repository. flux-admission check --baseline suppresses them and reports all others.
# A finding is identified by its rule, object, field and key, not by its line. Remove an entry when it is fixed.
version: 1
findings:
  - rule: unknown-field
    group: apps
    kind: Deployment
    namespace: web
    name: a
    path: spec.x
    key: x
    count: 2
  - rule: unknown-field
    group: apps
    kind: Deployment
    namespace: web
    name: b
    path: spec.y
    key: message of y
    reason: waits for the release
`

func TestOf(t *testing.T) {
	y := finding("unknown-field", "b", "spec.y", "", 3)
	y.Message = "message of y"
	exempted := finding("unknown-field", "c", "", "z", 1)
	exempted.Suppressed = &report.Suppression{By: report.ByExemption}
	findings := []report.Finding{y, finding("unknown-field", "a", "spec.x", "x", 9), exempted, finding("unknown-field", "a", "spec.x", "x", 12)}
	old := &baseline.Baseline{Findings: []baseline.Entry{
		{Rule: "unknown-field", Group: "apps", Kind: "Deployment", Namespace: "web", Name: "b", Path: "spec.y", Key: "message of y", Reason: "waits for the release"},
	}}
	b := baseline.Of(&report.Report{Findings: findings}, old)
	var out bytes.Buffer
	if err := b.Write(&out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(text, out.String()); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
	again, err := baseline.Parse("b.yaml", out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b, again); diff != "" {
		t.Errorf("parsed file (-want +got):\n%s", diff)
	}
}

func TestBaseline_Apply(t *testing.T) {
	b, err := baseline.Parse("b.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		findings   []report.Finding
		suppressed []bool
		stale      []string
	}{
		"moved findings are suppressed up to the count": {
			[]report.Finding{finding("unknown-field", "a", "spec.x", "x", 1), finding("unknown-field", "a", "spec.x", "x", 2), finding("unknown-field", "a", "spec.x", "x", 3), finding("unknown-field", "b", "spec.y", "message of y", 1)},
			[]bool{true, true, false, true}, nil,
		},
		"another rule, object, field or key is not suppressed": {
			[]report.Finding{finding("other", "a", "spec.x", "x", 1), finding("unknown-field", "z", "spec.x", "x", 1), finding("unknown-field", "a", "spec.z", "x", 1), finding("unknown-field", "a", "spec.x", "z", 1)},
			[]bool{false, false, false, false}, []string{"unknown-field: Deployment web/a spec.x", "unknown-field: Deployment web/b spec.y"},
		},
		"an entry with a remaining count is stale": {
			[]report.Finding{finding("unknown-field", "a", "spec.x", "x", 1), finding("unknown-field", "b", "spec.y", "message of y", 1)},
			[]bool{true, true}, []string{"unknown-field: Deployment web/a spec.x"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var stale []string
			entries, expired := b.Apply(tc.findings, now)
			for _, e := range entries {
				stale = append(stale, e.String())
			}
			if len(expired) > 0 {
				t.Errorf("entries %v expired, want none", expired)
			}
			if diff := cmp.Diff(tc.stale, stale); diff != "" {
				t.Errorf("stale entries (-want +got):\n%s", diff)
			}
			for i := range tc.findings {
				if got := tc.findings[i].Suppressed != nil; got != tc.suppressed[i] {
					t.Errorf("finding %d: suppressed %t, want %t", i, got, tc.suppressed[i])
				}
			}
		})
	}
}

// An entry suppresses up to its day or time. Writing the baseline again keeps it.
func TestBaseline_Expires(t *testing.T) {
	for _, tc := range []struct {
		expires    string
		suppressed bool
	}{{"2026-07-02", true}, {"2026-07-01", false}, {"2026-07-01T11:59:00Z", false}, {"2026-07-01T14:01:00+02:00", true}} {
		b, err := baseline.Parse("b.yaml", []byte(strings.ReplaceAll(text, "path: spec.y", "path: spec.y\n    expires: "+tc.expires)))
		if err != nil {
			t.Fatal(err)
		}
		findings := []report.Finding{finding("unknown-field", "b", "spec.y", "message of y", 1)}
		stale, expired := b.Apply(findings, now)
		if got := findings[0].Suppressed != nil; got != tc.suppressed || len(expired) == 1 == tc.suppressed || len(stale) != 1 {
			t.Errorf("%s: suppressed %t, want %t; expired %v; stale %v", tc.expires, got, tc.suppressed, expired, stale)
		}
		again := baseline.Of(&report.Report{Findings: findings}, b)
		if got := again.Findings[0].Expires; got != tc.expires {
			t.Errorf("written again, the entry expires at %q, want %q", got, tc.expires)
		}
	}
}

func TestParse_Errors(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"an empty file":             {"", "b.yaml: file is empty; write a baseline with --write-baseline"},
		"text that is not YAML":     {"a: [", "b.yaml: invalid baseline: line 1: did not find expected node content"},
		"an unknown field":          {"version: 1\nfindngs: []", "b.yaml: invalid baseline: line 2: unknown field findngs"},
		"an expiry that is no time": {"version: 1\nfindings: [{rule: a, kind: b, name: c, key: d, expires: soon}]", `b.yaml: findings[0].expires: "soon" is not a day or a time; write 2026-12-01 or 2026-12-01T00:00:00Z`},
		"another version":           {"version: 2", "b.yaml: version 2 is not supported; must be 1"},
		"an entry without a key":    {"version: 1\nfindings: [{rule: a, kind: b, name: c}]", "b.yaml: findings[0].key: is not set"},
		"a negative count":          {"version: 1\nfindings: [{rule: a, kind: b, name: c, key: d, count: -1}]", "b.yaml: findings[0].count: must not be negative"},
		"a duplicate entry":         {"version: 1\nfindings: [{rule: a, kind: b, name: c, key: d}, {rule: a, kind: b, name: c, key: d}]", "b.yaml: findings[1]: duplicates findings[0]; use one entry with a count"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := baseline.Parse("b.yaml", []byte(tc.text))
			if err == nil || err.Error() != tc.want {
				t.Errorf("error %v, want %s", err, tc.want)
			}
		})
	}
}

// A parsed baseline is written and parsed again without a change.
func FuzzParse(f *testing.F) {
	f.Add([]byte(text))
	f.Add([]byte(strings.Replace(text, "spec.x", `"spec[a: b]\n"`, 1)))
	f.Add([]byte("version: 1\nfindings: [{rule: a, kind: b, name: \"\\0\", key: '#'}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := baseline.Parse("b.yaml", data)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := b.Write(&out); err != nil {
			t.Fatal(err)
		}
		again, err := baseline.Parse("b.yaml", out.Bytes())
		if err != nil {
			t.Fatalf("%v in\n%s", err, out.String())
		}
		if len(b.Findings)+len(again.Findings) > 0 && !reflect.DeepEqual(again, b) {
			t.Fatalf("parsed again (-want +got):\n%s", cmp.Diff(b, again))
		}
	})
}
