package build

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

// conflict is an object that gets the name and namespace of another when a kustomization sets the namespace.
type conflict struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name        string            `json:"name"`
		Namespace   string            `json:"namespace"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
}

// previous returns the first of the former values that kustomize keeps in an annotation while it builds.
func (c conflict) previous(field string) string {
	first, _, _ := strings.Cut(c.Metadata.Annotations["internal.config.kubernetes.io/"+field], ",")
	return first
}

// conflictsOf returns the objects in the error of kustomize's namespace transformer, which prints all of them as JSON; nil if
// it is another error.
func conflictsOf(text string) []conflict {
	at := idConflict.FindStringIndex(text)
	if at == nil {
		return nil
	}
	var out []conflict
	for d := json.NewDecoder(strings.NewReader(text[at[1]:])); ; {
		var c conflict
		if err := d.Decode(&c); err != nil {
			return out // the end of the list
		}
		out = append(out, c)
	}
}

// explainConflict returns the problem of objects that become one when the namespace is set; nil if the error is another one.
// kustomize renames Namespace objects too.
func (g *graph) explainConflict(text string) *validators.Problem {
	conflicts := conflictsOf(text)
	if len(conflicts) < 2 {
		return nil
	}
	one := conflicts[0]
	var former []string
	p := buildFailed(validators.Position{}, "")
	p.Name = one.Metadata.Name
	files := g.resourceFiles()
	for _, c := range conflicts {
		name := objectName(c.previous("previousNamespaces"), c.previous("previousNames"))
		if c.Kind == "Namespace" {
			name = c.previous("previousNames")
		}
		if name != "" && !slices.Contains(former, name) {
			former = append(former, name)
		}
		for _, at := range g.definitions(c.Kind, c.previous("previousNames"), files) {
			if !slices.Contains(p.Related, at) {
				p.Related = append(p.Related, at)
			}
		}
	}
	slices.Sort(former)
	p.Message = fmt.Sprintf("the build fails: setting the namespace makes %s %s one object, %s",
		one.Kind, strings.Join(former, " and "), objectName(one.Metadata.Namespace, one.Metadata.Name))
	p.Fix = "Give the objects different names, or move one of them to a Kustomization without the namespace."
	if one.Kind == "Namespace" {
		p.Fix = "Move the Namespaces to a Kustomization that sets no namespace: kustomize renames them too."
	}
	p.Position = g.namespacePosition(one.Metadata.Namespace, one.Metadata.Name)
	if p.Position.File == "" {
		p.Path = validators.NewPath("spec", "targetNamespace")
	}
	return p
}

// namespacePosition returns the position of the field of a kustomization file that sets the namespace; the zero value if the
// spec of the Flux Kustomization does. For a Namespace object the namespace is its name.
func (g *graph) namespacePosition(namespaces ...string) validators.Position {
	for _, n := range g.nodes {
		value := yamlposition.Child(n.doc, "namespace")
		if value != nil && value.Value != "" && slices.Contains(namespaces, value.Value) {
			return g.artifact.Position(n.file, value.Line, value.Column)
		}
	}
	return validators.Position{}
}

// withoutConflicts leaves out all but one of the objects that become one, and reports whether there are any. The rest can be
// built then.
func (g *graph) withoutConflicts(err error) bool {
	conflicts := conflictsOf(err.Error())
	dropped := false
	for _, c := range conflicts[min(1, len(conflicts)):] {
		for _, file := range g.resourceFiles() {
			docs := g.artifact.File(file).Parse().Documents
			left := slices.DeleteFunc(slices.Clone(docs), func(doc *yaml.Node) bool {
				id := sourcetree.Identify(doc)
				return id.Kind == c.Kind && id.Name == c.previous("previousNames") &&
					(c.Kind == "Namespace" || id.Namespace == c.previous("previousNamespaces"))
			})
			if len(left) == len(docs) {
				continue
			}
			if data, err := encodeDocuments(left); err == nil {
				g.written[path.Clean(file)], dropped = data, true
			}
		}
	}
	return dropped
}

// encodeDocuments writes documents as one YAML file.
func encodeDocuments(docs []*yaml.Node) ([]byte, error) {
	var out bytes.Buffer
	if len(docs) == 0 {
		return nil, nil
	}
	enc := yaml.NewEncoder(&out)
	for _, d := range docs {
		if err := enc.Encode(d); err != nil {
			return nil, fmt.Errorf("writing YAML: %w", err)
		}
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("writing YAML: %w", err)
	}
	return out.Bytes(), nil
}
