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

// crd is one CustomResourceDefinition, read at the first use.
type crd struct {
	load func() (*definition, error)
}

// definition is a CustomResourceDefinition with its schemas by version.
type definition struct {
	kind     *validators.Kind
	versions map[string]func() (*Structural, error)
}

func newCRD(def *apiextensionsv1.CustomResourceDefinition, origin string, external bool) *crd {
	return &crd{load: sync.OnceValues(func() (*definition, error) {
		d := define(def, origin)
		d.kind.Installed, d.kind.External = true, external
		return d, nil
	})}
}

// newCatalogCRD returns a definition of the CRD catalog, read at the first use. The installed one may be of another release.
func newCatalogCRD(read func() (*Definition, error)) *crd {
	return &crd{load: sync.OnceValues(func() (*definition, error) {
		c, err := read()
		if err != nil {
			return nil, err
		}
		d := define(c.CRD, c.Origin)
		d.kind.Installed, d.kind.AsOf, d.kind.Uncertain = c.Installed, c.AsOf, c.Uncertain
		return d, addRemovals(d.kind, schema.GroupKind{Group: c.CRD.Spec.Group, Kind: c.CRD.Spec.Names.Kind})
	})}
}

func define(def *apiextensionsv1.CustomResourceDefinition, origin string) *definition {
	d := &definition{versions: map[string]func() (*Structural, error){}}
	d.kind = &validators.Kind{
		Origin: origin, Scope: validators.KindScope(def.Spec.Scope), Schemas: d, Retired: map[string]string{}, Deprecated: map[string]string{},
	}
	for i := range def.Spec.Versions {
		v := &def.Spec.Versions[i]
		if !v.Served {
			d.kind.Retired[v.Name] = "by " + origin
			continue
		}
		if v.Deprecated {
			d.kind.Deprecated[v.Name] = "by " + origin
		}
		d.kind.Served = append(d.kind.Served, v.Name)
		d.versions[v.Name] = sync.OnceValues(func() (*Structural, error) { return NewStructural(v, def.Spec.PreserveUnknownFields) })
	}
	slices.SortFunc(d.kind.Served, versionOrder)
	return d
}

func (c *crd) kind(gk schema.GroupKind, p validators.Presence) (*validators.Kind, validators.Presence, error) {
	d, err := c.load()
	if err != nil {
		return nil, validators.Unknown, err
	}
	if p == validators.Unknown {
		return d.kind, p, &validators.MissingInput{
			What: BuiltInDefinition, Name: describe(gk) + " of " + d.kind.Origin,
			Text: "found no CustomResourceDefinition of it, only that of " + d.kind.Origin,
		}
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

// Structural validates objects of one version of a custom resource. It takes the steps that the API server takes on a create, in their order
// (k8s.io/apiextensions-apiserver: unstructuredSchemaCoercer.apply, customResourceStrategy.Validate). It is safe for concurrent use.
type Structural struct {
	structural *structuralschema.Structural
	preserve   bool // spec.preserveUnknownFields: nothing is pruned
	status     bool // has the status subresource: a create cannot set the status
	metadata   *goType
	openAPI    validation.SchemaValidator
	// cel is compiled at the first use: unknown fields are found without it.
	cel func() *cel.Validator
}

// NewStructural compiles the schema of a version of a CustomResourceDefinition. Preserve is the definition's spec.preserveUnknownFields. It
// fails if an API server would reject the schema, and if the schema is larger than an API server's size limits allow.
func NewStructural(v *apiextensionsv1.CustomResourceDefinitionVersion, preserve bool) (*Structural, error) {
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
	// The API server drops defaults that pruning would remove, so that defaulting never adds an unknown field.
	if err := defaulting.PruneDefaults(ss); err != nil {
		return nil, fmt.Errorf("the schema's defaults: %w", err)
	}
	openAPI, _, err := validation.NewSchemaValidator(internal)
	if err != nil {
		return nil, fmt.Errorf("compiling the schema: %w", err)
	}
	return &Structural{
		structural: ss, preserve: preserve, status: v.Subresources != nil && v.Subresources.Status != nil, metadata: objectMetaType(), openAPI: openAPI,
		cel: sync.OnceValue(func() *cel.Validator { return cel.NewValidator(ss, true, celconfig.PerCallLimit) }),
	}, nil
}

// The limits on the schema of one version: twenty times the largest schema of the CRD catalog. The API server limits the size of a definition
// and the estimated cost of its CEL rules. Here the definition comes from a Git tree, and compiling a CEL rule takes one or two milliseconds.
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
		return fmt.Errorf("the schema has %d fields; the limit is %d", nodes, maxNodes)
	case rules > maxRules:
		return fmt.Errorf("the schema has %d CEL rules; the limit is %d", rules, maxRules)
	}
	return nil
}

// UnknownFields implements validators.Schema.
func (s *Structural) UnknownFields(o *unstructured.Unstructured) []validators.UnknownField {
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

// missing reports the map entries of a that b does not have, where b is a copy of a with some map entries removed.
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

// unknown returns the unknown field at a path, with a suggestion.
func (s *Structural) unknown(o *unstructured.Unstructured, p validators.Path) validators.UnknownField {
	parent, name := p[:len(p)-1], p[len(p)-1].Key
	suggested := suggestion(structuralNode{s.at(parent)}, parent, name, structuralNode{s.structural})
	f := validators.UnknownField{Path: p, Suggestion: suggested}
	if suggested == nil || suggested.Lookup(o.Object) != nil {
		return f
	}
	target := s.at(suggested)
	f.Renamable = target != nil && accepts(target, p.Lookup(o.Object)) && parentExists(o.Object, suggested)
	return f
}

// Fields returns the names of the fields that the schema has at a path, sorted; none for a map with arbitrary keys.
func (s *Structural) Fields(p validators.Path) []string { return structuralNode{s.at(p)}.fields() }

// Default sets the schema's defaults in the object.
func (s *Structural) Default(o *unstructured.Unstructured) {
	if !s.preserve {
		defaulting.PruneNonNullableNullsWithoutDefaults(o.Object, s.structural)
	}
	defaulting.Default(o.Object, s.structural)
}

// at returns the schema of the field at a path; nil if there is none.
func (s *Structural) at(p validators.Path) *structuralschema.Structural {
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

// accepts reports whether the schema accepts a value: the types match, and the value has no unknown field.
func accepts(s *structuralschema.Structural, v any) bool {
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
			if s.Items != nil && !accepts(s.Items, e) {
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
			case ok && !accepts(&prop, e):
				return false
			case !ok && s.AdditionalProperties == nil && !s.XPreserveUnknownFields:
				return false
			case !ok && s.AdditionalProperties != nil && s.AdditionalProperties.Structural != nil && !accepts(s.AdditionalProperties.Structural, e):
				return false
			}
		}
		return true
	}
	return false
}

// InvalidValues implements validators.Schema.
func (s *Structural) InvalidValues(ctx context.Context, o *unstructured.Unstructured) []validators.InvalidValue {
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
	rulesFrom := len(errs)
	if v := s.cel(); v != nil && !slices.ContainsFunc(errs, blocksCEL) {
		celErrs, _ := v.Validate(ctx, nil, s.structural, obj, nil, celconfig.RuntimeCELCostBudget)
		errs = append(errs, celErrs...)
	}
	misspelled := s.misspelled(o, errs)
	var composed []validators.InvalidValue
	for i, e := range errs {
		p := pathIn(obj, e.Field)
		if at, text, ok := compositeError(e); ok {
			p = pathIn(obj, at)
			composed = append(composed, validators.InvalidValue{Path: p, Message: text, Combined: isMap(p.Lookup(obj))})
			continue
		}
		if at, text, ok := formatError(e); ok {
			out = append(out, validators.InvalidValue{Path: pathIn(obj, at), Message: text, Uncertain: true})
			continue
		}
		if len(p) > 0 && p[0].Key == "metadata" && e.Type == field.ErrorTypeTypeInvalid {
			continue // the comparison with ObjectMeta reports it with the exact field
		}
		if e.Type == field.ErrorTypeRequired && slices.Contains(misspelled, p.String()) {
			continue // set under a misspelled name
		}
		value := p.Lookup(obj)
		out = append(out, validators.InvalidValue{
			Path:       p,
			Message:    message(e, value),
			Unquoted:   unquoted(e, value),
			Incomplete: e.Type == field.ErrorTypeRequired,
			Combined:   i >= rulesFrom && isMap(value),
		})
	}
	for _, c := range composed {
		// A violation inside an alternative is more precise than that no alternative matches.
		if !slices.ContainsFunc(out, func(v validators.InvalidValue) bool { return v.Path.HasPrefix(c.Path) }) {
			out = append(out, c)
		}
	}
	sortByPath(out, func(v validators.InvalidValue) validators.Path { return v.Path })
	return slices.CompactFunc(out, func(a, b validators.InvalidValue) bool {
		return a.Message == b.Message && a.Path.String() == b.Path.String()
	})
}

func isMap(v any) bool {
	_, ok := v.(map[string]any)
	return ok
}

// misspelled returns the suggestions for the object's unknown fields if a required field is missing, else nothing.
func (s *Structural) misspelled(o *unstructured.Unstructured, errs field.ErrorList) []string {
	if !slices.ContainsFunc(errs, func(e *field.Error) bool { return e.Type == field.ErrorTypeRequired }) {
		return nil
	}
	var out []string
	for _, f := range s.UnknownFields(o) {
		out = append(out, f.Suggestion.String())
	}
	return out
}

// blocksCEL reports whether the API server skips CEL rules because of the error (customresource.hasBlockingErr).
func blocksCEL(e *field.Error) bool {
	switch e.Type {
	case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
		return true
	default:
		return false
	}
}

// composite matches the library's message on allOf, anyOf, oneOf and not, which includes the field.
var composite = regexp.MustCompile(`^"(.*)" must (?:not )?validate .*\((allOf|anyOf|oneOf|not)\)(?:\. (.*))?$`)

// compositeError returns the field and the message of an error about alternatives.
func compositeError(e *field.Error) (at, text string, ok bool) {
	m := composite.FindStringSubmatch(e.Detail)
	if m == nil {
		return "", "", false
	}
	switch {
	case m[2] == "not":
		text = "matches a schema that is not allowed"
	case m[2] == "allOf":
		text = "must match all of the schemas of allOf"
	case m[2] == "oneOf" && m[3] != "" && m[3] != "Found none valid":
		text = "must match exactly one of the schemas of oneOf, matches several"
	default:
		text = "must match one of the schemas of " + m[2]
	}
	return m[1], text, true
}

// format matches the library's message on a number, or a limit in the schema, that its format int32 or int64 cannot hold.
var format = regexp.MustCompile(`^(\w+)(?: boundary)? value must be of type \w+ with format (\w+) in (.+)$`)

// formatError returns the field and the message of an error about the format of a number. API servers before Kubernetes 1.36 ignore these
// formats, and definitions have limits that their own format cannot hold: every object with the field is refused.
func formatError(e *field.Error) (at, text string, ok bool) {
	m := format.FindStringSubmatch(e.Detail)
	switch {
	case m == nil:
		return "", "", false
	case m[1] == "Checked":
		return m[3], "is out of range for its format " + m[2] + ": Kubernetes 1.36 and later refuse it", true
	}
	return m[3], "is refused by Kubernetes 1.36 and later, whatever it is: the CustomResourceDefinition has a limit for it that its format " +
		m[2] + " cannot hold", true
}

// message returns the message of an error, to be read after the field's name, without the value.
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
		return "is a duplicate in the list"
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
	// The library's message starts with the field.
	if _, after, ok := strings.Cut(detail, " in body "); ok {
		detail = after
	}
	if i := strings.Index(detail, `must be of type `); i >= 0 {
		detail, _, _ = strings.Cut(detail, `: "`) // a format: the value follows
	}
	if m := patternDetail.FindStringSubmatch(detail); m != nil && isDurationPattern(m[1]) {
		return "must be a duration such as 10m or 1h30m"
	}
	if strings.HasPrefix(detail, "must ") || strings.HasPrefix(detail, "should ") {
		return strings.Replace(detail, "should ", "must ", 1)
	}
	return "is invalid: " + detail
}

// patternDetail matches the library's message on a pattern.
var patternDetail = regexp.MustCompile(`^should match '(.*)'$`)

// isDurationPattern reports whether a pattern is that of durations, as the definitions of Flux have it.
func isDurationPattern(pattern string) bool {
	return strings.Contains(pattern, "ms|s|m|h")
}

// mustBe returns the message for a value of another type than the schema's.
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
		want = describeFormat(want)
		if have == "a string" {
			return "must be " + want // every value with a format is a string
		}
	}
	return "must be " + want + ", is " + have
}

// unquoted reports whether an error is about a value that would be a string in quotes.
func unquoted(e *field.Error, value any) bool {
	return e.Type == field.ErrorTypeTypeInvalid && strings.Contains(e.Detail, "must be of type string:") && isScalar(value)
}

// isScalar reports whether a value is a number or a truth value.
func isScalar(value any) bool {
	switch value.(type) {
	case bool, int64, float64:
		return true
	}
	return false
}

// describeFormat describes a format of strings.
func describeFormat(name string) string {
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
