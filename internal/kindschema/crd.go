package kindschema

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"

	"github.com/flux-admission/flux-admission/validators"
)

// crd is one CustomResourceDefinition. It is read when it is first asked for.
type crd struct {
	load func() (*definition, error)
}

// definition is a CustomResourceDefinition with its schemas by version.
type definition struct {
	kind     *validators.Kind
	versions map[string]func() (*versionSchema, error)
}

func newCRD(def *apiextensionsv1.CustomResourceDefinition, origin string, external bool) *crd {
	return &crd{load: sync.OnceValues(func() (*definition, error) {
		d := define(def, origin)
		d.kind.Installed, d.kind.External = true, external
		return d, nil
	})}
}

// newKnown returns a definition that is not installed as it is, read when it is first asked for.
func newKnown(read func() (*apiextensionsv1.CustomResourceDefinition, string, error)) *crd {
	return &crd{load: sync.OnceValues(func() (*definition, error) {
		def, origin, err := read()
		if err != nil {
			return nil, err
		}
		return define(def, origin), nil
	})}
}

func define(def *apiextensionsv1.CustomResourceDefinition, origin string) *definition {
	d := &definition{versions: map[string]func() (*versionSchema, error){}}
	d.kind = &validators.Kind{Origin: origin, Schemas: d, Retired: map[string]string{}}
	for i := range def.Spec.Versions {
		v := &def.Spec.Versions[i]
		if !v.Served {
			d.kind.Retired[v.Name] = "by " + origin
			continue
		}
		d.kind.Served = append(d.kind.Served, v.Name)
		d.versions[v.Name] = sync.OnceValues(func() (*versionSchema, error) { return compile(v, def.Spec.PreserveUnknownFields) })
	}
	slices.SortFunc(d.kind.Served, versionOrder)
	return d
}

func (c *crd) answer(gk schema.GroupKind, p validators.Presence) (*validators.Kind, validators.Presence, error) {
	d, err := c.load()
	if err != nil {
		return nil, validators.Unknown, err
	}
	if p == validators.Unknown {
		return d.kind, p, notSeen(gk, "no CustomResourceDefinition of it was seen; it is known from "+d.kind.Origin)
	}
	return d.kind, p, nil
}

// Schema implements validators.Schemas.
func (d *definition) Schema(v string) (validators.Schema, error) {
	get, ok := d.versions[v]
	if !ok {
		return nil, fmt.Errorf("%s has no version %s", d.kind.Origin, v)
	}
	s, err := get()
	if err != nil {
		return nil, fmt.Errorf("%s: version %s: %w", d.kind.Origin, v, err)
	}
	return s, nil
}

// versionSchema judges objects of one version of a custom resource. It takes the steps that the API server takes on a create, in their
// order (k8s.io/apiextensions-apiserver: unstructuredSchemaCoercer.apply, customResourceStrategy.Validate).
type versionSchema struct {
	structural *structuralschema.Structural
	preserve   bool // spec.preserveUnknownFields: nothing is pruned
	status     bool // has the status subresource: a create cannot set the status
	metadata   *goType
	openAPI    validation.SchemaValidator
	// cel is compiled apart: unknown fields can be told without it.
	cel func() *cel.Validator
}

func compile(v *apiextensionsv1.CustomResourceDefinitionVersion, preserve bool) (*versionSchema, error) {
	if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
		return nil, errors.New("the CustomResourceDefinition has no schema")
	}
	internal := &apiextensions.JSONSchemaProps{}
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v.Schema.OpenAPIV3Schema, internal, nil); err != nil {
		return nil, fmt.Errorf("reading the schema: %w", err)
	}
	ss, err := structuralschema.NewStructural(internal)
	if err != nil {
		return nil, fmt.Errorf("the schema is not structural: %w", err)
	}
	if err := bounded(ss); err != nil {
		return nil, err
	}
	if errs := structuralschema.ValidateStructural(nil, ss); len(errs) > 0 {
		return nil, fmt.Errorf("the schema is not structural: %w", errs.ToAggregate())
	}
	// The registry drops defaults that pruning would remove, so that defaulting never adds an unknown field.
	if err := defaulting.PruneDefaults(ss); err != nil {
		return nil, fmt.Errorf("the schema's defaults: %w", err)
	}
	openAPI, _, err := validation.NewSchemaValidator(internal)
	if err != nil {
		return nil, fmt.Errorf("compiling the schema: %w", err)
	}
	return &versionSchema{
		structural: ss, preserve: preserve, status: v.Subresources != nil && v.Subresources.Status != nil, metadata: objectMetaType(), openAPI: openAPI,
		cel: sync.OnceValue(func() *cel.Validator { return cel.NewValidator(ss, true, celconfig.PerCallLimit) }),
	}, nil
}

// What one version's schema may hold: twenty times what the largest of the stock does. The API server bounds a definition by its size and
// by the estimated cost of its rules; here it comes from a tree, and compiling a rule takes one or two milliseconds.
const (
	maxNodes = 50_000
	maxRules = 1_000
)

func bounded(s *structuralschema.Structural) error {
	nodes, rules := 0, 0
	v := structuralschema.Visitor{Structural: func(s *structuralschema.Structural) bool {
		nodes++
		rules += len(s.XValidations)
		return false
	}}
	v.Visit(s)
	switch {
	case nodes > maxNodes:
		return fmt.Errorf("the schema has %d fields, more than the %d that are read", nodes, maxNodes)
	case rules > maxRules:
		return fmt.Errorf("the schema has %d CEL rules, more than the %d that are compiled", rules, maxRules)
	}
	return nil
}

// UnknownFields implements validators.Schema.
func (s *versionSchema) UnknownFields(o *unstructured.Unstructured) []validators.UnknownField {
	w := &walker{}
	if m, ok := o.Object["metadata"].(map[string]any); ok {
		w.walk(s.metadata, m, validators.NewPath("metadata"))
	}
	out := w.unknown
	if !s.preserve {
		pruned := runtime.DeepCopyJSON(o.Object)
		pruning.Prune(pruned, s.structural, true)
		missing(o.Object, pruned, nil, func(p validators.Path) { out = append(out, s.unknown(o, p)) })
	}
	sortByPath(out, func(f validators.UnknownField) validators.Path { return f.Path })
	return out
}

// missing reports what stands in a and not in b, where b is a without some map entries.
func missing(a, b any, at validators.Path, report func(validators.Path)) {
	switch a := a.(type) {
	case map[string]any:
		b, _ := b.(map[string]any)
		for k, v := range a {
			if left, ok := b[k]; ok {
				missing(v, left, at.Child(k), report)
			} else {
				report(at.Child(k))
			}
		}
	case []any:
		b, _ := b.([]any)
		for i, v := range a {
			if i < len(b) {
				missing(v, b[i], at.Index(i), report)
			}
		}
	}
}

// unknown finds what was meant by a field that the schema does not have.
func (s *versionSchema) unknown(o *unstructured.Unstructured, p validators.Path) validators.UnknownField {
	parent, name := p[:len(p)-1], p[len(p)-1].Key
	meant := suggestion(structuralNode{s.at(parent)}, parent, name, structuralNode{s.structural})
	f := validators.UnknownField{Path: p, Suggestion: meant}
	if meant == nil || meant.Lookup(o.Object) != nil {
		return f
	}
	target := s.at(meant)
	f.Renamable = target != nil && takes(target, p.Lookup(o.Object)) && parentExists(o.Object, meant)
	return f
}

// at returns the schema of the field at a path; nil where there is none.
func (s *versionSchema) at(p validators.Path) *structuralschema.Structural {
	node := s.structural
	for _, step := range p {
		switch {
		case node == nil:
			return nil
		case step.IsIndex():
			node = node.Items
		default:
			if child, ok := node.Properties[step.Key]; ok {
				node = &child
			} else if node.AdditionalProperties != nil {
				node = node.AdditionalProperties.Structural
			} else {
				node = nil
			}
		}
	}
	return node
}

// takes tells whether a value may stand where the schema is: its type fits, and no field in it is unknown there.
func takes(s *structuralschema.Structural, v any) bool {
	if s.XIntOrString {
		switch v.(type) {
		case string, int64, float64:
			return true
		}
		return false
	}
	switch v := v.(type) {
	case string:
		return s.Type == "string"
	case bool:
		return s.Type == "boolean"
	case int64:
		return s.Type == "integer" || s.Type == "number"
	case float64:
		return s.Type == "number"
	case []any:
		if s.Type != "array" {
			return false
		}
		for _, e := range v {
			if s.Items != nil && !takes(s.Items, e) {
				return false
			}
		}
		return true
	case map[string]any:
		if s.Type != "object" {
			return false
		}
		for k, e := range v {
			prop, ok := s.Properties[k]
			switch {
			case ok && !takes(&prop, e):
				return false
			case !ok && s.AdditionalProperties == nil && !s.XPreserveUnknownFields:
				return false
			case !ok && s.AdditionalProperties != nil && s.AdditionalProperties.Structural != nil && !takes(s.AdditionalProperties.Structural, e):
				return false
			}
		}
		return true
	}
	return false
}

// InvalidValues implements validators.Schema.
func (s *versionSchema) InvalidValues(ctx context.Context, o *unstructured.Unstructured) []validators.InvalidValue {
	w := &walker{}
	if m, ok := o.Object["metadata"].(map[string]any); ok {
		w.walk(s.metadata, m, validators.NewPath("metadata"))
	}
	out := w.invalid
	obj := runtime.DeepCopyJSON(o.Object)
	if !s.preserve {
		pruning.Prune(obj, s.structural, true)
		defaulting.PruneNonNullableNullsWithoutDefaults(obj, s.structural)
	}
	defaulting.Default(obj, s.structural)
	if s.status {
		delete(obj, "status")
	}
	errs := validation.ValidateCustomResource(nil, obj, s.openAPI)
	errs = append(errs, objectmeta.Validate(ctx, nil, obj, s.structural, false)...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, s.structural, obj)...)
	if v := s.cel(); v != nil && !slices.ContainsFunc(errs, blocksCEL) {
		celErrs, _ := v.Validate(ctx, nil, s.structural, obj, nil, celconfig.RuntimeCELCostBudget)
		errs = append(errs, celErrs...)
	}
	meant := s.meant(o, errs)
	var composed []validators.InvalidValue
	for _, e := range errs {
		p := pathIn(obj, e.Field)
		if at, text, ok := compositeError(e); ok {
			composed = append(composed, validators.InvalidValue{Path: pathIn(obj, at), Message: text})
			continue
		}
		if len(p) > 0 && p[0].Key == "metadata" && e.Type == field.ErrorTypeTypeInvalid {
			continue // the walk over the metadata says it with the exact place
		}
		if e.Type == field.ErrorTypeRequired && slices.Contains(meant, p.String()) {
			continue // set under a misspelt name
		}
		out = append(out, validators.InvalidValue{Path: p, Message: message(e, p.Lookup(obj))})
	}
	for _, c := range composed {
		// What fails inside says more than that none of the alternatives fits.
		if !slices.ContainsFunc(out, func(v validators.InvalidValue) bool { return v.Path.HasPrefix(c.Path) }) {
			out = append(out, c)
		}
	}
	sortByPath(out, func(v validators.InvalidValue) validators.Path { return v.Path })
	return slices.CompactFunc(out, func(a, b validators.InvalidValue) bool {
		return a.Message == b.Message && a.Path.String() == b.Path.String()
	})
}

// meant returns the paths that unknown fields of the object were meant for; only where something required is missing at all.
func (s *versionSchema) meant(o *unstructured.Unstructured, errs field.ErrorList) []string {
	if !slices.ContainsFunc(errs, func(e *field.Error) bool { return e.Type == field.ErrorTypeRequired }) {
		return nil
	}
	var out []string
	for _, f := range s.UnknownFields(o) {
		out = append(out, f.Suggestion.String())
	}
	return out
}

// blocksCEL tells whether the API server leaves CEL rules out because of the error (customresource.hasBlockingErr).
func blocksCEL(e *field.Error) bool {
	switch e.Type {
	case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
		return true
	default:
		return false
	}
}

// composite is what the library says of allOf, anyOf, oneOf and not: the field stands in the sentence.
var composite = regexp.MustCompile(`^"(.*)" must (?:not )?validate .*\((allOf|anyOf|oneOf|not)\)(?:\. (.*))?$`)

// compositeError returns the field and the message of an error about alternatives.
func compositeError(e *field.Error) (at, text string, ok bool) {
	m := composite.FindStringSubmatch(e.Detail)
	if m == nil {
		return "", "", false
	}
	switch {
	case m[2] == "not":
		text = "has a form that its schema rules out"
	case m[2] == "allOf":
		text = "does not have all the forms that its schema demands"
	case m[2] == "oneOf" && m[3] != "" && m[3] != "Found none valid":
		text = "has more than one of the forms of which its schema allows one"
	default:
		text = "has none of the forms that its schema allows"
	}
	return m[1], text, true
}

// message says what is wrong, to be read after the field's name, without the value.
func message(e *field.Error, value any) string {
	switch e.Type {
	case field.ErrorTypeRequired:
		if e.Detail != "" {
			return "is required: " + e.Detail
		}
		return "is required"
	case field.ErrorTypeNotSupported:
		return "must be one of " + strings.TrimPrefix(e.Detail, "supported values: ")
	case field.ErrorTypeDuplicate:
		return "stands twice in the list"
	case field.ErrorTypeTypeInvalid:
		if _, want, ok := strings.Cut(e.Detail, "must be of type "); ok {
			want, _, _ = strings.Cut(want, ":")
			return mustBe(want, value)
		}
	case field.ErrorTypeTooLong, field.ErrorTypeTooMany:
		return e.Detail
	default:
	}
	detail := e.Detail
	// The library puts the field's name before its sentence.
	if _, after, ok := strings.Cut(detail, " in body "); ok {
		detail = after
	}
	if i := strings.Index(detail, `must be of type `); i >= 0 {
		detail, _, _ = strings.Cut(detail, `: "`) // a format: the value follows
	}
	if strings.HasPrefix(detail, "must ") || strings.HasPrefix(detail, "should ") {
		return strings.Replace(detail, "should ", "must ", 1)
	}
	return "is invalid: " + detail
}

// mustBe says which type belongs where a value of another type stands.
func mustBe(want string, value any) string {
	have := typeName(value)
	switch want {
	case "array":
		want = "a list"
	case "object":
		want = "a map"
	case "integer":
		want = "an integer"
	case "boolean":
		want = "true or false"
	case "string", "number":
		want = "a " + want
	case "integer,string", "string,integer":
		want = "an integer or a string"
	default:
		want = format(want)
		if have == "a string" {
			return "must be " + want // that the value is a string says nothing
		}
	}
	text := "must be " + want + ", is " + have
	if want == "a string" && (have == "an integer" || have == "a number" || have == "true or false") {
		text += " (put it in quotes)"
	}
	return text
}

// format names a format of strings for a person.
func format(name string) string {
	switch name {
	case "byte":
		return "base64"
	case "date":
		return "a date such as 2006-01-02"
	case "date-time", "datetime":
		return "a time such as 2006-01-02T15:04:05Z"
	case "duration":
		return "a duration such as 1h30m"
	case "ipv4":
		return "an IPv4 address"
	case "ipv6":
		return "an IPv6 address"
	case "uri":
		return "a URI"
	case "email":
		return "an e-mail address"
	}
	return "in the format " + name
}

func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case bool:
		return "true or false"
	case int64, int:
		return "an integer"
	case float64:
		return "a number"
	case []any:
		return "a list"
	case map[string]any:
		return "a map"
	}
	return fmt.Sprintf("a %T", v)
}

func sortByPath[T any](list []T, path func(T) validators.Path) {
	slices.SortStableFunc(list, func(a, b T) int { return strings.Compare(path(a).String(), path(b).String()) })
}

func parentExists(root map[string]any, p validators.Path) bool {
	_, ok := p[:len(p)-1].Lookup(root).(map[string]any)
	return ok
}
