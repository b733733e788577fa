// Package substitute does the post-build variable substitution of a Flux Kustomization, as fluxcd/pkg/kustomize does
// it in strict mode: spec.postBuild.substituteFrom and spec.postBuild.substitute. A value that is not in Git stays
// unresolved.
package substitute

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/fluxcd/pkg/envsubst"
	"github.com/fluxcd/pkg/envsubst/parse"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
)

// Limits of one object's text in a substitution: the parser of envsubst is recursive, and a stack overflow cannot be
// recovered from.
const (
	maxBytes   = 4 << 20
	maxDollars = 20_000
	maxOutput  = 32 << 20
)

// The text that marks an unresolved variable while an object is text. Both characters are private to Unicode.
const (
	markOpen  = "\ue000"
	markClose = "\ue001"
)

var variableName = regexp.MustCompile("^[_[:alpha:]][_[:alpha:][:digit:]]*$")

// Inline is the Variable.Source of a variable of spec.postBuild.substitute.
const Inline = -1

// Variable is one value for the substitution and where it is defined.
type Variable struct {
	Value string
	// Unresolved means that the value is not in Git: it is encrypted, for instance.
	Unresolved bool
	// Source is the index of its Source, in the order in which they were added, or Inline.
	Source int
	// Path is the field that defines it: of the Source, or of the Kustomization.
	Path validators.Path
}

// Source is a ConfigMap or a Secret that spec.postBuild.substituteFrom refers to.
type Source struct {
	Object *unstructured.Unstructured
	// Encrypted means that it is encrypted with SOPS.
	Encrypted bool
	// Unresolved are the fields whose value is not in Git.
	Unresolved []validators.Path
}

// Variables are the variables of one Kustomization. The zero value has none.
type Variables struct {
	// Always is spec.postBuild.substituteStrategy Always: to substitute even without a variable.
	Always bool
	// External are values of variables that are not in Git. They are used when there are missing references.
	External map[string]string

	known   map[string]Variable
	sources int
	missing bool
}

// Missing records a reference of substituteFrom that nothing in the cluster provides, so that any variable may be
// defined there. An optional reference may exist all the same.
func (v *Variables) Missing() { v.missing = true }

// Add adds the variables of a source, over those that were added before.
func (v *Variables) Add(s Source) {
	v.addField(s, "data", s.Object.GetKind() == "Secret")
	if s.Object.GetKind() == "Secret" {
		v.addField(s, "stringData", false)
	}
	v.sources++
}

func (v *Variables) addField(s Source, field string, decode bool) {
	data, _ := s.Object.Object[field].(map[string]any)
	for name, value := range data {
		text, ok := value.(string)
		x := Variable{Source: v.sources, Path: validators.NewPath(field, name), Unresolved: !ok || s.Encrypted}
		if decode && !x.Unresolved {
			raw, err := base64.StdEncoding.DecodeString(text)
			text, x.Unresolved = string(raw), err != nil
		}
		isField := func(p validators.Path) bool { return p.String() == x.Path.String() }
		if unresolved.IsEncrypted(text) || strings.Contains(text, markOpen) || slices.ContainsFunc(s.Unresolved, isField) {
			x.Unresolved = true
		}
		v.set(name, text, x)
	}
}

// AddInline adds the variables of spec.postBuild.substitute, over those that were added before.
func (v *Variables) AddInline(values map[string]string) {
	for name, value := range values {
		v.set(name, value, Variable{Source: Inline, Path: validators.NewPath("spec", "postBuild", "substitute", name), Unresolved: unresolved.String(value)})
	}
}

func (v *Variables) set(name, value string, x Variable) {
	x.Value = strings.ReplaceAll(value, "\n", "")
	if v.known == nil {
		v.known = map[string]Variable{}
	}
	v.known[name] = x
}

// Get returns a variable, and whether there is one.
func (v *Variables) Get(name string) (Variable, bool) {
	x, ok := v.known[name]
	return x, ok
}

// Names returns the sorted names of all variables.
func (v *Variables) Names() []string { return slices.Sorted(maps.Keys(v.known)) }

// Invalid returns the sorted names that Flux refuses.
func (v *Variables) Invalid() []string {
	return slices.DeleteFunc(v.Names(), variableName.MatchString)
}

// Enabled reports whether Flux substitutes at all.
func (v *Variables) Enabled() bool { return len(v.known) > 0 || v.Always || v.missing }

// Failure is an expression that envsubst cannot parse.
type Failure struct {
	// Path is the field with the expression; when the expression is in a key, the map of the key.
	Path validators.Path
	// Expression is its text from ${ on, as far as it can be told where it ends.
	Expression string
	// Err is the error of envsubst.
	Err error
}

// Result is an object after substitution.
type Result struct {
	Object map[string]any
	// Failures are the expressions that envsubst cannot parse, for which Flux fails. The object keeps their text.
	Failures []Failure
	// Unset are the variables without a value and without a default, in their order of appearance.
	Unset []string
	// Unresolved are the fields with a value that is not in Git. They keep the text ${NAME}.
	Unresolved []validators.Path
}

// Substitute replaces the variables in an object, in its text as YAML, as fluxcd/pkg/kustomize does. It does not
// change the object, and returns the very same one when it holds no variable. An error means that Flux fails on the
// object.
func (v *Variables) Substitute(object map[string]any) (Result, error) {
	if !anyString(object, substitutable) {
		return Result{Object: object}, nil
	}
	data, err := yaml.Marshal(object)
	if err != nil {
		return Result{Object: object}, fmt.Errorf("writing the object as YAML: %w", err)
	}
	text := string(data)
	if dollars := strings.Count(text, "$"); len(text) > maxBytes || dollars > maxDollars {
		return Result{Object: object}, fmt.Errorf("the object is too large for substitution (%d bytes, %d dollar signs)", len(text), dollars)
	}
	out := Result{Object: object}
	tree, err := parse.Parse(text)
	if err != nil {
		escaped, failures := escapeFailures(object)
		if data, err := yaml.Marshal(escaped); err == nil && len(failures) > 0 {
			text = string(data)
		}
		out.Failures = failures
		if tree, err = parse.Parse(text); err != nil {
			return out, fmt.Errorf("variable substitution failed: %w", err)
		}
	}
	size := len(text)
	expressions := functions(tree.Root, nil)
	for _, f := range expressions {
		value, ok := v.lookup(f)
		if size += len(value); size > maxOutput {
			return out, fmt.Errorf("the object would be larger than %d bytes after substitution", maxOutput)
		}
		if !ok && !suppliesDefault(f.Name) && !slices.Contains(out.Unset, f.Param) {
			out.Unset = append(out.Unset, f.Param)
		}
	}
	next := 0
	result, err := envsubst.Eval(text, func(name string) (string, bool) {
		// envsubst evaluates the expressions in the order of the list.
		f := expressions[next]
		next++
		value, ok := v.lookup(f)
		if !ok && !suppliesDefault(f.Name) {
			return markOpen + name + markClose, true
		}
		return value, ok
	})
	if err != nil {
		return out, fmt.Errorf("variable substitution failed: %w", err)
	}
	js, err := yaml.YAMLToJSON([]byte(result))
	if err != nil {
		// The parser's own message may quote a part of a Secret's value.
		return out, errors.New("the object is not valid YAML after substitution: quote the values that hold variables with special characters")
	}
	m, err := sourcetree.DecodeJSON(js)
	if err != nil {
		return out, errors.New("the object cannot be written as JSON after substitution")
	}
	if strings.Contains(result, markOpen) {
		m, _ = unmark(m, nil, &out.Unresolved).(map[string]any)
	}
	out.Object = m
	return out, nil
}

// lookup returns the value of the variable of an expression, marked when it is unresolved, and whether the variable has
// one. A variable that only a missing object can set has its default, if the expression has one: that is what its author
// expects to work.
func (v *Variables) lookup(f *parse.FuncNode) (string, bool) {
	name := f.Param
	if x, ok := v.known[name]; ok {
		if x.Unresolved {
			return markOpen + name + markClose, true
		}
		return x.Value, true
	}
	if !v.missing {
		return "", false
	}
	if value, ok := v.External[name]; ok {
		return value, true
	}
	if suppliesDefault(f.Name) {
		return "", false
	}
	return markOpen + name + markClose, true
}

// unmark replaces the marks of unresolved variables by ${NAME}, and lists the fields that hold them.
func unmark(v any, at validators.Path, found *[]validators.Path) any {
	switch v := v.(type) {
	case string:
		if !strings.Contains(v, markOpen) {
			return v
		}
		*found = append(*found, at)
		return unmarker.Replace(v)
	case map[string]any:
		out := make(map[string]any, len(v))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			name := unmarker.Replace(k)
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

var unmarker = strings.NewReplacer(markOpen, "${", markClose, "}")

// functions appends the ${…} expressions of a parsed text in the order of their evaluation: those in the arguments of
// another come before it.
func functions(n parse.Node, out []*parse.FuncNode) []*parse.FuncNode {
	for {
		switch node := n.(type) {
		case *parse.FuncNode:
			for _, a := range node.Args {
				out = functions(a, out)
			}
			return append(out, node)
		case *parse.ListNode:
			// The last element of a list is often a list: it is followed without recursion.
			for _, c := range node.Nodes[:len(node.Nodes)-1] {
				out = functions(c, out)
			}
			n = node.Nodes[len(node.Nodes)-1]
		default:
			return out
		}
	}
}

// suppliesDefault reports whether the operator of a ${name…} allows an unset variable; the list is envsubst's own.
func suppliesDefault(operator string) bool {
	switch operator {
	case "-", "+", "=", "?", ":-", ":+", ":=", ":?":
		return true
	}
	return false
}

// anyString reports whether a key or a string in the value satisfies the condition.
func anyString(v any, cond func(string) bool) bool {
	switch v := v.(type) {
	case string:
		return cond(v)
	case map[string]any:
		for k, e := range v {
			if cond(k) || anyString(e, cond) {
				return true
			}
		}
	case []any:
		for _, e := range v {
			if anyString(e, cond) {
				return true
			}
		}
	}
	return false
}

// substitutable reports whether envsubst would change the text: it opens a variable with ${, and $$ is an escaped
// dollar sign.
func substitutable(s string) bool { return strings.Contains(s, "${") || strings.Contains(s, "$$") }
