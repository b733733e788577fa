package kindschema

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	componentversion "k8s.io/component-base/version"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"github.com/flux-admission/flux-admission/validators"
)

// builtInTypes are Kubernetes' built-in types, by the Go types of its API.
type builtInTypes struct {
	kinds  map[schema.GroupKind]*validators.Kind
	groups map[string]bool
}

// The generated methods of k8s.io/api that declare the releases of a version.
type (
	introduced interface{ APILifecycleIntroduced() (int, int) }
	removed    interface{ APILifecycleRemoved() (int, int) }
	replaced   interface {
		APILifecycleReplacement() schema.GroupVersionKind
	}
)

func newBuiltInTypes(minor int) (*builtInTypes, error) {
	if minor == 0 {
		_, text, _ := strings.Cut(componentversion.DefaultKubeBinaryVersion, ".")
		var err error
		if minor, err = strconv.Atoi(text); err != nil {
			return nil, fmt.Errorf("parsing the version of the Kubernetes libraries: %w", err)
		}
	}
	known := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(known), apiextensionsv1.AddToScheme(known)); err != nil {
		return nil, fmt.Errorf("listing Kubernetes' built-in types: %w", err)
	}
	n := &builtInTypes{kinds: map[schema.GroupKind]*validators.Kind{}, groups: map[string]bool{}}
	types := goTypes{}
	apply := &applyTypes{}
	for gvk, t := range known.AllKnownTypes() {
		if gvk.Version == runtime.APIVersionInternal || !isObject(t) {
			continue
		}
		gk := gvk.GroupKind()
		k := n.kinds[gk]
		if k == nil {
			k = &validators.Kind{
				Origin: fmt.Sprintf("Kubernetes 1.%d", minor), Installed: true, BuiltIn: true, Scope: scopeOf(gk), Retired: map[string]string{},
				Schemas: &builtInSchemas{gk: gk, byVersion: map[string]*builtInSchema{}},
			}
			n.kinds[gk], n.groups[gk.Group] = k, true
		}
		object := reflect.New(t).Interface()
		if since, retired := retiredSince(object, minor); retired {
			k.Retired[gvk.Version] = since
			continue
		}
		k.Served = append(k.Served, gvk.Version)
		name, err := known.ToOpenAPIDefinitionName(gvk)
		if err != nil {
			return nil, fmt.Errorf("the name of %s: %w", gvk, err)
		}
		k.Schemas.(*builtInSchemas).byVersion[gvk.Version] = &builtInSchema{root: types.of(t), apply: apply, name: name}
	}
	for _, k := range n.kinds {
		slices.SortFunc(k.Served, versionOrder)
	}
	dropped, err := removedKinds(minor, fmt.Sprintf("Kubernetes 1.%d", minor))
	if err != nil {
		return nil, err
	}
	for gk, k := range dropped {
		if n.kinds[gk] == nil {
			n.kinds[gk] = k
		}
	}
	return n, nil
}

// isObject reports whether the type is an object with a name, rather than a list or the options of a request.
func isObject(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	f, ok := t.FieldByName("ObjectMeta")
	return ok && f.Type == reflect.TypeFor[metav1.ObjectMeta]()
}

// retiredSince reports whether the release does not serve the type, and describes since when.
func retiredSince(object any, minor int) (string, bool) {
	if i, ok := object.(introduced); ok {
		if _, m := i.APILifecycleIntroduced(); m > minor {
			return fmt.Sprintf("before Kubernetes 1.%d", m), true
		}
	}
	r, ok := object.(removed)
	if !ok {
		return "", false
	}
	major, m := r.APILifecycleRemoved()
	if major != 1 || m == 0 || m > minor {
		return "", false
	}
	since := fmt.Sprintf("since Kubernetes 1.%d", m)
	if by, ok := object.(replaced); ok {
		if gvk := by.APILifecycleReplacement(); gvk.Kind != "" {
			since += fmt.Sprintf(", where it is the %s of %s", gvk.Kind, gvk.GroupVersion())
		}
	}
	return since, true
}

type builtInSchemas struct {
	gk        schema.GroupKind
	byVersion map[string]*builtInSchema
}

// Schema implements validators.Schemas.
func (s *builtInSchemas) Schema(version string) (validators.Schema, error) {
	if v, ok := s.byVersion[version]; ok {
		return v, nil
	}
	return nil, fmt.Errorf("%s has no version %s", describe(s.gk), version)
}

// builtInSchema validates objects of one version of a built-in type: a strict write rejects what the Go type cannot decode.
type builtInSchema struct {
	root  *goType
	apply *applyTypes
	name  string // of its type in apply
}

// UnknownFields implements validators.Schema.
func (s *builtInSchema) UnknownFields(o *unstructured.Unstructured) []validators.UnknownField {
	w := &walker{root: s.root, object: o.Object}
	w.walk(s.root, o.Object, nil)
	sortByPath(w.unknown, func(f validators.UnknownField) validators.Path { return f.Path })
	return w.unknown
}

// InvalidValues implements validators.Schema.
func (s *builtInSchema) InvalidValues(_ context.Context, o *unstructured.Unstructured) []validators.InvalidValue {
	w := &walker{root: s.root, object: o.Object}
	w.walk(s.root, o.Object, nil)
	out := append(w.invalid, s.duplicates(o)...)
	out = append(out, invalidBuiltIn(o)...)
	sortByPath(out, func(v validators.InvalidValue) validators.Path { return v.Path })
	return out
}

// duplicates returns the list entries that server-side apply rejects because another one has the same key.
func (s *builtInSchema) duplicates(o *unstructured.Unstructured) []validators.InvalidValue {
	if !hasLongList(o.Object) {
		return nil
	}
	t, err := s.apply.of(s.name)
	if err != nil {
		return nil // as for a type that server-side apply has no schema of
	}
	_, err = t.FromUnstructured(o.Object)
	var errs typed.ValidationErrors
	if !errors.As(err, &errs) {
		return nil
	}
	var out []validators.InvalidValue
	for _, e := range errs {
		key, ok := strings.CutPrefix(e.ErrorMessage, "duplicate entries for key ")
		if !ok {
			continue // an unknown field or a wrong type, which the comparison with the Go type reports with a better message
		}
		list := pathIn(o.Object, e.Path)
		items, _ := list.Lookup(o.Object).([]any)
		at, first := list, -1
		for i, item := range items {
			if !hasKey(item, key) {
				continue
			}
			if first < 0 {
				first = i
				continue
			}
			at = list.Index(i)
			break
		}
		text := "has the same value as another entry of the list"
		if names := keyNames(key); len(names) > 0 {
			text = fmt.Sprintf("has the same %s as entry %d of the list", strings.Join(names, " and "), first)
		}
		out = append(out, validators.InvalidValue{Path: at, Message: text})
	}
	return out
}

// hasLongList reports whether a value has a list of two entries or more.
func hasLongList(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for _, field := range v {
			if hasLongList(field) {
				return true
			}
		}
	case []any:
		return len(v) > 1 || slices.ContainsFunc(v, hasLongList)
	}
	return false
}

// keyPart matches one name=value of the key of a list entry, as structured-merge-diff prints it; the name is empty in a list of scalars.
var keyPart = regexp.MustCompile(`(\w*)=("(?:[^"\\]|\\.)*"|[^,\]"]+)`)

func keyNames(key string) []string {
	var out []string
	for _, m := range keyPart.FindAllStringSubmatch(key, -1) {
		if m[1] != "" {
			out = append(out, m[1])
		}
	}
	return out
}

// hasKey reports whether a list entry has the key. A field of the key that the entry does not set has its default value.
func hasKey(item any, key string) bool {
	for _, m := range keyPart.FindAllStringSubmatch(key, -1) {
		v := item
		if m[1] != "" {
			entry, _ := item.(map[string]any)
			var set bool
			if v, set = entry[m[1]]; !set {
				continue
			}
		}
		want := m[2]
		if text, err := strconv.Unquote(want); err == nil {
			want = text
		}
		if fmt.Sprint(v) != want {
			return false
		}
	}
	return true
}
