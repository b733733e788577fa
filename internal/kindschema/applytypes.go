package kindschema

import (
	_ "embed" // the schemas
	"fmt"
	"strings"
	"sync"

	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// applyText has the schemas of server-side apply, which declare the lists that are maps by a key: a line for each type,
// with its name and its schema.
//
//go:embed applytypes.txt
var applyText string

// applyTypes decodes the schemas of server-side apply that objects need. Decoding all of them takes longer than
// checking a small tree. It is safe for concurrent use.
type applyTypes struct {
	mu sync.Mutex
	// types are the decoded types, roots those of objects with the types that they refer to.
	types map[string]schema.TypeDef
	roots map[string]*typed.ParseableType
}

// of returns the type of an object.
func (a *applyTypes) of(name string) (*typed.ParseableType, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.roots[name]; t != nil {
		return t, nil
	}
	var types []schema.TypeDef
	seen := map[string]bool{name: true}
	for queue := []string{name}; len(queue) > 0; queue = queue[1:] {
		def, err := a.decode(queue[0])
		if err != nil {
			return nil, err
		}
		types = append(types, def)
		references(def.Atom, func(name string) {
			if !seen[name] {
				seen[name] = true
				queue = append(queue, name)
			}
		})
	}
	if a.roots == nil {
		a.roots = map[string]*typed.ParseableType{}
	}
	parser := &typed.Parser{Schema: schema.Schema{Types: types}}
	t := parser.Type(name)
	a.roots[name] = &t
	return &t, nil
}

// decode returns one type.
func (a *applyTypes) decode(name string) (schema.TypeDef, error) {
	if def, ok := a.types[name]; ok {
		return def, nil
	}
	def := schema.TypeDef{Name: name}
	at := strings.Index(applyText, "\n"+name+" ")
	if at < 0 {
		return def, fmt.Errorf("server-side apply has no schema of %s", name)
	}
	line, _, _ := strings.Cut(applyText[at+len(name)+2:], "\n")
	if err := yamlv3.Unmarshal([]byte(line), &def.Atom); err != nil {
		return def, fmt.Errorf("decoding the schema of %s: %w", name, err)
	}
	if a.types == nil {
		a.types = map[string]schema.TypeDef{}
	}
	a.types[name] = def
	return def, nil
}

// references calls yield with the names of the types that a type refers to.
func references(t schema.Atom, yield func(name string)) {
	refer := func(r schema.TypeRef) {
		if r.NamedType != nil {
			yield(*r.NamedType)
			return
		}
		references(r.Inlined, yield)
	}
	if t.List != nil {
		refer(t.List.ElementType)
	}
	if t.Map != nil {
		refer(t.Map.ElementType)
		for _, f := range t.Map.Fields {
			refer(f.Type)
		}
	}
}
