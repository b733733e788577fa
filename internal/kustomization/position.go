package kustomization

import (
	"fmt"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/internal/kustomization/build"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

// The roles of locations, beside those of package build.
const (
	RoleField      build.Role = "field"       // the field in the object's own file, or its nearest parent there
	RoleVariable   build.Role = "variable"    // the definition of a variable in the field
	RoleEntryPoint build.Role = "entry-point" // the entry point that creates the object
)

// Location is a position and what is there.
type Location struct {
	validators.Position
	Role build.Role
}

// FieldLocation is where the value of a field comes from: the embedded location is where it is written last. Related
// are the further locations that a reader needs: the object's own file when the value is written elsewhere, the
// definition of a variable in it.
type FieldLocation struct {
	Location
	Related []Location
}

// InOwnFile returns the position in the object's own file; the position of the field when there is none.
func (l FieldLocation) InOwnFile() validators.Position {
	if l.Role == RoleField {
		return l.Position
	}
	for _, s := range l.Related {
		if s.Role == RoleField {
			return s.Position
		}
	}
	return l.Position
}

// Locate returns where the value of a field is written in Git: in the object's file, or in the patch, namespace,
// image or other setting of a kustomization or of a Flux Kustomization that is applied last. The empty path is the
// object itself.
func (o *Object) Locate(p validators.Path) FieldLocation {
	if o.generator != nil {
		if o.text {
			return o.generator.Locate(o.template)
		}
		return o.generator.Locate(slices.Concat(o.template, p))
	}
	if o.Origin.Synthesized {
		return FieldLocation{Location: Location{o.entry, RoleEntryPoint}}
	}
	if o.Origin.Generated {
		return o.locateGenerated(p)
	}
	doc := o.document()
	if doc == nil {
		if s := o.settings(p); len(s) > 0 {
			return FieldLocation{Location: s[0], Related: s[1:]}
		}
		return FieldLocation{Location: Location{validators.Position{File: o.Origin.File}, RoleField}}
	}
	at, node, found := yamlposition.Match(doc, o.Object, p)
	at.File = o.Origin.File
	own := Location{at, RoleField}
	value := p.Lookup(o.Object)
	switch {
	case value == nil, len(p) == 0:
		return FieldLocation{Location: own}
	case found && node.Kind == yaml.ScalarNode && unresolved.HasVariable(node.Value) && o.Kustomization != nil:
		return FieldLocation{Location: own, Related: o.definitions(node.Value)}
	case found && node.Kind == yaml.ScalarNode && node.Value == fmt.Sprint(value), found && node.Kind != yaml.ScalarNode:
		return FieldLocation{Location: own}
	}
	s := o.settings(p)
	if len(s) == 0 {
		return FieldLocation{Location: own}
	}
	return FieldLocation{Location: s[0], Related: append(s[1:], own)}
}

// locateGenerated returns the generator of a field of a generated object, and what the generator takes the value from.
func (o *Object) locateGenerated(p validators.Path) FieldLocation {
	setting, data, ok := o.output.Generator(o.target(), p)
	if !ok {
		return FieldLocation{Location: Location{validators.Position{File: o.Origin.File}, build.RoleGenerator}}
	}
	generator := Location{setting.Position, setting.Role}
	if data != nil {
		return FieldLocation{Location: Location{data.Position, data.Role}, Related: []Location{generator}}
	}
	if len(p) > 0 {
		if s := o.settings(p); len(s) > 0 {
			return FieldLocation{Location: s[0], Related: append(s[1:], generator)}
		}
	}
	return FieldLocation{Location: generator}
}

// builtBy returns the Kustomization that builds the object, or what takes its place without Flux.
func (o *Object) builtBy() *Kustomization {
	if o.Kustomization == nil {
		return o.outermost
	}
	return o.Kustomization
}

// target returns the object in the form of package build.
func (o *Object) target() *build.Target {
	t := &build.Target{Object: o.Unstructured, Document: o.document(), Spec: &o.builtBy().Spec}
	if o.Origin.File != "" {
		t.File = o.artifact.PathOf(o.Origin.File)
	}
	return t
}

// settings returns the settings and patches outside of the object's file that write the field, the one that is
// applied last first.
func (o *Object) settings(p validators.Path) []Location {
	if o.output == nil || o.Kustomization == nil {
		return nil
	}
	owner := o.Kustomization.Object
	var out []Location
	if m := o.Kustomization.Spec.CommonMetadata; m != nil && len(p) == 3 && p[0].Key == "metadata" {
		set := map[string]map[string]string{"labels": m.Labels, "annotations": m.Annotations}[p[1].Key]
		if _, ok := set[p[2].Key]; ok {
			out = append(out, Location{owner.Locate(validators.NewPath("spec", "commonMetadata", p[1].Key, p[2].Key)).Position, build.RoleMetadata})
		}
	}
	for _, s := range o.output.Settings(o.target(), p) {
		switch {
		case len(s.Spec) == 0:
			out = append(out, Location{s.Position, s.Role})
		case s.InText == validators.Position{}:
			out = append(out, Location{owner.Locate(s.Spec).Position, s.Role})
		default:
			out = append(out, Location{owner.positionInText(s.Spec, s.InText), s.Role})
		}
	}
	return out
}

// positionInText returns the position of a position in the text of a field, such as a patch in the spec of a Flux
// Kustomization.
func (o *Object) positionInText(field validators.Path, at validators.Position) validators.Position {
	if doc := o.document(); doc != nil {
		if _, node, found := yamlposition.Match(doc, o.Object, field); found {
			return o.artifact.PositionInText(o.artifact.PathOf(o.Origin.File), node, at)
		}
	}
	return o.Locate(field).Position
}

var variableUse = regexp.MustCompile(`\$\{#?([_a-zA-Z][_a-zA-Z0-9]*)`)

// definitions returns where the variables in a text are defined, as far as that is in the tree.
func (o *Object) definitions(text string) []Location {
	k := o.Kustomization
	if k.variables == nil {
		return nil
	}
	var out []Location
	for _, m := range variableUse.FindAllStringSubmatch(text, -1) {
		v, ok := k.variables.Get(m[1])
		if !ok {
			continue
		}
		if definer := k.definer(v); definer != o {
			out = append(out, Location{definer.Locate(v.Path).Position, RoleVariable})
		}
	}
	return out
}

// searchText returns the position of a text in the object's document, else in what its build is configured with, else
// that of the object.
func (o *Object) searchText(text string) validators.Position {
	if at, ok := o.output.SearchText(o.target(), text); ok {
		return at
	}
	return o.Locate(nil).Position
}
