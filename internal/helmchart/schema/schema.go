// Package schema compiles the values.schema.json of a chart once, and validates values against it many times.
//
// Schemas are untrusted: they are measured before they are compiled, may only refer to what the caller loads, and an
// evaluation has a budget. The jsonschema library compiles; the evaluation is this package's own, because it must be
// cheap, end on cancellation, quote no value, and validate values that are partly unknown.
package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"regexp"
	"runtime/debug"
	"slices"
	"sort"
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/santhosh-tekuri/jsonschema/v5"

	"github.com/flux-admission/flux-admission/internal/boundedregexp"
)

// Schema is a compiled schema. It is immutable and safe for concurrent use.
type Schema struct {
	root *node
	// size is the length of the source, in bytes.
	size int
	// nodes is the number of compiled schemas.
	nodes int
	// patterns and values are the memory of the compiled regular expressions and of enumerations, in bytes.
	patterns, values int64
}

// Cost estimates the memory that the compiled schema takes, in bytes.
func (s *Schema) Cost() int64 { return int64(s.size) + int64(s.nodes)*768 + s.patterns + s.values }

type types uint8

const (
	typeNull types = 1 << iota
	typeBoolean
	typeInteger
	typeNumber
	typeString
	typeArray
	typeObject
)

var typeNames = []struct {
	bit  types
	name string
}{
	{typeNull, "null"}, {typeBoolean, "boolean"}, {typeInteger, "integer"}, {typeNumber, "number"},
	{typeString, "string"}, {typeArray, "array"}, {typeObject, "object"},
}

func (t types) String() string {
	var out []string
	for _, n := range typeNames {
		if t&n.bit != 0 {
			out = append(out, n.name)
		}
	}
	return strings.Join(out, " or ")
}

type pattern struct {
	// re is nil for a regular expression that is too complex: it may match any name.
	re   *boundedregexp.Regexp
	node *node
}

// text returns the regular expression; "" for one that is too complex.
func (p pattern) text() string {
	if p.re == nil {
		return ""
	}
	return p.re.String()
}

type dependency struct {
	name     string
	required []string
	node     *node // nil for a dependency with required properties
}

// node is one schema, ready for evaluation. Nil pointers and counts of -1 are absent keywords.
type node struct {
	always     bool
	never      bool
	permissive string // the URL of a schema that is not loaded: any value is maybe

	types    types
	constant *any
	enum     []any

	format     string
	formatTest func(any) bool
	// regexpFormat means that a string must be a regular expression. Its test is not the library's, which compiles it.
	regexpFormat bool

	refs []*node // $ref, $recursiveRef, $dynamicRef

	not               *node
	allOf             []*node
	anyOf, oneOf      []*node
	when, then, other *node // if, then, else

	minProperties, maxProperties int
	required                     []string
	properties                   map[string]*node
	patterns                     []pattern
	propertyNames                *node
	additionalFalse              bool
	additionalTrue               bool // accepts other properties, and evaluates them
	additional                   *node
	dependencies                 []dependency
	unevaluatedProperties        *node

	minItems, maxItems       int
	uniqueItems              bool
	items                    *node   // for all items after prefix
	prefix                   []*node // the first items
	additionalItemsFalse     bool
	additionalItemsTrue      bool
	contains                 *node
	minContains, maxContains int
	containsEvaluates        bool
	unevaluatedItems         *node

	minLength, maxLength int
	pattern              *boundedregexp.Regexp
	complexPattern       bool // has a pattern that is too complex: it may match any string

	minimum, exclusiveMinimum, maximum, exclusiveMaximum, multipleOf *big.Rat

	hasObject, hasArray, hasString, hasNumber bool
}

// Compile compiles a schema document. It is expensive, up to seconds for a schema at the limits: it belongs off the
// request path. Load reads the documents that it refers to; with nil, none. A subschema that refers to a document that
// is not loaded may or may not be satisfied by any value. The error describes the problem of the document.
func Compile(doc []byte, load Load) (s *Schema, err error) {
	defer func() {
		if r := recover(); r != nil {
			s, err = nil, fmt.Errorf("compiling the schema panicked: %v\n%s", r, debug.Stack())
		}
	}()
	d, err := parse(doc, load)
	if err != nil {
		return nil, fmt.Errorf("the schema is rejected: %w", err)
	}
	c := jsonschema.NewCompiler()
	c.LoadURL = func(u string) (io.ReadCloser, error) {
		return nil, fmt.Errorf("%q is not loaded: a schema may only refer to itself", u)
	}
	for _, r := range d.resources {
		// The library reads bytes, so the document without its remote references is encoded again.
		if doc, err = json.Marshal(r.root); err != nil {
			return nil, fmt.Errorf("writing the schema without its remote references: %w", err)
		}
		if err := c.AddResource(withoutFragment(r.url), bytes.NewReader(doc)); err != nil {
			return nil, fmt.Errorf("reading the schema: %w", err)
		}
	}
	compiled, err := c.Compile(rootURL)
	if err != nil {
		return nil, fmt.Errorf("the schema is not valid: %w", firstCause(err))
	}
	b := builder{nodes: map[*jsonschema.Schema]*node{}, document: d, patterns: map[string]*boundedregexp.Regexp{}}
	root := b.node(compiled)
	for len(b.queue) > 0 {
		next := b.queue[0]
		b.queue = b.queue[1:]
		b.fill(next, b.nodes[next])
	}
	if b.err != nil {
		return nil, fmt.Errorf("the schema is rejected: %w", b.err)
	}
	out := &Schema{root: root, size: d.size, nodes: len(b.nodes)}
	for _, re := range b.patterns {
		out.patterns += re.Memory()
	}
	for _, n := range b.nodes {
		for _, v := range n.enum {
			out.values += valueMemory(v)
		}
	}
	return out, nil
}

// valueMemory estimates the memory of a decoded value, in bytes.
func valueMemory(v any) int64 {
	n := int64(32)
	switch v := v.(type) {
	case string:
		n += int64(len(v))
	case []any:
		for _, c := range v {
			n += valueMemory(c)
		}
	case map[string]any:
		n += 320
		for k, c := range v {
			n += int64(len(k)) + 48 + valueMemory(c)
		}
	}
	return n
}

// firstCause reduces the compiler's error, which can be as long as the schema, to its first leaf.
func firstCause(err error) error {
	var ve *jsonschema.ValidationError
	if !errors.As(err, &ve) {
		if se, ok := errors.AsType[*jsonschema.SchemaError](err); ok {
			return se.Err
		}
		return err
	}
	for len(ve.Causes) > 0 {
		ve = ve.Causes[0]
	}
	return fmt.Errorf("at #%s: %s", ve.InstanceLocation, ve.Message)
}

// builder turns the library's compiled schemas into nodes. It uses a queue, because the graph may be deep.
type builder struct {
	nodes    map[*jsonschema.Schema]*node
	queue    []*jsonschema.Schema
	document *document
	// patterns are the regular expressions by their text: equal ones are kept once.
	patterns map[string]*boundedregexp.Regexp
	err      error
}

// regexp returns a regular expression that the library has compiled; nil for one that is too complex.
func (b *builder) regexp(re *regexp.Regexp) *boundedregexp.Regexp {
	text := re.String()
	if text == complexPattern {
		return nil
	}
	out, ok := b.patterns[text]
	if !ok {
		var err error
		if out, err = boundedregexp.Wrap(re); err != nil {
			b.err = err
		}
		b.patterns[text] = out
	}
	return out
}

// position returns the URL of the document that contains a schema, and its JSON Pointer there; false for a meta-schema.
func (b *builder) position(s *jsonschema.Schema) (resource, pointer string, ok bool) {
	resource, fragment, _ := strings.Cut(s.Location, "#")
	if !b.document.ids[resource] {
		return "", "", false
	}
	p, err := url.PathUnescape(fragment)
	return resource, p, err == nil
}

func (b *builder) node(s *jsonschema.Schema) *node {
	if s == nil {
		return nil
	}
	n, ok := b.nodes[s]
	if !ok {
		n = &node{}
		b.nodes[s] = n
		b.queue = append(b.queue, s)
	}
	return n
}

func (b *builder) list(ss []*jsonschema.Schema) []*node {
	var out []*node
	for _, s := range ss {
		out = append(out, b.node(s))
	}
	return out
}

func (b *builder) fill(s *jsonschema.Schema, n *node) {
	if len(b.document.permissive) > 0 {
		if u, p, ok := b.position(s); ok {
			n.permissive = b.document.permissive[u+"#"+p]
		}
		if n.permissive != "" {
			return
		}
	}
	if s.Always != nil {
		n.always, n.never = *s.Always, !*s.Always
		return
	}
	for _, name := range s.Types {
		for _, t := range typeNames {
			if t.name == name {
				n.types |= t.bit
			}
		}
	}
	if len(s.Constant) > 0 {
		n.constant = &s.Constant[0]
	}
	if s.Ref != nil && (s.Draft == jsonschema.Draft6 || s.Draft == jsonschema.Draft7) {
		// Before draft 2019-09, keywords beside a $ref are ignored. Helm's validator evaluates const nevertheless.
		if c, ok := b.document.at(b.position(s))["const"]; ok {
			n.constant = &c
		}
	}
	n.enum = s.Enum
	if b.assertsFormat(s) {
		n.format, n.formatTest = s.Format, format(s.Format)
		n.regexpFormat = s.Format == "regex"
	}
	for _, ref := range []*jsonschema.Schema{s.Ref, s.RecursiveRef, s.DynamicRef} {
		if ref != nil {
			n.refs = append(n.refs, b.node(ref))
		}
	}
	n.not, n.allOf, n.anyOf, n.oneOf = b.node(s.Not), b.list(s.AllOf), b.list(s.AnyOf), b.list(s.OneOf)
	n.when, n.then, n.other = b.node(s.If), b.node(s.Then), b.node(s.Else)
	b.fillObject(s, n)
	b.fillArray(s, n)
	n.minLength, n.maxLength = s.MinLength, s.MaxLength
	if s.Pattern != nil {
		n.pattern = b.regexp(s.Pattern)
		n.complexPattern = n.pattern == nil
	}
	n.hasString = n.minLength >= 0 || n.maxLength >= 0 || s.Pattern != nil
	n.minimum, n.exclusiveMinimum, n.multipleOf = s.Minimum, s.ExclusiveMinimum, s.MultipleOf
	n.maximum, n.exclusiveMaximum = s.Maximum, s.ExclusiveMaximum
	n.hasNumber = n.minimum != nil || n.exclusiveMinimum != nil || n.maximum != nil || n.exclusiveMaximum != nil ||
		n.multipleOf != nil && n.multipleOf.Sign() != 0
}

func (b *builder) fillObject(s *jsonschema.Schema, n *node) {
	n.minProperties, n.maxProperties, n.required = s.MinProperties, s.MaxProperties, s.Required
	if len(s.Properties) > 0 {
		n.properties = make(map[string]*node, len(s.Properties))
		for name, p := range s.Properties {
			n.properties[name] = b.node(p)
		}
	}
	for re, p := range s.PatternProperties {
		n.patterns = append(n.patterns, pattern{b.regexp(re), b.node(p)})
	}
	slices.SortFunc(n.patterns, func(x, y pattern) int { return strings.Compare(x.text(), y.text()) })
	n.propertyNames = b.node(s.PropertyNames)
	switch a := s.AdditionalProperties.(type) {
	case bool:
		n.additionalFalse, n.additionalTrue = !a, a
	case *jsonschema.Schema:
		n.additional = b.node(a)
	}
	for name, d := range s.Dependencies {
		switch d := d.(type) {
		case *jsonschema.Schema:
			n.dependencies = append(n.dependencies, dependency{name: name, node: b.node(d)})
		case []string:
			n.dependencies = append(n.dependencies, dependency{name: name, required: d})
		}
	}
	for name, required := range s.DependentRequired {
		n.dependencies = append(n.dependencies, dependency{name: name, required: required})
	}
	for name, d := range s.DependentSchemas {
		n.dependencies = append(n.dependencies, dependency{name: name, node: b.node(d)})
	}
	sort.SliceStable(n.dependencies, func(i, j int) bool { return n.dependencies[i].name < n.dependencies[j].name })
	n.unevaluatedProperties = b.node(s.UnevaluatedProperties)
	n.hasObject = n.minProperties >= 0 || n.maxProperties >= 0 || len(n.required) > 0 || n.properties != nil || n.patterns != nil ||
		n.propertyNames != nil || n.additionalFalse || n.additional != nil || n.dependencies != nil || n.unevaluatedProperties != nil
}

func (b *builder) fillArray(s *jsonschema.Schema, n *node) {
	n.minItems, n.maxItems, n.uniqueItems = s.MinItems, s.MaxItems, s.UniqueItems
	switch items := s.Items.(type) {
	case *jsonschema.Schema:
		n.items = b.node(items)
	case []*jsonschema.Schema:
		n.prefix = b.list(items)
		switch a := s.AdditionalItems.(type) {
		case bool:
			n.additionalItemsFalse, n.additionalItemsTrue = !a, a
		case *jsonschema.Schema:
			n.items = b.node(a)
		}
	}
	if len(s.PrefixItems) > 0 {
		n.prefix = b.list(s.PrefixItems)
	}
	if s.Items2020 != nil {
		n.items = b.node(s.Items2020)
	}
	n.contains, n.minContains, n.maxContains, n.containsEvaluates = b.node(s.Contains), s.MinContains, s.MaxContains, s.ContainsEval
	n.unevaluatedItems = b.node(s.UnevaluatedItems)
	n.hasArray = n.minItems >= 0 || n.maxItems >= 0 || n.uniqueItems || n.items != nil || n.prefix != nil ||
		n.contains != nil || n.unevaluatedItems != nil
}

// assertsFormat reports whether a schema's format is validated: before draft 2019-09 it is, later it is an annotation.
func (b *builder) assertsFormat(s *jsonschema.Schema) bool {
	return s.Format != "" && (s.Draft == jsonschema.Draft4 || s.Draft == jsonschema.Draft6 || s.Draft == jsonschema.Draft7)
}

// format returns the test of a format; nil for a format that Helm's validator does not know.
func format(name string) func(any) bool {
	switch name {
	case "regex": // see node.regexpFormat
		return nil
	case "ip-address", "uriref": // of older drafts; only this library knows them
		return nil
	case "semver": // only Helm's validator knows it
		return func(v any) bool {
			s, ok := v.(string)
			if !ok {
				return true
			}
			_, err := semver.StrictNewVersion(s)
			return err == nil
		}
	default:
		return jsonschema.Formats[name]
	}
}
