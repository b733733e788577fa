package kustomization

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
)

// kustomizationFile returns the path of the directory's kustomization file; empty when it has none.
func (v *view) kustomizationFile(dir string) string {
	for _, name := range konfig.RecognizedKustomizationFileNames() {
		if p := path.Join(dir, name); v.files[p] != nil {
			return p
		}
	}
	return ""
}

// generated is the kustomization.yaml that Flux builds from, before anything is repaired.
type generated struct {
	file string // its path in the artifact
	k    *kustypes.Kustomization
	// own tells that the file is in the tree; otherwise Flux makes it up.
	own bool
}

// generate does what the generator of fluxcd/pkg/kustomize 1.41.0 does to the directory of a Kustomization, on the view instead of the
// disk: take the kustomization file that is there or walk the tree for one, and merge the spec into it.
func generate(v *view, dir string, spec *kustomizev1.KustomizationSpec) (*generated, *Problem) {
	g := &generated{file: v.kustomizationFile(dir), k: &kustypes.Kustomization{
		TypeMeta: kustypes.TypeMeta{APIVersion: kustypes.KustomizationVersion, Kind: kustypes.KustomizationKind},
	}}
	if g.file != "" {
		g.own = true
		data, err := v.files[g.file].content()
		if err == nil {
			// Not strict: Flux drops unknown fields of this one file. Those that it includes are read strictly, by kustomize.
			err = yaml.Unmarshal(data, g.k)
		}
		if err != nil {
			return nil, v.parseFailure(g.file, err)
		}
		if len(g.k.Resources) == 0 {
			g.k.BuildMetadata = []string{kustypes.OriginAnnotations}
		}
	} else {
		g.file = path.Join(dir, konfig.DefaultKustomizationFileName())
		resources, problem := v.walk(dir)
		if problem != nil {
			return nil, problem
		}
		if len(resources) == 0 {
			g.k.Namespace = "_placeholder" // else kustomize refuses to build from an empty file
		}
		g.k.Resources = resources
	}
	if p := g.merge(v, dir, spec); p != nil {
		return nil, p
	}
	return g, nil
}

func (g *generated) merge(v *view, dir string, spec *kustomizev1.KustomizationSpec) *Problem {
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
			return &Problem{Kind: BuildFailed, Message: fmt.Sprintf("the component path %q must be local and relative", c), Name: c}
		}
		p := path.Join(dir, c)
		if spec.IgnoreMissingComponents && !v.isDir(p) && v.files[p] == nil {
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

// walk lists what Flux puts into the kustomization.yaml that it makes up: every YAML file below the directory, and a directory that has
// its own kustomization file as one entry.
func (v *view) walk(dir string) ([]string, *Problem) {
	var out []string
	for _, name := range v.dirs[dir] {
		p := path.Join(dir, name)
		if v.isDir(p) {
			if v.kustomizationFile(p) != "" {
				out = append(out, "./"+name)
				continue
			}
			below, problem := v.walk(p)
			if problem != nil {
				return nil, problem
			}
			for _, b := range below {
				out = append(out, "./"+path.Join(name, b))
			}
			continue
		}
		if !isYAMLName(p) {
			continue
		}
		if err := v.files[p].scanned(); err != nil {
			return nil, v.parseFailure(p, err)
		}
		out = append(out, "./"+name)
	}
	return out, nil
}

// scanned tells whether kustomize can read the file as resources, as Flux makes sure when it makes up a kustomization.yaml.
func (f *file) scanned() error {
	f.scan.Do(func() {
		data, err := f.content()
		if err != nil {
			f.scanErr = err
			return
		}
		defer func() {
			if r := recover(); r != nil {
				f.scanErr = fmt.Errorf("%s while parsing: %v", recovered, r)
			}
		}()
		_, f.scanErr = provider.NewDefaultDepProvider().GetResourceFactory().SliceFromBytes(data)
	})
	return f.scanErr
}

// parseFailure is the problem of a build that stops at a file which cannot be read as what it should be.
func (v *view) parseFailure(p string, err error) *Problem {
	out := &Problem{Kind: BuildFailed, Position: v.tree.place(p, 0, 0), Detail: redact(err.Error())}
	if d := v.files[p].document(); d.broken || d.refused != nil {
		first := d.problems[len(d.problems)-1]
		out.Position, out.Message = first.Position, "the build fails: "+first.Message
		return out
	}
	if m := unknownField.FindStringSubmatch(err.Error()); m != nil {
		out.Name = m[1]
		out.Message = fmt.Sprintf("the build fails: %s has an unknown field %q", path.Base(p), m[1])
		if place, ok := v.search(p, m[1]+":", 1); ok {
			out.Position = place
		}
		return out
	}
	line, text := yamlError(err)
	out.Position.Line = line
	text = strings.TrimPrefix(text, "error converting YAML to JSON: yaml: ")
	out.Message = fmt.Sprintf("the build fails at %s: %s", path.Base(p), plain(redact(text)))
	return out
}
