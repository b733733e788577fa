package build

import (
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/pkg/util"

	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

// unmatchedImages reports entries of images whose image no object has. kustomize compares the names of images below
// containers and initContainers only, before variables are substituted, and reports nothing. An entry is reported only if an
// image of a similar name is there, or the image is in a field that the entry does not change.
func (out *Output) unmatchedImages(n *node) {
	g := out.graph
	list := yamlposition.Child(n.doc, "images")
	own := 0 // in its file; those of the spec of the Flux Kustomization follow
	if list != nil {
		own = len(list.Content)
	}
	if n.component || len(n.k.Images) < own || len(n.k.Images) > own && n != g.root || len(n.k.Images) == 0 {
		return
	}
	before, err := out.untransformed(n)
	if err != nil {
		return
	}
	var inContainers, elsewhere []string
	for _, r := range before.Resources() {
		object, err := r.Map()
		if err != nil {
			return
		}
		collectImages(object, "", &inContainers, &elsewhere)
	}
	if slices.ContainsFunc(inContainers, unresolved.HasVariable) {
		return
	}
	for _, name := range n.k.Images {
		// A chain of entries renames an image more than once.
		inContainers = append(inContainers, name.NewName)
	}
	for i, entry := range n.k.Images {
		if entry.Name == "" || strings.ContainsAny(entry.Name, "*$") || slices.Contains(inContainers, entry.Name) {
			continue
		}
		near := suggest.Nearest(entry.Name, sortedNames(inContainers))
		base := func(name string) string { return name[strings.LastIndex(name, "/")+1:] }
		if at := slices.IndexFunc(inContainers, func(name string) bool { return name != "" && base(name) == base(entry.Name) }); near == "" && at >= 0 {
			near = inContainers[at]
		}
		reason := ""
		switch {
		case near != "":
			reason = "; did you mean " + near + "?"
		case slices.Contains(elsewhere, entry.Name):
			reason = "; it is in a field that kustomize does not take for an image, such as Helm values"
		default:
			continue
		}
		p := &validators.Problem{Kind: validators.ProblemImageUnmatched, Name: entry.Name}
		p.Message = fmt.Sprintf("the entry for image %s changes nothing: no container has it%s", entry.Name, reason)
		if i < own {
			at := list.Content[i]
			if name := yamlposition.Child(at, "name"); name != nil {
				at = name
			}
			p.Position = g.artifact.Position(n.file, at.Line, at.Column)
		} else {
			p.Path = validators.NewPath("spec", "images").Index(i - own).Child("name")
		}
		out.Problems = append(out.Problems, p)
	}
}

// collectImages collects the names of images: those that kustomize changes, in lists of containers, and other texts.
func collectImages(v any, key string, containers, elsewhere *[]string) {
	switch v := v.(type) {
	case map[string]any:
		for k, item := range v {
			collectImages(item, k, containers, elsewhere)
		}
	case []any:
		for _, item := range v {
			if m, ok := item.(map[string]any); ok && (key == "containers" || key == "initContainers") {
				if text, ok := m["image"].(string); ok {
					name, _, _ := util.SplitImageName(text)
					*containers = append(*containers, name)
				}
			}
			collectImages(item, "", containers, elsewhere)
		}
	case string:
		if key != "image" && key != "repository" {
			return
		}
		name, _, _ := util.SplitImageName(v)
		*elsewhere = append(*elsewhere, name)
	}
}
