package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/flux-admission/flux-admission/internal/boundedregexp"
)

// The limits of a schema document. They bound the cost of compiling it: the compiler recurses through the document and
// its references, and a stack overflow ends the process.
const (
	// MaxBytes bounds the document, so that it can be compiled in the memory that the webhook server is installed with. The
	// largest public chart schemas have less than 2 MB.
	MaxBytes = 4 << 20
	// MaxDepth bounds the nesting of the document.
	MaxDepth = 200
	// MaxNodes bounds objects, lists and scalars together; a schema of 630 KB has 9,000.
	MaxNodes = 60_000
	// MaxSchemas bounds the objects that may be schemas. For some documents, the compiler is quadratic in their number.
	MaxSchemas = 10_000
	// MaxChain bounds how many schemas in a row apply to the same value: $ref to $ref, allOf in allOf.
	MaxChain = 128
	// maxSearches bounds the $refs to positions that are no schema by the specification, the embedded $ids and the anchors
	// together: for each, the compiler searches the whole document.
	maxSearches = 1_000
	// maxNumber bounds the digits of a number, which is decoded into a big.Rat.
	maxNumber = 64
)

// rootURL is the URL that Helm gives a chart's schema. References are resolved against it.
const rootURL = "file:///values.schema.json"

// namedSchemas are the keywords whose value maps names to schemas. A key of such a map is no keyword.
var namedSchemas = []string{"properties", "patternProperties", "definitions", "$defs", "dependentSchemas", "dependencies"}

// data are the keywords whose value is data without schemas.
var data = []string{"enum", "const", "default", "examples"}

// inPlace are the keywords whose schemas apply to the same value as the schema that has them.
var inPlace = []string{"allOf", "anyOf", "oneOf", "not", "if", "then", "else"}

// document is the JSON of a schema and of the schemas that it refers to, as input of the compiler.
type document struct {
	// resources are the documents, the schema itself first.
	resources []*resource
	// ids are the URLs of all schemas in the documents, without fragments.
	ids map[string]bool
	// permissive maps the schemas whose reference is not loaded, by the URL of their document and the JSON Pointer in it,
	// to the URL that they refer to.
	permissive map[string]string
	// patterns are the sizes of the regular expressions in memory, by their text; -1 for those that are too complex.
	patterns map[string]int64
	// patternMemory is the size of all regular expressions together. Those in schemas are counted twice.
	patternMemory int64
	size          int
	schemas       int
	searches      int
}

// resource is one document.
type resource struct {
	url  *url.URL // where it is loaded from
	id   string   // its own $id, else url
	root any
}

// Load reads a document that a schema refers to, by its URL without a fragment.
type Load func(url string) ([]byte, error)

// parse reads a schema document and those that it refers to within the limits, and removes references to other
// documents.
func parse(doc []byte, load Load) (*document, error) {
	d := &document{ids: map[string]bool{}, permissive: map[string]string{}, patterns: map[string]int64{}}
	if err := d.add(mustParse(rootURL), doc); err != nil {
		return nil, err
	}
	if load != nil {
		d.loadAll(load)
	}
	for _, r := range d.resources {
		d.removeReferences(r)
		d.replacePatterns(r)
	}
	for _, r := range d.resources {
		if err := d.checkPatterns(r.root); err != nil {
			return nil, err
		}
	}
	if d.patternMemory > 2*maxPatternMemory {
		return nil, fmt.Errorf("its patterns take more than %d bytes together: %w", maxPatternMemory, boundedregexp.ErrTooComplex)
	}
	for _, r := range d.resources {
		if err := checkChains(r.root); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// add parses one document.
func (d *document) add(u *url.URL, doc []byte) error {
	if d.size += len(doc); d.size > MaxBytes {
		return fmt.Errorf("it has %d bytes, more than %d", d.size, MaxBytes)
	}
	doc = bytes.TrimPrefix(doc, []byte("\xef\xbb\xbf"))
	if err := measure(doc); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	r := &resource{url: u, id: withoutFragment(u)}
	if err := dec.Decode(&r.root); err != nil {
		return fmt.Errorf("it is not JSON: %w", err)
	}
	if m, ok := r.root.(map[string]any); ok {
		if id, err := u.Parse(identifier(m)); err == nil {
			r.id = withoutFragment(id)
		}
	}
	ids := map[string]bool{withoutFragment(u): true}
	d.collect(r.root, u, ids)
	switch {
	case d.schemas > MaxSchemas:
		return fmt.Errorf("it has %d objects, more than %d", d.schemas, MaxSchemas)
	case d.searches > maxSearches:
		return fmt.Errorf("it has %d embedded identifiers, anchors and references outside definitions, more than %d", d.searches, maxSearches)
	}
	d.resources = append(d.resources, r)
	for id := range ids {
		d.ids[id] = true
	}
	return nil
}

// at returns the schema at a position; nil when it is no object.
func (d *document) at(resource, pointer string, ok bool) map[string]any {
	if !ok {
		return nil
	}
	for _, r := range d.resources {
		if r.id == resource {
			m, _ := resolve(r.root, pointer).(map[string]any)
			return m
		}
	}
	return nil
}

// maxResources bounds the documents that one schema refers to.
const maxResources = 32

// loadAll loads the documents that the documents refer to, transitively. It skips those that cannot be loaded or exceed
// the limits.
func (d *document) loadAll(load Load) {
	tried := map[string]bool{}
	for i := 0; i < len(d.resources); i++ {
		walk(d.resources[i].root, d.resources[i].url, "", func(m map[string]any, base *url.URL, _ string) {
			ref, ok := m["$ref"].(string)
			if !ok {
				return
			}
			target, err := base.Parse(ref)
			if err != nil || metaSchema(target) {
				return
			}
			u := withoutFragment(target)
			if d.ids[u] || tried[u] || len(tried) >= maxResources || target.Scheme != "http" && target.Scheme != "https" {
				return
			}
			tried[u] = true
			data, err := load(u)
			if err != nil {
				return
			}
			before := *d
			if at, err := url.Parse(u); err != nil || d.add(at, data) != nil {
				d.size, d.schemas, d.searches = before.size, before.schemas, before.searches
			}
		})
	}
}

// measure reads the document's tokens once, without keeping them, and counts them.
func measure(doc []byte) error {
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	depth, nodes := 0, 0
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("it is not JSON: %w", err)
		}
		if nodes++; nodes > MaxNodes {
			return fmt.Errorf("it has more than %d nodes", MaxNodes)
		}
		switch tok := tok.(type) {
		case json.Delim:
			if tok == '{' || tok == '[' {
				depth++
			} else {
				depth--
			}
			if depth > MaxDepth {
				return fmt.Errorf("it is nested deeper than %d", MaxDepth)
			}
			if depth == 0 && dec.More() {
				return errors.New("it is not JSON: there is text after the document")
			}
		case json.Number:
			if len(tok) > maxNumber || hugeExponent(string(tok)) {
				return errors.New("it has a number that is too long")
			}
		}
	}
}

func hugeExponent(n string) bool {
	_, exp, ok := strings.Cut(strings.ToLower(n), "e")
	if !ok {
		return false
	}
	e, err := strconv.Atoi(exp)
	return err != nil || e > 400 || e < -400
}

// collect collects the URLs of all schemas in a document, and counts what makes compiling expensive.
func (d *document) collect(v any, base *url.URL, ids map[string]bool) {
	walk(v, base, "", func(m map[string]any, base *url.URL, _ string) {
		d.schemas++
		if id := identifier(m); id != "" {
			if base.String() != rootURL {
				d.searches++
			}
			ids[withoutFragment(base)] = true
		}
		for _, k := range []string{"$anchor", "$dynamicAnchor"} {
			if _, ok := m[k].(string); ok {
				d.searches++
			}
		}
		if ref, ok := m["$ref"].(string); ok && needsSearch(ref) {
			d.searches++
		}
	})
}

// needsSearch reports whether a reference leads to a position where the compiler does not expect a schema, or must
// search.
func needsSearch(ref string) bool {
	pointer, ok := strings.CutPrefix(ref, "#/")
	if !ok {
		return ref != "#"
	}
	first, _, _ := strings.Cut(pointer, "/")
	return first != "definitions" && first != "$defs" && first != "properties"
}

// removeReferences makes the schemas of a document permissive that refer to a document that is not loaded. The compiler
// has the meta-schemas of the drafts.
func (d *document) removeReferences(r *resource) {
	walk(r.root, r.url, "", func(m map[string]any, base *url.URL, pointer string) {
		for _, k := range []string{"$ref", "$dynamicRef", "$recursiveRef"} {
			ref, ok := m[k].(string)
			if !ok {
				continue
			}
			target, err := base.Parse(ref)
			if err == nil && (d.ids[withoutFragment(target)] || metaSchema(target)) {
				if k == "$ref" || len(d.ids) <= 2 {
					continue
				}
				// With embedded schemas, the target of a dynamic reference depends on the path that led to it.
				target = base.JoinPath(k)
			}
			name := "a reference that is no URL"
			if err == nil {
				redacted := url.URL{Scheme: target.Scheme, Opaque: target.Opaque, Host: target.Host, Path: target.Path}
				name = redacted.String()
			}
			clear(m)
			d.permissive[r.id+"#"+pointer] = name
			return
		}
	})
}

// complexPattern replaces a regular expression that is too complex, before the library compiles it. A schema that has it
// itself is treated alike.
const complexPattern = "^this pattern is too complex$"

// maxPatternMemory bounds the regular expressions of a schema together, in bytes. Those of a schema of 630 KB take 500 KB.
const maxPatternMemory = 8 << 20

// replacePatterns replaces the regular expressions of a document that are too complex.
func (d *document) replacePatterns(r *resource) {
	walk(r.root, r.url, "", func(m map[string]any, _ *url.URL, _ string) {
		if text, ok := m["pattern"].(string); ok && d.tooComplex(text) {
			m["pattern"] = complexPattern
		}
		named, ok := m["patternProperties"].(map[string]any)
		if !ok {
			return
		}
		for _, text := range slices.Sorted(maps.Keys(named)) {
			if !d.tooComplex(text) {
				continue
			}
			// Two of them in one schema become one that applies both.
			if other, ok := named[complexPattern]; ok && text != complexPattern {
				named[complexPattern] = map[string]any{"allOf": []any{other, named[text]}}
			} else {
				named[complexPattern] = named[text]
			}
			if text != complexPattern {
				delete(named, text)
			}
		}
	})
}

// tooComplex measures a regular expression, and reports whether it cannot be compiled within the limits.
func (d *document) tooComplex(text string) bool {
	memory, ok := d.patterns[text]
	if !ok {
		size, err := boundedregexp.Measure(text)
		if memory = size.Memory(); errors.Is(err, boundedregexp.ErrTooComplex) {
			memory = -1
		} // the compiler reports other errors
		d.patterns[text] = memory
	}
	if memory < 0 {
		return true
	}
	d.patternMemory += memory
	return false
}

// checkPatterns returns an error for a regular expression that is too complex and that replacePatterns does not find: in
// data, for example, to which a reference may lead.
func (d *document) checkPatterns(v any) error {
	switch v := v.(type) {
	case []any:
		for _, c := range v {
			if err := d.checkPatterns(c); err != nil {
				return err
			}
		}
	case map[string]any:
		texts := []string{}
		if text, ok := v["pattern"].(string); ok {
			texts = append(texts, text)
		}
		if named, ok := v["patternProperties"].(map[string]any); ok {
			texts = slices.AppendSeq(texts, maps.Keys(named))
		}
		if slices.ContainsFunc(texts, d.tooComplex) {
			return fmt.Errorf("it has a pattern outside of its schemas: %w", boundedregexp.ErrTooComplex)
		}
		for _, c := range v {
			if err := d.checkPatterns(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// metaSchema reports whether a URL is that of a meta-schema that the compiler has and that has no dynamic references.
func metaSchema(u *url.URL) bool {
	return u.Host == "json-schema.org" && strings.HasPrefix(u.Path, "/draft-0") && strings.HasSuffix(u.Path, "/schema")
}

// checkChains returns an error when too many schemas in a row apply to the same value. The evaluator finds cycles.
func checkChains(root any) error {
	depth := map[string]int{} // by pointer; -1 while being measured
	var measure func(pointer string, left int) (int, error)
	measure = func(pointer string, left int) (int, error) {
		if n, ok := depth[pointer]; ok {
			return max(n, 0), nil
		}
		if left == 0 {
			return 0, fmt.Errorf("more than %d schemas in a row apply to the same value, at #%s", MaxChain, pointer)
		}
		depth[pointer] = -1
		m, _ := resolve(root, pointer).(map[string]any)
		longest := 0
		visit := func(p string) error {
			n, err := measure(p, left-1)
			longest = max(longest, n)
			return err
		}
		for _, next := range inPlaceTargets(m, pointer) {
			if err := visit(next); err != nil {
				return 0, err
			}
		}
		if longest++; longest > MaxChain {
			return 0, fmt.Errorf("more than %d schemas in a row apply to the same value, at #%s", MaxChain, pointer)
		}
		depth[pointer] = longest
		return longest, nil
	}
	var firstErr error
	walk(root, mustParse(rootURL), "", func(m map[string]any, _ *url.URL, pointer string) {
		if firstErr == nil && len(inPlaceTargets(m, pointer)) > 0 {
			_, firstErr = measure(pointer, 8*MaxChain)
		}
	})
	return firstErr
}

// inPlaceTargets returns the pointers of the schemas that apply to the same value as m.
func inPlaceTargets(m map[string]any, pointer string) []string {
	var out []string
	if ref, ok := m["$ref"].(string); ok {
		if p, ok := strings.CutPrefix(ref, "#"); ok && (p == "" || p[0] == '/') {
			if u, err := url.PathUnescape(p); err == nil {
				out = append(out, u)
			}
		}
	}
	for _, k := range inPlace {
		switch v := m[k].(type) {
		case map[string]any:
			out = append(out, pointer+"/"+k)
		case []any:
			for i := range v {
				out = append(out, pointer+"/"+k+"/"+strconv.Itoa(i))
			}
		}
	}
	for _, k := range []string{"dependencies", "dependentSchemas"} {
		if deps, ok := m[k].(map[string]any); ok {
			for name := range deps {
				out = append(out, pointer+"/"+k+"/"+escape(name))
			}
		}
	}
	return out
}

// walk calls visit for every object in v that can be a schema, with the URL that its references are resolved against.
func walk(v any, base *url.URL, pointer string, visit func(m map[string]any, base *url.URL, pointer string)) {
	switch v := v.(type) {
	case map[string]any:
		if id := identifier(v); id != "" {
			if u, err := base.Parse(id); err == nil {
				base = u
			}
		}
		visit(v, base, pointer)
		for k, child := range v {
			if slices.Contains(data, k) {
				continue
			}
			if named, ok := child.(map[string]any); ok && slices.Contains(namedSchemas, k) {
				for name, s := range named {
					walk(s, base, pointer+"/"+k+"/"+escape(name), visit)
				}
				continue
			}
			walk(child, base, pointer+"/"+escape(k), visit)
		}
	case []any:
		for i, child := range v {
			walk(child, base, pointer+"/"+strconv.Itoa(i), visit)
		}
	}
}

// identifier returns the $id (id before draft 6) of a schema, unless it is only a fragment.
func identifier(m map[string]any) string {
	for _, k := range []string{"$id", "id"} {
		if id, ok := m[k].(string); ok && id != "" && !strings.HasPrefix(id, "#") {
			return id
		}
	}
	return ""
}

// withoutFragment returns a URL without its fragment.
func withoutFragment(u *url.URL) string {
	c := *u
	c.Fragment, c.RawFragment = "", ""
	return c.String()
}

func mustParse(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err) // s is a constant of this package
	}
	return u
}

var escaper = strings.NewReplacer("~", "~0", "/", "~1")

func escape(token string) string { return escaper.Replace(token) }

var unescaper = strings.NewReplacer("~1", "/", "~0", "~")

// resolve returns the value at a JSON Pointer; nil when there is none.
func resolve(v any, pointer string) any {
	if pointer == "" {
		return v
	}
	for token := range strings.SplitSeq(pointer[1:], "/") {
		token = unescaper.Replace(token)
		switch c := v.(type) {
		case map[string]any:
			v = c[token]
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil || i < 0 || i >= len(c) {
				return nil
			}
			v = c[i]
		default:
			return nil
		}
	}
	return v
}
