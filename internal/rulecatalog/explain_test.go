package rulecatalog

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

func TestExplanation_String(t *testing.T) {
	raw := func(s string) *apiextensionsv1.JSON { return &apiextensionsv1.JSON{Raw: []byte(s)} }
	text := apiextensionsv1.JSONSchemaProps{Type: "string"}
	e := &Explanation{
		rule: &validators.Meta{
			ID: "WI001", Name: "widget-place", Severity: validators.SeverityError,
			Scope: validators.Scope{Kinds: []schema.GroupKind{{Group: "example.com", Kind: "Widget"}, {Kind: "Secret"}}}, Reads: []schema.GroupKind{{Kind: "Namespace"}},
			Doc: validators.Doc{
				Title: "Widget in the wrong place", Why: "A Widget is looked for where its owner is, and nowhere else: in another place it is never found, and its owner waits for it without an end.",
				Fix: "Move it.", Since: "v0.1.0",
			},
		},
		actions: Actions{Cluster: v1alpha1.ActionWarn, Check: v1alpha1.ActionDeny},
		settings: map[string]apiextensionsv1.JSONSchemaProps{
			"onUnknown": {Type: "string", Description: "OnUnknown is it."},
			"action": {
				Type: "string", Description: "Action is\nit.", Default: raw(`"Deny"`),
				Enum: []apiextensionsv1.JSON{*raw(`"Off"`), *raw(`"Deny"`)},
			},
			"places": {
				Type: "array", Description: "Places are good.", Default: raw(`["here"]`), Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
						"labels": {
							Type: "object", Description: "Labels fit.",
							AdditionalProperties: &apiextensionsv1.JSONSchemaPropsOrBool{Schema: &text},
						},
					},
				}},
			},
		},
		example: example{"A Widget is in the wrong place.", "kind: Widget\n\nspec:\n  place: there # <- here\n"},
	}
	want := `
widget-place (WI001)
Widget in the wrong place.

Severity  error
Action    Warn in the cluster, Deny in check, in the default policy
Matches   Widget (example.com), Secret
Reads     Namespace
Since     v0.1.0

Why
  A Widget is looked for where its owner is, and nowhere else: in another place
  it is never found, and its owner waits for it without an end.

How to fix
  Move it.

Settings, in spec.rules.widget-place of the AdmissionPolicy
  action (string; one of Off, Deny; default Deny)
    Action is it.
  onUnknown (string)
    OnUnknown is it.
  places (list of object; default ["here"])
    Places are good.
    labels (map of string)
      Labels fit.

Example
  A Widget is in the wrong place.

    kind: Widget

    spec:
      place: there # <- here

Disable
    spec:
      rules:
        widget-place: {action: "Off"}
`
	if diff := cmp.Diff(want[1:], e.String()); diff != "" {
		t.Errorf("explanation (-want +got):\n%s", diff)
	}
}

func TestExplain_EveryRule(t *testing.T) {
	for _, r := range allvalidators.Rules() {
		e, err := Explain(r.Name)
		if err != nil {
			t.Errorf("%s: %v", r.Name, err)
			continue
		}
		text := e.String()
		for _, part := range []string{r.ID, r.Doc.Title, "# <- here", "action (string; one of Off, Audit, Warn, Deny; default " + string(r.DefaultAction()) + ")"} {
			if !strings.Contains(text, part) {
				t.Errorf("%s: %q is not in\n%s", r.Name, part, text)
			}
		}
		if r.Params != nil && len(e.settings) < 3 {
			t.Errorf("%s has parameters, but only these settings are explained: %v", r.Name, e.settings)
		}
	}
}

func TestExampleOf_UnknownRule(t *testing.T) {
	if e, err := exampleOf("no-such-rule"); err == nil {
		t.Errorf("example %+v, want an error", e)
	}
}
