package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// The limits of a schema document. They bound what compiling it may cost before it starts: the compiler recurses through the
// document and its references, and a stack that overflows ends the process.
const (
	// MaxBytes bounds the document. The largest public chart schemas have less than 2 MB.
	MaxBytes = 8 << 20
	// MaxDepth bounds the nesting of the document.
	MaxDepth = 200
	// MaxNodes bounds objects, lists and scalars together; a schema of 630 KB has 9,000.
	MaxNodes = 400_000
	// MaxSchemas bounds the objects that can be schemas. The compiler is quadratic in them for some documents.
	MaxSchemas = 40_000
	// MaxChain bounds how many schemas in a row apply to the same value: $ref to $ref, allOf in allOf.
	MaxChain = 128
	// maxOddRefs bounds the $refs to places that are no schema by the specification, the embedded $ids and the anchors together:
	// each costs the compiler a pass over the whole document.
	maxOddRefs = 1_000
	// maxNumber bounds the digits of a number, which become a big.Rat.
	maxNumber = 64
)

// rootURL is the URL that Helm gives a chart's schema. References are resolved against it.
const rootURL = "file:///values.schema.json"

// namedSchemas are the keywords whose value maps names of the author's to schemas. In them a key is no keyword.
var namedSchemas = []string{"properties", "patternProperties", "definitions", "$defs", "dependentSchemas", "dependencies"}

// data are the keywords whose value is data and holds no schemas.
var data = []string{"enum", "const", "default", "examples"}

// inPlace are the keywords whose schemas apply to the same value as the schema that has them.
var inPlace = []string{"allOf", "anyOf", "oneOf", "not", "if", "then", "else"}

// document is a schema's JSON, and that of the schemas it refers to, on their way to the compiler.
type document struct {
	// resources are the documents, the schema itself first.
	resources []*resource
	// ids are the URLs of all schemas in the documents, without a fragment.
	ids map[string]bool
	// permissive maps a schema that was made permissive, by the URL of its document and its JSON Pointer in it, to the URL it refers to.
	permissive map[string]string
	size       int
	schemas    int
	odd        int
}

// resource is one document.
type resource struct {
	url  *url.URL // where it was read from
	id   string   // the URL it gives itself, else the one it was read from
	root any
}

// Load reads a document that a schema refers to, by its URL without a fragment. Nil loads none.
type Load func(url string) ([]byte, error)

// parse reads a schema document and what it refers to within the limits, and takes out the references that lead elsewhere.
func parse(doc []byte, load Load) (*document, error) {
	d := &document{ids: map[string]bool{}, permissive: map[string]string{}}
	if err := d.add(mustParse(rootURL), doc); err != nil {
		return nil, err
	}
	if load != nil {
		d.loadAll(load)
	}
	for _, r := range d.resources {
		d.cut(r)
	}
	for _, r := range d.resources {
		if err := checkChains(r.root); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// add reads one document.
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
	case d.odd > maxOddRefs:
		return fmt.Errorf("it has %d embedded identifiers, anchors and references outside definitions, more than %d", d.odd, maxOddRefs)
	}
	d.resources = append(d.resources, r)
	for id := range ids {
		d.ids[id] = true
	}
	return nil
}

// at returns the schema at a place; nil when there is no object.
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

// maxResources bounds the documents that one schema is made of.
const maxResources = 32

// loadAll reads what the documents refer to, and what that refers to. What cannot be read, or is not accepted, is left out.
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
				d.size, d.schemas, d.odd = before.size, before.schemas, before.odd
			}
		})
	}
}

// measure reads the document's tokens once, keeping nothing, and counts.
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
				return errors.New("it is not JSON: something follows the document")
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

// collect gathers the URLs of all schemas in a document and counts what makes compiling costly.
func (d *document) collect(v any, base *url.URL, ids map[string]bool) {
	walk(v, base, "", func(m map[string]any, base *url.URL, _ string) {
		d.schemas++
		if id := identifier(m); id != "" {
			if base.String() != rootURL {
				d.odd++
			}
			ids[withoutFragment(base)] = true
		}
		for _, k := range []string{"$anchor", "$dynamicAnchor"} {
			if _, ok := m[k].(string); ok {
				d.odd++
			}
		}
		if ref, ok := m["$ref"].(string); ok && odd(ref) {
			d.odd++
		}
	})
}

// odd tells whether a reference leads to a place where the compiler does not expect a schema, or has to search for one.
func odd(ref string) bool {
	pointer, ok := strings.CutPrefix(ref, "#/")
	if !ok {
		return ref != "#"
	}
	first, _, _ := strings.Cut(pointer, "/")
	return first != "definitions" && first != "$defs" && first != "properties"
}

// cut makes every schema of a document permissive whose reference leads outside the documents. The drafts' own meta-schemas are known to the compiler.
func (d *document) cut(r *resource) {
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
				// A dynamic reference depends on the way it was reached when schemas with names of their own are embedded.
				target = base.JoinPath(k)
			}
			name := "a reference that cannot be read"
			if err == nil {
				shown := url.URL{Scheme: target.Scheme, Opaque: target.Opaque, Host: target.Host, Path: target.Path}
				name = shown.String()
			}
			clear(m)
			d.permissive[r.id+"#"+pointer] = name
			return
		}
	})
}

// metaSchema tells whether a URL is one of the drafts' own schemas that the compiler carries and that refers to itself statically.
func metaSchema(u *url.URL) bool {
	return u.Host == "json-schema.org" && strings.HasPrefix(u.Path, "/draft-0") && strings.HasSuffix(u.Path, "/schema")
}

// checkChains fails when too many schemas in a row apply to the same value. A chain that closes on itself is found by the evaluator.
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

func withoutFragment(u *url.URL) string {
	c := *u
	c.Fragment, c.RawFragment = "", ""
	return c.String()
}

func mustParse(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err) // a constant of this package
	}
	return u
}

var escaper = strings.NewReplacer("~", "~0", "/", "~1")

func escape(token string) string { return escaper.Replace(token) }

var unescaper = strings.NewReplacer("~1", "/", "~0", "~")

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
