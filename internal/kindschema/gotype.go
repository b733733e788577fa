package kindschema

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/flux-admission/flux-admission/validators"
)

// goType describes what a Go type of the Kubernetes API accepts as JSON, with the rules of its decoder: names are case-sensitive, null means
// unset, and a type with its own decoder decides itself.
type goType struct {
	t reflect.Type
	// names are the fields of a struct; nil for any other type.
	names map[string]*goType
	// elem is the element type of a map or a list.
	elem   *goType
	custom bool
}

// goTypes caches types, so that a recursive type is read once.
type goTypes map[reflect.Type]*goType

func objectMetaType() *goType { return goTypes{}.of(reflect.TypeFor[metav1.ObjectMeta]()) }

func (known goTypes) of(t reflect.Type) *goType {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if g, ok := known[t]; ok {
		return g
	}
	g := &goType{t: t}
	known[t] = g
	switch {
	case reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()):
		g.custom = true
	case t.Kind() == reflect.Struct:
		g.names = map[string]*goType{}
		known.addFields(g, t)
	case t.Kind() == reflect.Map, t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8:
		g.elem = known.of(t.Elem())
	}
	return g
}

func (known goTypes) addFields(g *goType, t reflect.Type) {
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case name == "" && f.Anonymous:
			embedded := f.Type
			if embedded.Kind() == reflect.Pointer {
				embedded = embedded.Elem()
			}
			known.addFields(g, embedded)
		case name != "":
			g.names[name] = known.of(f.Type)
		}
	}
}

// fields implements node.
func (g *goType) fields() []string { return slices.Sorted(maps.Keys(g.names)) }

// field implements node.
func (g *goType) field(name string) node {
	if child := g.names[name]; child != nil && child.names != nil {
		return child
	}
	return nil
}

// at returns the type of the field at a path; nil if there is none.
func (g *goType) at(p validators.Path) *goType {
	for _, step := range p {
		switch {
		case g == nil:
			return nil
		case g.names != nil && !step.IsIndex():
			g = g.names[step.Key]
		default:
			g = g.elem
		}
	}
	return g
}

// walker compares an object with a Go type.
type walker struct {
	// root and object are the type and value of the whole object, for suggestions; nil to look for none outside the map.
	root    *goType
	object  map[string]any
	unknown []validators.UnknownField
	invalid []validators.InvalidValue
}

func (w *walker) walk(g *goType, v any, at validators.Path) {
	if v == nil {
		return
	}
	switch {
	case g.names != nil:
		m, ok := v.(map[string]any)
		if !ok {
			w.reject(at, mustBe("object", v))
			return
		}
		for k, e := range m {
			if child, ok := g.names[k]; ok {
				w.walk(child, e, at.Child(k))
			} else {
				w.unknown = append(w.unknown, w.unknownField(g, at, k, e))
			}
		}
	case g.elem != nil && g.t.Kind() == reflect.Map:
		m, ok := v.(map[string]any)
		if !ok {
			w.reject(at, mustBe("object", v))
			return
		}
		for k, e := range m {
			w.walk(g.elem, e, at.Child(k))
		}
	case g.elem != nil:
		list, ok := v.([]any)
		if !ok {
			w.reject(at, mustBe("array", v))
			return
		}
		for i, e := range list {
			w.walk(g.elem, e, at.Index(i))
		}
	default:
		if !g.decodes(v) {
			w.reject(at, g.expected(v))
			w.invalid[len(w.invalid)-1].Unquoted = g.t.Kind() == reflect.String && isScalar(v)
		}
	}
}

func (w *walker) reject(at validators.Path, message string) {
	w.invalid = append(w.invalid, validators.InvalidValue{Path: at, Message: message})
}

func (w *walker) unknownField(g *goType, parent validators.Path, name string, value any) validators.UnknownField {
	f := validators.UnknownField{Path: parent.Child(name)}
	root := node(g)
	if w.root != nil {
		root = w.root
	}
	if f.Suggestion = suggestion(g, parent, name, root); f.Suggestion == nil || w.root == nil {
		return f
	}
	if target := w.root.at(f.Suggestion); target != nil && f.Suggestion.Lookup(w.object) == nil && parentExists(w.object, f.Suggestion) {
		try := &walker{}
		try.walk(target, value, nil)
		f.Renamable = len(try.unknown)+len(try.invalid) == 0
	}
	return f
}

// decodes reports whether the type accepts a scalar, or a value for a type with its own decoder.
func (g *goType) decodes(v any) bool {
	switch g.t.Kind() {
	case reflect.String:
		if !g.custom {
			_, ok := v.(string)
			return ok
		}
	case reflect.Bool:
		_, ok := v.(bool)
		return ok
	case reflect.Interface:
		return true
	default:
	}
	data, err := json.Marshal(v)
	return err == nil && kjson.UnmarshalCaseSensitivePreserveInts(data, reflect.New(g.t).Interface()) == nil
}

// expected returns the message for a value that the type does not accept, to be read after the field's name.
func (g *goType) expected(v any) string {
	switch g.t {
	case reflect.TypeFor[metav1.Time](), reflect.TypeFor[metav1.MicroTime]():
		return "must be a time such as 2006-01-02T15:04:05Z"
	case reflect.TypeFor[metav1.Duration]():
		return "must be a duration such as 1h30m"
	}
	switch g.t.Name() {
	case "Quantity":
		return "must be a quantity such as 500m or 1Gi"
	case "IntOrString":
		return mustBe("integer,string", v)
	}
	switch g.t.Kind() {
	case reflect.String:
		return mustBe("string", v)
	case reflect.Bool:
		return mustBe("boolean", v)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if typeName(v) == "an integer" {
			return "is out of the range of a " + g.t.Kind().String()
		}
		return mustBe("integer", v)
	case reflect.Float32, reflect.Float64:
		return mustBe("number", v)
	case reflect.Slice:
		if _, ok := v.(string); ok {
			return "must be base64"
		}
		return mustBe("string", v)
	default:
	}
	return "is not a valid " + g.t.Name()
}
