package main

import (
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

func TestAnExplanationIsWrappedText(t *testing.T) {
	raw := func(s string) *apiextensionsv1.JSON { return &apiextensionsv1.JSON{Raw: []byte(s)} }
	text := apiextensionsv1.JSONSchemaProps{Type: "string"}
	e := &explanation{
		rule: &validators.Meta{
			ID: "WI001", Name: "widget-place", Severity: validators.SeverityError,
			Kinds: []schema.GroupKind{{Group: "example.com", Kind: "Widget"}, {Kind: "Secret"}}, Reads: []schema.GroupKind{{Kind: "Namespace"}},
			Doc: validators.Doc{
				Title: "Widget in the wrong place", Why: "A Widget is looked for where its owner is, and nowhere else: in another place it is never found, and its owner waits for it without an end.",
				Fix: "Move it.", Since: "v0.1.0",
			},
		},
		actions: ruleActions{Cluster: v1alpha1.ActionWarn, Check: v1alpha1.ActionDeny},
		settings: map[string]apiextensionsv1.JSONSchemaProps{
			"onUnknown": {Type: "string", Description: "OnUnknown is it."},
			"action":    {Type: "string", Description: "Action is\nit.", Default: raw(`"Deny"`), Enum: []apiextensionsv1.JSON{*raw(`"Off"`), *raw(`"Deny"`)}},
			"places": {
				Type: "array", Description: "Places are good.", Default: raw(`["here"]`), Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
						"labels": {Type: "object", Description: "Labels fit.", AdditionalProperties: &apiextensionsv1.JSONSchemaPropsOrBool{Schema: &text}},
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
Action    Warn in the cluster, Deny in check, by the policy that ships
Looks at  Widget (example.com), Secret
Reads     Namespace
Since     v0.1.0

Why
  A Widget is looked for where its owner is, and nowhere else: in another place it is never found,
  and its owner waits for it without an end.

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

Switch it off
    spec:
      rules:
        widget-place: {action: "Off"}
`
	if got := e.text(); got != want[1:] {
		t.Errorf("says\n%s\nwant%s", got, want)
	}
}

func TestEveryRuleIsExplained(t *testing.T) {
	for _, r := range allvalidators.Rules() {
		e, err := explanationOf(r.Name)
		if err != nil {
			t.Errorf("%s: %v", r.Name, err)
			continue
		}
		text := e.text()
		for _, part := range []string{r.ID, r.Doc.Title, "# <- here", "action (string; one of Off, Audit, Warn, Deny; default " + string(r.DefaultAction()) + ")"} {
			if !strings.Contains(text, part) {
				t.Errorf("%s: %q is not in\n%s", r.Name, part, text)
			}
		}
		if r.Params != nil && len(e.settings) < 3 {
			t.Errorf("%s has parameters, and only these settings are explained: %v", r.Name, e.settings)
		}
	}
}

func TestExplainTakesANameOrAnIDInAnyCase(t *testing.T) {
	for _, given := range []string{"kustomization-namespace", "Kustomization-Namespace", "KS001", "ks001"} {
		code, stdout, stderr := execute(t, "explain", given)
		if code != 0 || !strings.HasPrefix(stdout, "kustomization-namespace (KS001)\n") || stderr != "" {
			t.Errorf("%s: exit code %d, error %q, output %q", given, code, stderr, stdout)
		}
	}
}

func TestExplainSaysWhatIsWrongWithItsArgument(t *testing.T) {
	cases := map[string]struct {
		args []string
		want string
	}{
		"a misspelt name suggests the one that was meant": {[]string{"explain", "helm-value-schema"}, `flux-admission: there is no rule "helm-value-schema"; did you mean helm-values-schema?`},
		"a name like no other points to the list":         {[]string{"explain", "zebra"}, "flux-admission: there is no rule \"zebra\"; `flux-admission rules` lists them"},
		"no name at all": {[]string{"explain"}, "flux-admission: explain takes the name or ID of one rule, got 0 arguments; `flux-admission rules` lists them"},
		"two names":      {[]string{"explain", "KS001", "KS002"}, "flux-admission: explain takes the name or ID of one rule, got 2 arguments; `flux-admission rules` lists them"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := execute(t, c.args...)
			if code != exitUsage || stdout != "" || strings.TrimSpace(stderr) != c.want {
				t.Errorf("exit code %d, output %q, error %q; want 2 and %q", code, stdout, stderr, c.want)
			}
		})
	}
}

func TestAPageWithoutAnExampleIsAnError(t *testing.T) {
	for name, page := range map[string]string{
		"no heading":           "# a\n\n```yaml\na: 1\n```\n",
		"no YAML":              "# a\n\n## Example\n\nNone.\n",
		"YAML that has no end": "# a\n\n## Example\n\nOne.\n\n```yaml\na: 1\n",
	} {
		if e, err := exampleOn(page); err == nil {
			t.Errorf("%s: %+v is taken for an example", name, e)
		}
	}
}
