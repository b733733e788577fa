package rulecatalog

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mitchellh/go-wordwrap"
	"golang.org/x/tools/txtar"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/docs"
	"github.com/flux-admission/flux-admission/manifests"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// width is the number of columns of an explanation. Examples are not wrapped.
const width = 80

// Explanation is everything about one rule.
type Explanation struct {
	rule     *validators.Meta
	actions  Actions
	settings map[string]apiextensionsv1.JSONSchemaProps // of the policy's spec.rules.NAME
	example  example
}

// example is an object with the mistake.
type example struct{ title, object string }

// Explain returns the explanation of the rule with a name or ID. The error suggests a rule for a misspelled one.
func Explain(given string) (*Explanation, error) {
	ids, err := IDs([]string{given})
	if err != nil {
		return nil, err
	}
	list, err := List("")
	if err != nil {
		return nil, err
	}
	e := &Explanation{}
	for i, r := range allvalidators.Rules() {
		if r.ID == ids[0] {
			e.rule, e.actions = &r.Meta, list[i].Actions
		}
	}
	if e.settings, err = settingsOf(e.rule.Name); err != nil {
		return nil, err
	}
	if e.example, err = exampleOf(e.rule.Name); err != nil {
		return nil, err
	}
	return e, nil
}

// settingsOf returns the schemas of the fields of a rule in the AdmissionPolicy, by name.
func settingsOf(rule string) (map[string]apiextensionsv1.JSONSchemaProps, error) {
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(manifests.PolicyCRD, &crd); err != nil {
		return nil, fmt.Errorf("reading the CRD of AdmissionPolicy: %w", err)
	}
	versions := crd.Spec.Versions
	if len(versions) == 0 || versions[0].Schema == nil || versions[0].Schema.OpenAPIV3Schema == nil {
		return nil, fmt.Errorf(
			"the CRD of AdmissionPolicy has no schema, so the settings of rule %s cannot be determined", rule,
		)
	}
	settings, ok := versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties["rules"].Properties[rule]
	if !ok {
		return nil, fmt.Errorf("the CRD of AdmissionPolicy has no settings of rule %s", rule)
	}
	return settings.Properties, nil
}

// exampleOf returns the example of a rule from the archive of examples.
func exampleOf(rule string) (example, error) {
	for _, f := range txtar.Parse(docs.RuleExamples).Files {
		title, object, ok := strings.Cut(strings.TrimPrefix(string(f.Data), "# "), "\n")
		if f.Name == rule+".yaml" && ok {
			return example{title, object}, nil
		}
	}
	return example{}, fmt.Errorf("there is no example of rule %s", rule)
}

// String returns the explanation for a terminal.
func (e *Explanation) String() string {
	var b strings.Builder
	m := e.rule
	fmt.Fprintf(&b, "%s (%s)\n%s.\n\n", m.Name, m.ID, m.Doc.Title)
	fact := func(name, text string) { b.WriteString(hanging(fmt.Sprintf("%-10s", name), text)) }
	fact("Severity", string(m.Severity))
	fact("Action", e.actions.String()+", in the default policy")
	fact("Matches", m.Scope.String())
	if len(m.Reads) > 0 {
		fact("Reads", validators.Scope{Kinds: m.Reads}.String())
	}
	fact("Since", m.Doc.Since)
	fmt.Fprintf(&b, "\nWhy\n%s\nHow to fix\n%s\n", hanging("  ", m.Doc.Why), hanging("  ", m.Doc.Fix))
	fmt.Fprintf(&b, "Settings, in spec.rules.%s of the AdmissionPolicy\n", m.Name)
	// Fields of every rule come first, then the rule's own parameters.
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
	fmt.Fprintf(&b, "\nDisable\n    spec:\n      rules:\n        %s: {action: \"Off\"}\n", m.Name)
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

// hanging wraps a text, with first before its first line and as many spaces before the others.
func hanging(first, text string) string {
	if text == "" {
		return ""
	}
	wrapped := wordwrap.WrapString(text, uint(max(width-len(first), 1)))
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
