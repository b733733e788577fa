package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/mitchellh/go-wordwrap"
	"github.com/spf13/cobra"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/docs"
	"github.com/flux-admission/flux-admission/manifests"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// explainWidth is how many columns the text takes, examples apart: those are not wrapped.
const explainWidth = 100

func newExplain() *cobra.Command {
	return &cobra.Command{
		Use:   "explain RULE",
		Short: "Say what a rule finds, why it matters and how to fix it",
		Long: "Say what a rule finds, why it matters, how to fix it and what can be set in the policy, with an example. RULE is a name or an ID, in upper or lower\n" +
			"case; rules lists them.",
		Example: "  flux-admission explain helm-values-schema\n  flux-admission explain ks001",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("explain takes the name or ID of one rule, got %d arguments; `flux-admission rules` lists them", len(args))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			e, err := explanationOf(args[0])
			if err != nil {
				return err
			}
			if _, err := io.WriteString(c.OutOrStdout(), e.text()); err != nil {
				return fmt.Errorf("writing the explanation: %w", err)
			}
			return nil
		},
	}
}

// explanation is what there is to say of a rule.
type explanation struct {
	rule     *validators.Meta
	actions  ruleActions
	settings map[string]apiextensionsv1.JSONSchemaProps // of the policy's spec.rules.NAME
	example  example
}

// example is an object with the mistake.
type example struct{ title, object string }

// explanationOf collects what there is to say of the rule with this name or ID. The error suggests a rule for a misspelt one.
func explanationOf(given string) (*explanation, error) {
	ids, err := ruleIDs([]string{given})
	if err != nil {
		return nil, err
	}
	list, err := catalogue("")
	if err != nil {
		return nil, err
	}
	e := &explanation{}
	for i, r := range allvalidators.Rules() {
		if r.ID == ids[0] {
			e.rule, e.actions = &r.Meta, list[i].Actions
		}
	}
	if e.settings, err = settingsOf(e.rule.Name); err != nil {
		return nil, err
	}
	page, err := docs.Rules.ReadFile("rules/" + e.rule.Name + ".md")
	if err != nil {
		return nil, fmt.Errorf("reading the page of rule %s: %w", e.rule.Name, err)
	}
	if e.example, err = exampleOn(string(page)); err != nil {
		return nil, fmt.Errorf("the page of rule %s: %w", e.rule.Name, err)
	}
	return e, nil
}

// settingsOf returns the schemas of what a policy can set for a rule, from the CRD that ships.
func settingsOf(rule string) (map[string]apiextensionsv1.JSONSchemaProps, error) {
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(manifests.PolicyCRD, &crd); err != nil {
		return nil, fmt.Errorf("reading the CRD of AdmissionPolicy: %w", err)
	}
	if len(crd.Spec.Versions) == 0 || crd.Spec.Versions[0].Schema == nil || crd.Spec.Versions[0].Schema.OpenAPIV3Schema == nil {
		return nil, fmt.Errorf("the CRD of AdmissionPolicy has no schema, so the settings of rule %s are not known", rule)
	}
	settings, ok := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties["rules"].Properties[rule]
	if !ok {
		return nil, fmt.Errorf("the CRD of AdmissionPolicy has no settings of rule %s", rule)
	}
	return settings.Properties, nil
}

// exampleOn finds the example on a rule's page.
func exampleOn(page string) (example, error) {
	_, rest, found := strings.Cut(page, "\n## Example\n")
	title, rest, opened := strings.Cut(rest, "\n```yaml\n")
	object, _, closed := strings.Cut(rest, "\n```\n")
	if !found || !opened || !closed {
		return example{}, fmt.Errorf("it has no YAML under the heading Example")
	}
	return example{strings.TrimSpace(title), object + "\n"}, nil
}

// text says it for a terminal.
func (e *explanation) text() string {
	var b strings.Builder
	m := e.rule
	fmt.Fprintf(&b, "%s (%s)\n%s.\n\n", m.Name, m.ID, m.Doc.Title)
	fact := func(name, text string) { b.WriteString(hanging(fmt.Sprintf("%-10s", name), text)) }
	fact("Severity", string(m.Severity))
	fact("Action", e.actions.String()+", by the policy that ships")
	fact("Looks at", subjectText(m))
	if len(m.Reads) > 0 {
		fact("Reads", kindText(m.Reads))
	}
	fact("Since", m.Doc.Since)
	fmt.Fprintf(&b, "\nWhy\n%s\nHow to fix\n%s\n", hanging("  ", m.Doc.Why), hanging("  ", m.Doc.Fix))
	fmt.Fprintf(&b, "Settings, in spec.rules.%s of the AdmissionPolicy\n", m.Name)
	// The action and what to do when nothing is known are every rule's; a rule's own parameters come after them.
	common := []string{"action", "onUnknown"}
	own := maps.Clone(e.settings)
	for _, name := range common {
		if s, ok := e.settings[name]; ok {
			writeSetting(&b, "  ", name, s)
		}
		delete(own, name)
	}
	writeSettings(&b, "  ", own)
	fmt.Fprintf(&b, "\nExample\n%s\n%s", hanging("  ", e.example.title), indented(e.example.object, "    "))
	fmt.Fprintf(&b, "\nSwitch it off\n    spec:\n      rules:\n        %s: {action: \"Off\"}\n", m.Name)
	return b.String()
}

func writeSettings(b *strings.Builder, indent string, settings map[string]apiextensionsv1.JSONSchemaProps) {
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		writeSetting(b, indent, name, settings[name])
	}
}

func writeSetting(b *strings.Builder, indent, name string, s apiextensionsv1.JSONSchemaProps) {
	facts := []string{typeOf(s)}
	if values := enumOf(s); values != "" {
		facts = append(facts, "one of "+values)
	}
	if s.Default != nil {
		facts = append(facts, "default "+strings.Trim(string(s.Default.Raw), `"`))
	}
	fmt.Fprintf(b, "%s%s (%s)\n", indent, name, strings.Join(facts, "; "))
	b.WriteString(hanging(indent+"  ", strings.Join(strings.Fields(s.Description), " ")))
	inner := s.Properties
	if s.Items != nil && s.Items.Schema != nil {
		inner = s.Items.Schema.Properties
	}
	writeSettings(b, indent+"  ", inner)
}

// typeOf names a type as a person would write it: "list of string".
func typeOf(s apiextensionsv1.JSONSchemaProps) string {
	switch {
	case s.Type == "array" && s.Items != nil && s.Items.Schema != nil:
		return "list of " + typeOf(*s.Items.Schema)
	case s.Type == "object" && s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil:
		return "map of " + typeOf(*s.AdditionalProperties.Schema)
	}
	return cmp.Or(s.Type, "any")
}

// enumOf lists the values that a setting, or an item of it, may have.
func enumOf(s apiextensionsv1.JSONSchemaProps) string {
	if s.Items != nil && s.Items.Schema != nil {
		return enumOf(*s.Items.Schema)
	}
	values := make([]string, 0, len(s.Enum))
	for _, v := range s.Enum {
		values = append(values, strings.Trim(string(v.Raw), `"`))
	}
	return strings.Join(values, ", ")
}

// hanging wraps a text, with first before its first line and as much space before the others.
func hanging(first, text string) string {
	if text == "" {
		return ""
	}
	wrapped := wordwrap.WrapString(text, uint(max(explainWidth-len(first), 1)))
	return first + strings.TrimLeft(indented(wrapped+"\n", strings.Repeat(" ", len(first))), " ")
}

func indented(text, indent string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) != "" {
			b.WriteString(indent)
		}
		b.WriteString(line)
	}
	return b.String()
}

// subjectText says what a rule looks at.
func subjectText(m *validators.Meta) string {
	switch {
	case m.AnyKind:
		return "objects of any kind"
	case m.Files:
		return "the files of a Git tree"
	case m.Unapplied:
		return "Flux objects that nothing applies"
	}
	return kindText(m.Kinds)
}

func kindText(kinds []schema.GroupKind) string {
	names := make([]string, 0, len(kinds))
	for _, gk := range kinds {
		name := gk.Kind
		if gk.Group != "" {
			name += " (" + gk.Group + ")"
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}
