package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	yamlv3 "go.yaml.in/yaml/v3"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/manifests"
	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/validators"
)

// maxPolicy limits the size of a policy, in bytes. The API server stores no object above 1.5 MiB.
const maxPolicy = 1 << 20

// celTimeout limits the time for the CEL rules of the CRD, whose cost is limited, too.
const celTimeout = 10 * time.Second

// Parse parses an AdmissionPolicy from YAML or JSON. It sets the defaults of the CRD and validates the policy as the API server does on a strict
// write, with the API server's own libraries: Parse accepts a policy if and only if the API server does.
//
// Source is the name of the text in errors. Each error contains the line, the field and, if there is one, a suggestion.
func Parse(source string, data []byte) (*v1alpha1.AdmissionPolicy, error) {
	return parse(source, data, nil)
}

// ParseAt is Parse, but a listed rule without an action has the rule's default action at the stage. That of the CRD is for admission.
func ParseAt(source string, data []byte, stage validators.Stage, rules []*validators.Meta) (*v1alpha1.AdmissionPolicy, error) {
	return parse(source, data, defaultActions(stage, rules))
}

// defaultActions returns the default actions of rules at a stage, by name.
func defaultActions(stage validators.Stage, rules []*validators.Meta) map[string]v1alpha1.Action {
	out := map[string]v1alpha1.Action{}
	for _, m := range rules {
		if action := m.DefaultAt(stage); action != "" {
			out[m.Name] = action
		}
	}
	return out
}

// parse is Parse with the actions of listed rules without one, by name; where there is none, the CRD has it.
func parse(source string, data []byte, actions map[string]v1alpha1.Action) (*v1alpha1.AdmissionPolicy, error) {
	if len(data) > maxPolicy {
		return nil, fmt.Errorf("%s: AdmissionPolicy has %d bytes; the limit is %d", source, len(data), maxPolicy)
	}
	doc, err := oneDocument(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, yamlError(err))
	}
	var object map[string]any
	if err := utiljson.Unmarshal(asJSON, &object); err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	p, problems, err := fromObject(object, actions)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", source, err)
	case len(problems) > 0:
		return nil, Locate(joined(problems), func(at validators.Path) validators.Position {
			return validators.Position{File: source, Line: yamlposition.Find(doc, at).Line}
		})
	}
	return p, nil
}

// PositionIn returns the position of a field in a file with a policy, without a line if the file cannot be read any more.
func PositionIn(file string, at validators.Path) validators.Position {
	out := validators.Position{File: file}
	if data, err := os.ReadFile(file); err == nil {
		if doc, err := oneDocument(data); err == nil {
			out = yamlposition.Find(doc, at)
			out.File = file
		}
	}
	return out
}

// ParseObject parses an AdmissionPolicy as the API server sends it, as JSON. Its errors contain fields but no lines.
func ParseObject(data []byte) (*v1alpha1.AdmissionPolicy, error) {
	return parseObject(data, nil)
}

// ParseObjectAt is to ParseObject what ParseAt is to Parse.
func ParseObjectAt(data []byte, stage validators.Stage, rules []*validators.Meta) (*v1alpha1.AdmissionPolicy, error) {
	return parseObject(data, defaultActions(stage, rules))
}

func parseObject(data []byte, actions map[string]v1alpha1.Action) (*v1alpha1.AdmissionPolicy, error) {
	if len(data) > maxPolicy {
		return nil, fmt.Errorf("AdmissionPolicy has %d bytes; the limit is %d", len(data), maxPolicy)
	}
	var object map[string]any
	if err := utiljson.Unmarshal(data, &object); err != nil {
		return nil, fmt.Errorf("decoding the AdmissionPolicy: %w", err)
	}
	delete(object, "status") // written by flux-admission rather than by the author
	p, problems, err := fromObject(object, actions)
	switch {
	case err != nil:
		return nil, fmt.Errorf("decoding the AdmissionPolicy: %w", err)
	case len(problems) > 0:
		return nil, joined(problems)
	}
	return p, nil
}

// Check validates an AdmissionPolicy, given as JSON: the schema and CEL rules of the CRD, and everything that Compile validates. It returns the warnings
// of a valid one.
func Check(data []byte, suite *validators.Suite, muts *mutators.Set) (warnings []string, err error) {
	parsed, err := ParseObject(data)
	if err != nil {
		return nil, err
	}
	p, err := Compile(parsed, suite, muts, nil)
	if err != nil {
		return nil, err
	}
	return p.Warnings(), nil
}

// oneDocument parses a YAML text that must contain one document, which must be a mapping.
func oneDocument(data []byte) (*yamlv3.Node, error) {
	dec := yamlv3.NewDecoder(bytes.NewReader(data))
	var doc yamlv3.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("file is empty; must contain an AdmissionPolicy")
		}
		return nil, yamlError(err)
	}
	var rest yamlv3.Node
	if err := dec.Decode(&rest); !errors.Is(err, io.EOF) {
		return nil, errors.New("file has more than one YAML document; must contain one AdmissionPolicy only")
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yamlv3.MappingNode {
		return nil, errors.New("document is not a mapping; must be an AdmissionPolicy of " + v1alpha1.GroupVersion.String())
	}
	return &doc, nil
}

// yamlError removes the names of libraries from a parser's error and keeps the line.
func yamlError(err error) error {
	text := err.Error()
	for _, prefix := range []string{"error converting YAML to JSON: ", "error unmarshaling JSON: ", "while decoding JSON: ", "yaml: "} {
		text = strings.ReplaceAll(text, prefix, "")
	}
	return errors.New("invalid YAML: " + strings.ReplaceAll(text, "\n", " "))
}

// problem is a violation of the policy's schema.
type problem struct {
	path validators.Path
	text string
}

func (p problem) String() string {
	if len(p.path) == 0 {
		return p.text
	}
	return p.path.String() + ": " + p.text
}

// joined returns the problems as one error.
func joined(problems []problem) error {
	errs := make([]error, 0, len(problems))
	for _, p := range problems {
		errs = append(errs, &fieldError{path: p.path, text: p.String()})
	}
	return errors.Join(errs...)
}

// fieldError is an error about a field of a policy, which its text starts with.
type fieldError struct {
	path validators.Path
	text string
}

func (e *fieldError) Error() string { return e.text }

// Locate puts the file and line of its field before each of the errors of ParseObject or Compile. Position returns that of a field.
func Locate(err error, position func(validators.Path) validators.Position) error {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		var errs []error
		for _, e := range several.Unwrap() {
			errs = append(errs, Locate(e, position))
		}
		return errors.Join(errs...)
	}
	if field, ok := errors.AsType[*fieldError](err); ok {
		at := position(field.path)
		at.Column = 0
		return fmt.Errorf("%s: %w", at, err)
	}
	return err
}

// fromObject sets the actions and the defaults in the object and decodes it, or returns the violations of its schema.
func fromObject(object map[string]any, actions map[string]v1alpha1.Action) (*v1alpha1.AdmissionPolicy, []problem, error) {
	if problems := checkKind(object); len(problems) > 0 {
		return nil, problems, nil
	}
	for name, settings := range nested(nested(object, "spec"), "rules") {
		if m, ok := settings.(map[string]any); ok && m["action"] == nil && actions[name] != "" {
			m["action"] = string(actions[name])
		}
	}
	s, err := policySchema()
	if err != nil {
		return nil, nil, err
	}
	if problems := validate(s, &unstructured.Unstructured{Object: object}); len(problems) > 0 {
		return nil, problems, nil
	}
	p := &v1alpha1.AdmissionPolicy{}
	return p, nil, runtime.DefaultUnstructuredConverter.FromUnstructured(object, p)
}

func checkKind(object map[string]any) []problem {
	var problems []problem
	for _, f := range []struct{ field, want string }{{"apiVersion", v1alpha1.GroupVersion.String()}, {"kind", v1alpha1.Kind}} {
		switch v := object[f.field]; v {
		case f.want:
		case nil:
			problems = append(problems, problem{validators.NewPath(f.field), fmt.Sprintf("is not set; must be %q", f.want)})
		default:
			problems = append(problems, problem{validators.NewPath(f.field), fmt.Sprintf("\"%v\" is not supported; must be %q", v, f.want)})
		}
	}
	return problems
}

// policySchema compiles the schema of the embedded CRD, once.
var policySchema = sync.OnceValues(func() (*kindschema.Structural, error) {
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(manifests.PolicyCRD, &crd); err != nil {
		return nil, fmt.Errorf("decoding the embedded CRD: %w", err)
	}
	s, err := kindschema.NewStructural(&crd.Spec.Versions[0], false)
	if err != nil {
		return nil, fmt.Errorf("compiling the embedded CRD: %w", err)
	}
	return s, nil
})

// validate sets the defaults in the object and returns what the API server would reject on a strict write. It reports invalid values only if
// there are no unknown fields.
func validate(s *kindschema.Structural, o *unstructured.Unstructured) []problem {
	var problems []problem
	for _, f := range s.UnknownFields(o) {
		parent, name := f.Path[:len(f.Path)-1], f.Path[len(f.Path)-1].Key
		text := "unknown field"
		if f.Suggestion != nil {
			text += fmt.Sprintf("; did you mean %q?", f.Suggestion)
		} else {
			text += suggestion(name, s.Fields(parent))
		}
		problems = append(problems, problem{f.Path, text})
	}
	problems = append(problems, unknownRules(s, o)...)
	if len(problems) > 0 {
		return problems
	}
	s.Default(o)
	ctx, cancel := context.WithTimeout(context.Background(), celTimeout)
	defer cancel()
	for _, v := range s.InvalidValues(ctx, o) {
		p := problem{v.Path, v.Message}
		if last := len(p.path) - 1; last >= 0 && (p.path[last].Key == "action" || p.path[last].Key == "onUnknown") {
			if _, isBool := p.path.Lookup(o.Object).(bool); isBool {
				p.text += `; YAML reads Off without quotes as false, write "Off"`
			}
		}
		problems = append(problems, p)
	}
	return problems
}

var ruleID = regexp.MustCompile(`^[A-Za-z]{2}[0-9]{3}$`)

// unknownRules returns the names in spec.rules that no rule has. The API server stores them, because they may be those of newer rules. Compile reports
// IDs, because it knows their rules.
func unknownRules(s *kindschema.Structural, o *unstructured.Unstructured) []problem {
	rules, _, _ := unstructured.NestedMap(o.Object, "spec", "rules")
	at := validators.NewPath("spec", "rules")
	known := s.Fields(at)
	var problems []problem
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		if !slices.Contains(known, name) && !ruleID.MatchString(name) {
			text := "unknown rule"
			if nearest := suggest.Nearest(name, known); nearest != "" {
				text += fmt.Sprintf("; did you mean %q?", at.Child(nearest).String())
			}
			problems = append(problems, problem{at.Child(name), text})
		}
	}
	return problems
}

// suggestion returns the end of a message about an unknown name: the most similar known name, or all known names if they are few.
func suggestion(name string, known []string) string {
	slices.Sort(known)
	if nearest := suggest.Nearest(name, known); nearest != "" {
		return fmt.Sprintf("; did you mean %q?", nearest)
	}
	if len(known) > 0 && len(known) <= 12 {
		return "; must be one of " + strings.Join(known, ", ")
	}
	return ""
}
