package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/validators"
)

// maxPolicy bounds a policy, in bytes. The API server stores no object above 1.5 MiB.
const maxPolicy = 1 << 20

// Parse reads one AdmissionPolicy from YAML or JSON: strictly, with the defaults of the CRD, and validated by its schema and CEL rules with the
// API server's own libraries. A policy that Parse accepts is one that the API server accepts, and the other way round.
//
// Source names the text in errors. Each error says which line and field, and what to write instead where that can be told.
func Parse(source string, data []byte) (*v1alpha1.AdmissionPolicy, error) {
	if len(data) > maxPolicy {
		return nil, fmt.Errorf("%s: %d bytes is too large for an AdmissionPolicy, the limit is %d", source, len(data), maxPolicy)
	}
	doc, err := oneDocument(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", source, plainYAMLError(err))
	}
	var object map[string]any
	if err := utiljson.Unmarshal(asJSON, &object); err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	problems := checkObject(object)
	if len(problems) > 0 {
		return nil, locate(source, doc, problems)
	}
	p := &v1alpha1.AdmissionPolicy{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object, p); err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return p, nil
}

// oneDocument parses the text as YAML and refuses anything but one mapping.
func oneDocument(data []byte) (*yamlv3.Node, error) {
	dec := yamlv3.NewDecoder(bytes.NewReader(data))
	var doc yamlv3.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the file is empty; an AdmissionPolicy is wanted")
		}
		return nil, errors.New(plainYAMLError(err))
	}
	var rest yamlv3.Node
	if err := dec.Decode(&rest); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one YAML document; put the one AdmissionPolicy into a file of its own")
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yamlv3.MappingNode {
		return nil, errors.New("not a mapping; an AdmissionPolicy begins with apiVersion: flux-admission.dev/v1alpha1")
	}
	return &doc, nil
}

// plainYAMLError takes the library names out of a parser's error; the line stays.
func plainYAMLError(err error) string {
	text := err.Error()
	for _, prefix := range []string{"error converting YAML to JSON: ", "error unmarshaling JSON: ", "while decoding JSON: ", "yaml: "} {
		text = strings.ReplaceAll(text, prefix, "")
	}
	return "not YAML that can be read: " + strings.ReplaceAll(text, "\n", " ")
}

// problem is one thing wrong with a policy.
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

// checkObject fills in defaults and returns what is wrong with the object.
func checkObject(object map[string]any) []problem {
	if problems := checkKind(object); len(problems) > 0 {
		return problems
	}
	s, err := policySchema()
	if err != nil {
		return []problem{{text: err.Error()}}
	}
	return s.check(object)
}

func checkKind(object map[string]any) []problem {
	var problems []problem
	if v := object["apiVersion"]; v != v1alpha1.GroupVersion.String() {
		problems = append(problems, problem{validators.NewPath("apiVersion"), fmt.Sprintf("is %v, want %s", orNothing(v), v1alpha1.GroupVersion)})
	}
	if v := object["kind"]; v != v1alpha1.Kind {
		problems = append(problems, problem{validators.NewPath("kind"), fmt.Sprintf("is %v, want %s", orNothing(v), v1alpha1.Kind)})
	}
	return problems
}

func orNothing(v any) any {
	if v == nil {
		return "not set"
	}
	return v
}

// locate joins problems to one error, each with its line.
func locate(source string, doc *yamlv3.Node, problems []problem) error {
	errs := make([]error, 0, len(problems))
	for _, p := range problems {
		at := yamlposition.Find(doc, p.path)
		errs = append(errs, fmt.Errorf("%s:%d: %s", source, at.Line, p))
	}
	return errors.Join(errs...)
}

// pathFromField reads the notation of the Kubernetes API's field errors: spec.rules.x.list[0].
func pathFromField(text string) validators.Path {
	var path validators.Path
	for part := range strings.SplitSeq(text, ".") {
		name, rest, _ := strings.Cut(part, "[")
		if name != "" {
			path = path.Child(name)
		}
		for rest != "" {
			var index string
			index, rest, _ = strings.Cut(rest, "]")
			if i, err := strconv.Atoi(index); err == nil {
				path = path.Index(i)
			} else {
				path = path.Child(index)
			}
			rest = strings.TrimPrefix(rest, "[")
		}
	}
	return path
}

// suggest says which known name an unknown one is near to.
func suggestion(name string, known []string) string {
	slices.Sort(known)
	if near := suggest.Nearest(name, known); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	if len(known) > 0 && len(known) <= 12 {
		return "; known are " + strings.Join(known, ", ")
	}
	return ""
}

// ParseObject reads an AdmissionPolicy that an API server has stored, as JSON. Its errors name fields and no lines.
func ParseObject(data []byte) (*v1alpha1.AdmissionPolicy, error) {
	if len(data) > maxPolicy {
		return nil, fmt.Errorf("%d bytes is too large for an AdmissionPolicy, the limit is %d", len(data), maxPolicy)
	}
	var object map[string]any
	if err := utiljson.Unmarshal(data, &object); err != nil {
		return nil, fmt.Errorf("reading the AdmissionPolicy: %w", err)
	}
	delete(object, "status") // it is not the author's
	if problems := checkObject(object); len(problems) > 0 {
		errs := make([]error, 0, len(problems))
		for _, p := range problems {
			errs = append(errs, errors.New(p.String()))
		}
		return nil, errors.Join(errs...)
	}
	p := &v1alpha1.AdmissionPolicy{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object, p); err != nil {
		return nil, fmt.Errorf("reading the AdmissionPolicy: %w", err)
	}
	return p, nil
}

// Check returns what is wrong with an AdmissionPolicy, given as JSON: its schema, its CEL rules, and what only compiling it shows. It is what
// the webhook for AdmissionPolicies asks.
func Check(data []byte, suite *validators.Suite, muts *mutators.Set) error {
	p, err := ParseObject(data)
	if err != nil {
		return err
	}
	_, err = Compile(p, suite, muts, nil)
	return err
}
