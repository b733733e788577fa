package kustomization

import (
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/fluxcd/pkg/envsubst"
	"github.com/fluxcd/pkg/envsubst/parse"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/flux-admission/flux-admission/validators"
)

// Bounds of one object's text in a substitution: the parser of envsubst is recursive, and a stack overflow cannot be recovered from.
const (
	maxSubstituteBytes   = 4 << 20
	maxSubstituteDollars = 20_000
	maxSubstituteOutput  = 32 << 20
)

// The text that stands for a variable whose value is not known while an object is text. Both marks are private to Unicode.
const (
	markOpen  = "\ue000"
	markClose = "\ue001"
)

var variableName = regexp.MustCompile("^[_[:alpha:]][_[:alpha:][:digit:]]*$")

// variable is one value for postBuild substitution and where it is written.
type variable struct {
	value   string
	unknown bool // the value is encrypted or otherwise not to be had
	object  *Object
	path    validators.Path
}

// variables are what a Kustomization substitutes with.
type variables struct {
	known map[string]variable
	// missing are the references of substituteFrom that nothing in the cluster provides: what they hold is not known.
	missing []validators.ObjectRef
	always  bool
	given   map[string]string
	invalid string // a variable whose name Flux refuses
}

func (v *variables) open() bool { return len(v.missing) > 0 }

// runs tells whether Flux would substitute at all.
func (v *variables) runs() bool { return len(v.known) > 0 || v.always || v.open() }

// gather collects the variables of a Kustomization: references in their order, then the inline ones over them, as fluxcd/pkg/kustomize does.
func gather(k *Kustomization, get func(kind string, key types.NamespacedName) *Object, given map[string]string) *variables {
	pb := k.Spec.PostBuild
	v := &variables{known: map[string]variable{}, given: given, always: pb.SubstituteStrategy == kustomizev1.SubstituteStrategyAlways}
	for _, ref := range pb.SubstituteFrom {
		o := get(ref.Kind, types.NamespacedName{Namespace: k.Key.Namespace, Name: ref.Name})
		if o == nil {
			// An optional one may exist all the same.
			v.missing = append(v.missing, validators.ObjectRef{Kind: ref.Kind, Namespace: k.Key.Namespace, Name: ref.Name})
			continue
		}
		v.from(o)
	}
	for name, value := range pb.Substitute {
		x := variable{value: strings.ReplaceAll(value, "\n", ""), path: validators.NewPath("spec", "postBuild", "substitute", name), object: k.Object}
		x.unknown = strings.Contains(value, markOpen)
		v.known[name] = x
	}
	for name := range v.known {
		if !variableName.MatchString(name) && (v.invalid == "" || name < v.invalid) {
			v.invalid = name
		}
	}
	return v
}

func (v *variables) from(o *Object) {
	add := func(field string, decode bool) {
		data, _ := o.Object["data"].(map[string]any)
		if field == "stringData" {
			data, _ = o.Object["stringData"].(map[string]any)
		}
		for name, value := range data {
			text, ok := value.(string)
			x := variable{object: o, path: validators.NewPath(field, name), unknown: !ok || o.Encrypted}
			if decode && !x.unknown {
				raw, err := base64.StdEncoding.DecodeString(text)
				text, x.unknown = string(raw), err != nil
			}
			if isEncrypted(text) || strings.Contains(text, markOpen) || o.unknownAt(x.path) {
				x.unknown = true
			}
			x.value = strings.ReplaceAll(text, "\n", "")
			v.known[name] = x
		}
	}
	add("data", o.GetKind() == "Secret")
	if o.GetKind() == "Secret" {
		add("stringData", false)
	}
}

func isEncrypted(s string) bool { return strings.HasPrefix(s, "ENC[AES256_GCM,") }

// substitution is what came of substituting in one object.
type substitution struct {
	object  map[string]any
	unset   []string          // variables without a value and a default, in their order of appearance
	unknown []validators.Path // where a value is not known; the text there is as it was written: ${NAME}
	err     error
}

// substitute replaces variables in the object, over its text as YAML, as fluxcd/pkg/kustomize does. An object that holds nothing to substitute
// is returned as it is. Lenient is Flux before 2.9: a variable without a value is the empty string.
func (v *variables) substitute(object map[string]any, lenient bool) substitution {
	if !anyString(object, substitutable) {
		return substitution{object: object}
	}
	data, err := yaml.Marshal(object)
	if err != nil {
		return substitution{object: object, err: fmt.Errorf("writing the object as YAML: %w", err)}
	}
	text := string(data)
	if len(text) > maxSubstituteBytes || strings.Count(text, "$") > maxSubstituteDollars {
		return substitution{object: object, err: fmt.Errorf("the object is too large for substitution (%d bytes, %d dollar signs)", len(text), strings.Count(text, "$"))}
	}
	out := substitution{object: object}
	open := v.open()
	tree, err := parse.Parse(text)
	if err != nil {
		out.err = fmt.Errorf("variable substitution failed: %w", err)
		return out
	}
	lookup := func(name string) (string, bool) {
		if x, ok := v.known[name]; ok {
			if x.unknown {
				return markOpen + name + markClose, true
			}
			return x.value, true
		}
		if open {
			if given, ok := v.given[name]; ok {
				return given, true
			}
			return markOpen + name + markClose, true
		}
		return "", lenient
	}
	size := len(text)
	for _, f := range functions(tree.Root, nil) {
		value, ok := lookup(f.Param)
		if size += len(value); size > maxSubstituteOutput {
			out.err = fmt.Errorf("the object would be larger than %d bytes after substitution", maxSubstituteOutput)
			return out
		}
		if !ok && !suppliesDefault(f.Name) && !slices.Contains(out.unset, f.Param) {
			out.unset = append(out.unset, f.Param)
		}
	}
	result, err := envsubst.Eval(text, func(name string) (string, bool) {
		value, ok := lookup(name)
		if !ok && slices.Contains(out.unset, name) {
			return markOpen + name + markClose, true
		}
		return value, ok
	})
	if err != nil {
		out.err = fmt.Errorf("variable substitution failed: %w", err)
		return out
	}
	js, err := yaml.YAMLToJSON([]byte(result))
	if err != nil {
		// The parser's own message may quote a piece of a Secret's value.
		out.err = errors.New("after substitution the object is not YAML any more: quote the values that variables with special characters end up in")
		return out
	}
	m, err := fromJSON(js)
	if err != nil {
		out.err = errors.New("after substitution the object has no form in JSON")
		return out
	}
	if strings.Contains(result, markOpen) {
		m, _ = unmark(m, nil, &out.unknown).(map[string]any)
	}
	out.object = m
	return out
}

// unmark puts the text ${NAME} where a value is not known, and lists these places.
func unmark(v any, at validators.Path, found *[]validators.Path) any {
	switch v := v.(type) {
	case string:
		if !strings.Contains(v, markOpen) {
			return v
		}
		*found = append(*found, at)
		return writtenOut.Replace(v)
	case map[string]any:
		out := make(map[string]any, len(v))
		for _, k := range sortedKeys(v) {
			name := writtenOut.Replace(k)
			out[name] = unmark(v[k], at.Child(name), found)
		}
		return out
	case []any:
		for i, e := range v {
			v[i] = unmark(e, at.Index(i), found)
		}
		return v
	}
	return v
}

var writtenOut = strings.NewReplacer(markOpen, "${", markClose, "}")

func functions(n parse.Node, out []*parse.FuncNode) []*parse.FuncNode {
	for {
		switch node := n.(type) {
		case *parse.FuncNode:
			out = append(out, node)
			for _, a := range node.Args {
				out = functions(a, out)
			}
			return out
		case *parse.ListNode:
			// A list leans to the right: its last element is followed without recursion.
			for _, c := range node.Nodes[:len(node.Nodes)-1] {
				out = functions(c, out)
			}
			n = node.Nodes[len(node.Nodes)-1]
		default:
			return out
		}
	}
}

// suppliesDefault tells whether the operator of a ${name…} tolerates an unset variable; the list is envsubst's own.
func suppliesDefault(operator string) bool {
	switch operator {
	case "-", "+", "=", "?", ":-", ":+", ":=", ":?":
		return true
	}
	return false
}
