package build

import (
	"fmt"
	"path"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	fluxkustomize "github.com/fluxcd/pkg/apis/kustomize"
	fluxgenerator "github.com/fluxcd/pkg/kustomize"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/provider"
	kustypes "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/validators"
)

// File returns the path of the kustomization file of a directory; empty when it has none.
func File(a *sourcetree.Artifact, dir string) string {
	for _, name := range konfig.RecognizedKustomizationFileNames() {
		if p := path.Join(dir, name); a.File(p) != nil {
			return p
		}
	}
	return ""
}

// generated is the kustomization.yaml that Flux builds from, before anything is repaired.
type generated struct {
	file string // its path in the artifact
	k    *kustypes.Kustomization
	// inTree means that the file is in the artifact; otherwise Flux generates it.
	inTree bool
	// dropped are the fields of the file that Flux drops.
	dropped []*validators.Problem
}

// generate does what the generator of fluxcd/pkg/kustomize 1.41.0 does to the directory of a Kustomization, in memory
// instead of on disk: it takes the directory's kustomization file, or generates one from the files below it, and
// merges the spec into it.
func (b *Builder) generate(a *sourcetree.Artifact, dir string, spec *kustomizev1.KustomizationSpec) (*generated, *validators.Problem) {
	g := &generated{file: File(a, dir), k: &kustypes.Kustomization{
		TypeMeta: kustypes.TypeMeta{APIVersion: kustypes.KustomizationVersion, Kind: kustypes.KustomizationKind},
	}}
	if g.file != "" {
		g.inTree = true
		data, err := a.File(g.file).Content()
		if err == nil {
			// Not strict: Flux drops unknown fields of this one file. Those that it includes are read strictly, by
			// kustomize.
			err = yaml.Unmarshal(data, g.k)
			g.dropped = droppedFields(a, g.file, data)
		}
		if err != nil {
			return nil, parseFailure(a, g.file, err)
		}
		if len(g.k.Resources) == 0 {
			g.k.BuildMetadata = []string{kustypes.OriginAnnotations}
		}
	} else {
		g.file = path.Join(dir, konfig.DefaultKustomizationFileName())
		resources, problem := b.walk(a, dir)
		if problem != nil {
			return nil, problem
		}
		if len(resources) == 0 {
			g.k.Namespace = "_placeholder" // else kustomize refuses to build from an empty file
		}
		g.k.Resources = resources
	}
	if p := g.merge(a, dir, spec); p != nil {
		return nil, p
	}
	return g, nil
}

// merge merges the spec of the Flux Kustomization into the kustomization.yaml.
func (g *generated) merge(a *sourcetree.Artifact, dir string, spec *kustomizev1.KustomizationSpec) *validators.Problem {
	k := g.k
	set := func(field *string, value string) {
		if value != "" {
			*field = value
		}
	}
	set(&k.Namespace, spec.TargetNamespace)
	set(&k.NamePrefix, spec.NamePrefix)
	set(&k.NameSuffix, spec.NameSuffix)
	for _, p := range spec.Patches {
		k.Patches = append(k.Patches, kustypes.Patch{Patch: p.Patch, Target: selector(p.Target)})
	}
	for _, c := range spec.Components {
		if !fluxgenerator.IsLocalRelativePath(c) {
			p := buildFailed(validators.Position{}, "the component path %q must be local and relative", c)
			p.Fix = "Set the component to a path relative to spec.path, without a leading slash."
			p.Name = c
			return p
		}
		p := path.Join(dir, c)
		if spec.IgnoreMissingComponents && !a.IsDir(p) && a.File(p) == nil {
			continue
		}
		k.Components = append(k.Components, c)
	}
	for _, image := range spec.Images {
		g.image(image)
	}
	if len(spec.BuildMetadata) > 0 {
		k.BuildMetadata = nil
		for _, m := range spec.BuildMetadata {
			k.BuildMetadata = append(k.BuildMetadata, string(m))
		}
	}
	return nil
}

// image merges one entry of spec.images. Tag and digest select the version together, so either replaces both.
func (g *generated) image(image fluxkustomize.Image) {
	for i := range g.k.Images {
		has := &g.k.Images[i]
		if has.Name != image.Name {
			continue
		}
		if image.NewName != "" {
			has.NewName = image.NewName
		}
		if image.NewTag != "" || image.Digest != "" {
			has.NewTag, has.Digest = image.NewTag, image.Digest
		}
		return
	}
	g.k.Images = append(g.k.Images, kustypes.Image{Name: image.Name, NewName: image.NewName, NewTag: image.NewTag, Digest: image.Digest})
}

func selector(s *fluxkustomize.Selector) *kustypes.Selector {
	if s == nil {
		return nil
	}
	out := &kustypes.Selector{LabelSelector: s.LabelSelector, AnnotationSelector: s.AnnotationSelector}
	out.Group, out.Kind, out.Version = s.Group, s.Kind, s.Version
	out.Name, out.Namespace = s.Name, s.Namespace
	return out
}

// walk lists the resources of the kustomization.yaml that Flux generates: every YAML file below the directory, and a
// directory that has a kustomization file as one entry.
func (b *Builder) walk(a *sourcetree.Artifact, dir string) ([]string, *validators.Problem) {
	var out []string
	names, _ := a.ReadDir(dir)
	for _, name := range names {
		p := path.Join(dir, name)
		if a.IsDir(p) {
			if File(a, p) != "" {
				out = append(out, "./"+name)
				continue
			}
			below, problem := b.walk(a, p)
			if problem != nil {
				return nil, problem
			}
			for _, file := range below {
				out = append(out, "./"+path.Join(name, file))
			}
			continue
		}
		if !sourcetree.IsYAML(p) {
			continue
		}
		if err := b.resources.get(a.File(p), readResources); err != nil {
			return nil, parseFailure(a, p, err)
		}
		out = append(out, "./"+name)
	}
	return out, nil
}

// readResources returns the error of reading the file as resources: Flux reads every file that it lists in a
// generated kustomization.yaml.
func readResources(f *sourcetree.File) (err error) {
	data, err := f.Content()
	if err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s while parsing: %v", Recovered, r)
		}
	}()
	_, err = provider.NewDefaultDepProvider().GetResourceFactory().SliceFromBytes(data)
	return err
}

// parseFailure returns the problem of a build that fails because a file cannot be read as resources or as a
// kustomization.
func parseFailure(a *sourcetree.Artifact, p string, err error) *validators.Problem {
	out := buildFailed(a.Position(p, 0, 0), "")
	out.Detail = Redact(err.Error())
	if failure := a.File(p).Parse().Failure(); failure != nil {
		out.Position, out.Message = failure.Position, "the build fails: "+failure.Message
		out.Fix = yamlFix
		return out
	}
	if m := unknownField.FindStringSubmatch(err.Error()); m != nil {
		out.Name = m[1]
		out.Message = fmt.Sprintf("the build fails: %s has an unknown field %q", path.Base(p), m[1])
		out.Fix = "Correct the name of the field, or remove it."
		if place, ok := a.Search(p, m[1]+":", 1); ok {
			out.Position = place
		}
		return out
	}
	line, text := sourcetree.SplitYAMLError(err)
	out.Position.Line = line
	text = strings.TrimPrefix(text, "error converting YAML to JSON: yaml: ")
	out.Message = fmt.Sprintf("the build fails at %s: %s", path.Base(p), withoutContext(Redact(text)))
	g := &graph{artifact: a}
	if objectWithout.MatchString(text) {
		g.placeDocument(out)
	}
	g.placeFirst(out)
	return out
}
