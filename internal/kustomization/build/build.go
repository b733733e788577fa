// Package build builds a directory of an artifact as Flux's kustomize-controller does: it generates or amends the
// kustomization.yaml, runs kustomize, and finds the file and the settings that each object comes from. Nothing is
// written to disk.
//
// A build that fails is repaired as far as possible, so that one missing file does not hide everything else that is
// wrong.
package build

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	kustypes "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/kustomize/kyaml/openapi"
	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/validators"
)

// Recovered starts the message of a panic that was recovered from.
const Recovered = "recovered from panic"

// schemas guards kustomize's OpenAPI schemas, which are global to the process: builds share them, a build that
// replaces them runs alone. That is why it is a variable of the package.
var schemas sync.RWMutex

// loadSchemas parses the schemas before builds run concurrently: kustomize reads what it parses lazily without a lock.
var loadSchemas = sync.OnceFunc(func() {
	schemas.Lock()
	defer schemas.Unlock()
	openapi.Schema()
})

// started counts the builds of the process that neither replace the schemas nor fetch remote bases.
var started atomic.Int64

// alone is the number of builds that run one after another. Few builds need the schemas, which take longer to parse
// than a small tree to check; kustomize parses them when a build that runs alone needs them.
const alone = 8

// Builder builds directories of artifacts. The same directory with the same settings is built once, however many
// clusters share it. It is safe for concurrent use.
type Builder struct {
	allowRemote bool

	mu      sync.Mutex
	outputs map[outputKey]func() *Output

	kustomizations perFile[*parsedKustomization]
	resources      perFile[error]
}

type outputKey struct {
	artifact  *sourcetree.Artifact
	dir, spec string
}

// NewBuilder returns a builder. With allowRemoteBases kustomize fetches remote resources, over HTTP and with git;
// otherwise they are left out and reported.
func NewBuilder(allowRemoteBases bool) *Builder {
	return &Builder{allowRemote: allowRemoteBases, outputs: map[outputKey]func() *Output{}}
}

// perFile caches what is read from files. The zero value is empty.
type perFile[T any] struct {
	mu     sync.Mutex
	values map[*sourcetree.File]func() T
}

func (c *perFile[T]) get(f *sourcetree.File, read func(*sourcetree.File) T) T {
	c.mu.Lock()
	value := c.values[f]
	if value == nil {
		value = sync.OnceValue(func() T { return read(f) })
		if c.values == nil {
			c.values = map[*sourcetree.File]func() T{}
		}
		c.values[f] = value
	}
	c.mu.Unlock()
	return value()
}

// Object is one object that kustomize built, before variable substitution.
type Object struct {
	Content map[string]any
	// File is the path in the artifact of the file that it comes from: for a generated object the kustomization file
	// with the generator.
	File string
	// Document is the index of its document in the file; -1 when unknown.
	Document int
	// Item is its index in the document when that is a List; -1 when it is not.
	Item int
	// Generated means that a generator of File built the object.
	Generated bool
	// Err is the reason why the object cannot be written as JSON.
	Err error
}

// Output is what kustomize built from one directory and one spec. It is shared and must not be changed.
type Output struct {
	Objects  []Object
	Problems []*validators.Problem
	// Unknown means that the objects cannot be determined.
	Unknown bool
	// TooLarge means that the build exceeds the limit on objects.
	TooLarge bool
	// Read are the paths of the files that the build has read.
	Read map[string]bool

	graph *graph
}

// Build builds a directory of an artifact with the spec of a Flux Kustomization. What is wrong with the build is in
// the output; an error means that the spec cannot be read.
func (b *Builder) Build(a *sourcetree.Artifact, dir string, spec *kustomizev1.KustomizationSpec) (*Output, error) {
	text, err := json.Marshal([]any{
		spec.TargetNamespace, spec.NamePrefix, spec.NameSuffix, spec.Patches, spec.Components, spec.IgnoreMissingComponents, spec.Images, spec.BuildMetadata,
	})
	if err != nil {
		return nil, fmt.Errorf("reading the spec: %w", err)
	}
	key := outputKey{a, dir, string(text)}
	b.mu.Lock()
	output := b.outputs[key]
	if output == nil {
		output = sync.OnceValue(func() *Output { return b.build(a, dir, spec) })
		b.outputs[key] = output
	}
	b.mu.Unlock()
	return output(), nil
}

func (b *Builder) build(a *sourcetree.Artifact, dir string, spec *kustomizev1.KustomizationSpec) *Output {
	from, problem := b.generate(a, dir, spec)
	if problem != nil {
		return &Output{graph: &graph{artifact: a}, Problems: []*validators.Problem{problem}, Unknown: true}
	}
	g := b.newGraph(a, dir, from)
	out := &Output{graph: g, Problems: append(g.problems, from.dropped...), Read: map[string]bool{}}
	if g.blocked {
		out.Unknown = true
		return out
	}
	if limit := a.Tree().Limits().Objects; g.count(g.root, limit, map[*node]int{}) > limit {
		out.Unknown, out.TooLarge = true, true
		out.Problems = append(out.Problems, buildFailed(g.fault(""), "not built: the build exceeds the limit of %d objects", limit))
		return out
	}
	incomplete := slices.ContainsFunc(g.problems, func(p *validators.Problem) bool { return p.Kind == validators.ProblemRemoteBase })
	m, err := out.run(dir, g.written)
	if err != nil && g.withoutConflicts(err) {
		failed := g.explain(err)
		if m, err = out.run(dir, g.written); err == nil {
			out.Problems = append(out.Problems, failed)
		}
	}
	if err == nil {
		err = out.collect(m)
		incomplete = false
	}
	switch {
	case err == nil:
	case incomplete:
		// The build may fail only because the remote resources are missing.
		p := remoteBase(a.Position(from.file, 0, 0), "build", "the Kustomization cannot be built without its remote resources")
		p.Detail = err.Error()
		out.Problems, out.Unknown = append(out.Problems, p), true
		return out
	default:
		out.Problems, out.Unknown = append(out.Problems, g.explain(err)), true
		return out
	}
	if !out.align() {
		out.annotate(dir, from)
	}
	out.ineffective()
	return out
}

// run runs kustomize with the settings of Flux's controller: files outside of the directory may be loaded, plugins
// are disabled.
func (out *Output) run(dir string, written map[string][]byte) (m resmap.ResMap, err error) {
	fs := &overlay{artifact: out.graph.artifact, written: written, read: out.Read}
	if out.graph.allowRemote {
		fs.clones = filesys.MakeFsOnDisk()
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s in kustomize: %v", Recovered, r)
		}
	}()
	switch {
	case out.graph.openapi:
		schemas.Lock()
		defer schemas.Unlock()
		openapi.ResetOpenAPI()
		openapi.Schema()
		defer func() {
			openapi.ResetOpenAPI()
			openapi.Schema()
		}()
	case !out.graph.allowRemote && started.Add(1) <= alone: // no other build waits for a remote base
		schemas.Lock()
		defer schemas.Unlock()
	default:
		loadSchemas()
		schemas.RLock()
		defer schemas.RUnlock()
	}
	return krusty.MakeKustomizer(&krusty.Options{
		LoadRestrictions: kustypes.LoadRestrictionsNone,
		PluginConfig:     kustypes.DisabledPluginConfig(),
	}).Run(fs, path.Join("/", dir))
}

// collect takes over the objects that kustomize built.
func (out *Output) collect(m resmap.ResMap) error {
	for _, res := range m.Resources() {
		if res.GetName() == "" || res.GetKind() == "" || res.GetApiVersion() == "" {
			return fmt.Errorf("an object has no apiVersion, kind or name")
		}
		o := Object{Document: -1, Item: -1}
		if o.Content, o.Err = decode(&res.RNode); o.Err != nil {
			o.Content = map[string]any{"kind": res.GetKind(), "metadata": map[string]any{"name": res.GetName()}}
		}
		out.Objects = append(out.Objects, o)
	}
	return nil
}

// decode returns the content of an object as kustomize hands it over: written as YAML and read again. That changes folded strings only, whose lines
// with more indentation get a blank line before them (yaml.v3).
func decode(n *kyaml.RNode) (map[string]any, error) {
	if !hasFoldedString(n.YNode()) {
		return sourcetree.Decode(n.YNode())
	}
	text, err := n.String()
	if err != nil {
		return nil, fmt.Errorf("writing the object: %w", err)
	}
	again, err := kyaml.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("reading the object: %w", err)
	}
	return sourcetree.Decode(again.YNode())
}

func hasFoldedString(n *kyaml.Node) bool {
	return n.Kind == kyaml.ScalarNode && n.Style&kyaml.FoldedStyle != 0 || slices.ContainsFunc(n.Content, hasFoldedString)
}

func kindOf(o map[string]any) string { s, _ := o["kind"].(string); return s }

func nameOf(o map[string]any) string {
	m, _ := o["metadata"].(map[string]any)
	s, _ := m["name"].(string)
	return s
}
