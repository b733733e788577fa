package build

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsjson "sigs.k8s.io/json"
	kustypes "sigs.k8s.io/kustomize/api/types"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

// unknownFieldPath matches an error of sigs.k8s.io/json, which names the path of the field.
var unknownFieldPath = regexp.MustCompile(`^unknown field "(.+)"$`)

// droppedFields returns a problem for each field of a kustomization.yaml that kustomize does not have. Flux reads the file
// at spec.path without them, and builds what is left; kustomize itself refuses the file.
func droppedFields(a *sourcetree.Artifact, file string, data []byte) []*validators.Problem {
	text, err := sigsyaml.YAMLToJSON(data)
	if err != nil {
		return nil
	}
	unknown, err := sigsjson.UnmarshalStrict(text, &kustypes.Kustomization{})
	if err != nil || len(unknown) == 0 {
		return nil
	}
	doc := a.File(file).Parse().First()
	if doc == nil {
		return nil
	}
	known := fieldNames(reflect.TypeFor[kustypes.Kustomization](), map[reflect.Type]bool{})
	top := topFields()
	var out []*validators.Problem
	for _, e := range unknown {
		m := unknownFieldPath.FindStringSubmatch(e.Error())
		if m == nil {
			continue
		}
		name := m[1][strings.LastIndexAny(m[1], ".]")+1:]
		// Flux reads names regardless of case. Metadata has no effect, and a name of this form is an anchor's place.
		if strings.HasPrefix(m[1], "metadata.") || strings.HasPrefix(m[1], "x-") || strings.HasPrefix(m[1], ".") ||
			slices.ContainsFunc(known, func(k string) bool { return k != name && strings.EqualFold(k, name) }) {
			continue
		}
		at := positionOfField(doc, m[1])
		p := &validators.Problem{Kind: validators.ProblemFieldDropped, Name: m[1], Diagnostic: validators.Diagnostic{
			Position: a.Position(file, at.Line, at.Column), Message: fmt.Sprintf("kustomize has no field %s: Flux drops it", m[1]),
			Fix: fmt.Sprintf("Correct the name of the field %s, or remove it.", m[1]),
		}}
		candidates := known
		if m[1] == name {
			candidates = top
		}
		if p.Suggestion = suggest.Nearest(name, candidates); p.Suggestion != "" {
			p.Message += fmt.Sprintf("; did you mean %s?", p.Suggestion)
			p.Fix = fmt.Sprintf("Write %s instead of %s.", p.Suggestion, name)
		}
		out = append(out, p)
	}
	return out
}

// positionOfField returns the position of the field at a path such as "patches[0].pth".
func positionOfField(doc *yaml.Node, path string) validators.Position {
	var at validators.Path
	for part := range strings.SplitSeq(path, ".") {
		name, rest, _ := strings.Cut(part, "[")
		at = at.Child(name)
		for rest != "" {
			var index int
			if _, err := fmt.Sscanf(rest, "%d]", &index); err != nil {
				break
			}
			at = at.Index(index)
			_, rest, _ = strings.Cut(rest, "[")
		}
	}
	return yamlposition.Find(doc, at)
}

// topFields returns the names of the fields of a kustomization.yaml.
func topFields() []string {
	var out []string
	for field := range reflect.TypeFor[kustypes.Kustomization]().Fields() {
		if field.Anonymous {
			out = append(out, fieldNames(field.Type, map[reflect.Type]bool{})...)
			continue
		}
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" && name != "-" {
			out = append(out, name)
		}
	}
	return out
}

// fieldNames returns the names of all fields below a type.
func fieldNames(t reflect.Type, seen map[reflect.Type]bool) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || seen[t] {
		return nil
	}
	seen[t] = true
	var out []string
	for field := range t.Fields() {
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" && name != "-" {
			out = append(out, name)
		}
		out = append(out, fieldNames(field.Type, seen)...)
	}
	return out
}
