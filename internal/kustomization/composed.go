package kustomization

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/boundedregexp"
	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// artifactGenerator is the kind of the objects that compose ExternalArtifacts of other sources.
var artifactGenerator = schema.GroupKind{Group: "source.extensions.fluxcd.io", Kind: "ArtifactGenerator"}

// maxSourceDepth bounds how many sources may be composed of each other.
const maxSourceDepth = 8

// generatorSpec is the part of an ArtifactGenerator's spec that its artifacts depend on.
type generatorSpec struct {
	Sources []struct {
		Alias     string `json:"alias"`
		Kind      string `json:"kind"`
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"sources"`
	PathPattern string            `json:"pathPattern"`
	Artifacts   []composedPattern `json:"artifacts"`
	// ManagedNamespaces, if set, means that the controller creates the namespaces of the artifacts.
	ManagedNamespaces map[string]any `json:"managedNamespaces"`
}

// composedPattern is one entry of spec.artifacts, with the placeholders of spec.pathPattern.
type composedPattern struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Copy      []struct {
		From     string   `json:"from"`
		To       string   `json:"to"`
		Exclude  []string `json:"exclude"`
		Strategy string   `json:"strategy"`
	} `json:"copy"`
}

// composedArtifact is an ExternalArtifact that an ArtifactGenerator makes.
type composedArtifact struct {
	ref       validators.ObjectRef
	generator *Object
	managed   bool                            // its namespace is created with it
	sources   map[string]validators.ObjectRef // by alias
	copy      []sourcetree.CopyOperation

	artifact *sourcetree.Artifact // nil when a source is not known, or the generator fails
	err      error
}

var capture = regexp.MustCompile(`\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// composed returns the ExternalArtifacts that the ArtifactGenerators built so far make, by their references.
func (c *clusterBuilder) composed() map[validators.ObjectRef]*composedArtifact {
	out := map[validators.ObjectRef]*composedArtifact{}
	for _, ref := range slices.SortedFunc(maps.Keys(c.generators), compareRefs) {
		for _, made := range c.artifactsOf(c.generators[ref]) {
			out[made.ref] = made
		}
	}
	return out
}

// artifactsOf returns the ExternalArtifacts that an ArtifactGenerator makes; none when that is not known.
func (c *clusterBuilder) artifactsOf(o *Object) []*composedArtifact {
	spec := &generatorSpec{}
	content, _ := o.Object["spec"].(map[string]any)
	if err := apiruntime.DefaultUnstructuredConverter.FromUnstructured(content, spec); err != nil {
		return nil
	}
	sources := map[string]validators.ObjectRef{}
	for _, s := range spec.Sources {
		ref := validators.ObjectRef{Group: flux.GitRepository.Group, Kind: s.Kind, Namespace: s.Namespace, Name: s.Name}
		if ref.Namespace == "" {
			ref.Namespace = o.GetNamespace()
		}
		sources[s.Alias] = ref
	}
	var out []*composedArtifact
	for _, values := range c.captures(spec, sources) {
		for _, pattern := range spec.Artifacts {
			fill := func(text string, lower bool) string {
				return capture.ReplaceAllStringFunc(text, func(m string) string {
					value, ok := values[m[1:len(m)-1]]
					switch {
					case !ok:
						return m
					case lower:
						return strings.ToLower(value)
					}
					return value
				})
			}
			made := &composedArtifact{generator: o, sources: sources, managed: spec.ManagedNamespaces != nil, ref: validators.ObjectRef{
				Group: flux.ExternalArtifact.Group, Kind: flux.ExternalArtifact.Kind, Namespace: o.GetNamespace(), Name: fill(pattern.Name, true),
			}}
			if pattern.Namespace != "" {
				made.ref.Namespace = fill(pattern.Namespace, true)
			}
			for _, op := range pattern.Copy {
				made.copy = append(made.copy, sourcetree.CopyOperation{
					From: fill(op.From, false), To: fill(op.To, false), Exclude: op.Exclude, Strategy: op.Strategy,
				})
			}
			out = append(out, made)
		}
	}
	return out
}

// captures returns the values of the placeholders for each directory that spec.pathPattern matches; one without values when there is no pattern.
func (c *clusterBuilder) captures(spec *generatorSpec, sources map[string]validators.ObjectRef) []map[string]string {
	if spec.PathPattern == "" {
		return []map[string]string{nil}
	}
	alias, pattern, ok := strings.Cut(strings.TrimPrefix(spec.PathPattern, "@"), "/")
	if !ok {
		return nil
	}
	source := c.sourceArtifact(sources[alias], 0)
	if source == nil {
		return nil
	}
	text := regexp.MustCompile(`\\\{([A-Za-z_][A-Za-z0-9_]*)\\\}`).ReplaceAllString(regexp.QuoteMeta(pattern), `(?P<$1>[^/]+)`)
	matcher, err := boundedregexp.Compile("^" + text + "$")
	if err != nil {
		return nil
	}
	var out []map[string]string
	for _, dir := range source.Dirs() {
		m, err := matcher.Submatches(context.Background(), dir)
		if err != nil || m == nil {
			continue
		}
		values := map[string]string{}
		for i, name := range matcher.Groups() {
			if name != "" {
				values[name] = m[i]
			}
		}
		out = append(out, values)
	}
	return out
}

// composeKey is what a composed artifact depends on.
type composeKey struct {
	copy    string
	sources string
}

var errSourceNotKnown = errors.New("a source of the ArtifactGenerator is not known")

// compose makes the artifact of an ArtifactGenerator.
func (c *clusterBuilder) compose(made *composedArtifact, depth int) (*sourcetree.Artifact, error) {
	sources := map[string]*sourcetree.Artifact{}
	var text strings.Builder
	for alias, ref := range made.sources {
		if a := c.sourceArtifact(ref, depth+1); a != nil {
			sources[alias] = a
		}
	}
	for _, op := range made.copy {
		alias, _, _ := strings.Cut(strings.TrimPrefix(op.From, "@"), "/")
		if _, declared := made.sources[alias]; declared && sources[alias] == nil {
			return nil, errSourceNotKnown
		}
		fmt.Fprintf(&text, "%p ", sources[alias])
	}
	key := composeKey{fmt.Sprintf("%+v", made.copy), text.String()}
	c.composeMu.Lock()
	defer c.composeMu.Unlock()
	if done, ok := c.composedArtifacts[key]; ok {
		return done.artifact, done.err
	}
	done := &composedArtifact{}
	done.artifact, done.err = sourcetree.Compose(sources, made.copy)
	c.composedArtifacts[key] = done
	return done.artifact, done.err
}

// objects returns what the cluster gets for a composed artifact.
func (m *composedArtifact) objects() []*Object {
	created := func(apiVersion, kind string, metadata map[string]any) *Object {
		return &Object{
			Unstructured: &unstructured.Unstructured{Object: map[string]any{"apiVersion": apiVersion, "kind": kind, "metadata": metadata}},
			Origin:       Origin{File: m.generator.Origin.File, Document: -1, Synthesized: true},
			entry:        m.generator.Locate(nil).Position,
		}
	}
	out := []*Object{created(path.Join(m.ref.Group, "v1"), m.ref.Kind, map[string]any{"namespace": m.ref.Namespace, "name": m.ref.Name})}
	if m.managed && m.ref.Namespace != m.generator.GetNamespace() {
		out = append(out, created("v1", "Namespace", map[string]any{"name": m.ref.Namespace}))
	}
	return out
}
