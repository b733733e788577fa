package rulecatalog_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/rulecatalog"
	"github.com/flux-admission/flux-admission/validators"
)

func sampleRules() []rulecatalog.Rule {
	return []rulecatalog.Rule{
		{
			ID: "KS001", Name: "wrong-place", Title: "Widget in the wrong place", Severity: validators.SeverityError, LooksAt: "kinds",
			Kinds: []string{"Widget.example.com", "Secret"}, Actions: rulecatalog.Actions{Cluster: v1alpha1.ActionDeny, Check: v1alpha1.ActionWarn}, Since: "v0.1.0",
		},
		{
			ID: "FI001", Name: "two-keys", Title: "Key <twice>", Severity: validators.SeverityWarning, LooksAt: "files",
			Kinds: []string{}, Actions: rulecatalog.Actions{Check: v1alpha1.ActionOff}, Since: "v0.2.0",
		},
	}
}

func TestWriteTable(t *testing.T) {
	for columns, want := range map[int]string{
		0: `
ID      NAME          SEVERITY   CLUSTER   CHECK   TITLE                       KINDS
KS001   wrong-place   error      Deny      Warn    Widget in the wrong place   Widget,Secret
FI001   two-keys      warning    -         Off     Key <twice>                 (files)
`,
		76: `
ID      NAME          SEVERITY   CLUSTER   CHECK   TITLE
KS001   wrong-place   error      Deny      Warn    Widget in the wrong place
FI001   two-keys      warning    -         Off     Key <twice>
`,
		71: `
ID      NAME          SEVERITY   CLUSTER   CHECK   TITLE
KS001   wrong-place   error      Deny      Warn    Widget in the wrong…
FI001   two-keys      warning    -         Off     Key <twice>
`,
		70: `
ID      NAME          SEVERITY   CLUSTER   CHECK
KS001   wrong-place   error      Deny      Warn
FI001   two-keys      warning    -         Off
`,
	} {
		var out bytes.Buffer
		if err := rulecatalog.WriteTable(&out, sampleRules(), columns); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want[1:], out.String()); diff != "" {
			t.Errorf("table of %d columns (-want +got):\n%s", columns, diff)
		}
	}
}

func TestWriteJSON(t *testing.T) {
	var out bytes.Buffer
	if err := rulecatalog.WriteJSON(&out, sampleRules()); err != nil {
		t.Fatal(err)
	}
	want := `[
  {
    "id": "KS001",
    "name": "wrong-place",
    "title": "Widget in the wrong place",
    "severity": "error",
    "actions": {
      "cluster": "Deny",
      "check": "Warn"
    },
    "looksAt": "kinds",
    "kinds": [
      "Widget.example.com",
      "Secret"
    ],
    "since": "v0.1.0"
  },
  {
    "id": "FI001",
    "name": "two-keys",
    "title": "Key <twice>",
    "severity": "warning",
    "actions": {
      "check": "Off"
    },
    "looksAt": "files",
    "kinds": [],
    "since": "v0.2.0"
  }
]
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
}

type failingWriter struct{}

var errWrite = errors.New("no space left")

func (failingWriter) Write([]byte) (int, error) { return 0, errWrite }

func TestWrite_Error(t *testing.T) {
	for name, err := range map[string]error{
		"text": rulecatalog.WriteTable(failingWriter{}, sampleRules(), 0), "json": rulecatalog.WriteJSON(
			failingWriter{}, sampleRules(),
		),
	} {
		if !errors.Is(err, errWrite) {
			t.Errorf("%s: error %v, want %q", name, err, errWrite)
		}
	}
}
