package kustomization

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// artifact returns the artifact that the Kustomization builds from; nil when its source is unknown.
func (c *clusterBuilder) artifact(k *Kustomization) *sourcetree.Artifact {
	if e := k.root; e != nil && k.Source.Kind != flux.ExternalArtifact.Kind && c.mapped(k.Source) == nil {
		return c.withIncludes(k.Source, c.tree.View(e.Ignore, e.From, e.Mount), 0)
	}
	return c.sourceArtifact(k.Source, 0)
}

// mapped returns the artifact of a source that was mapped to a directory; nil when it was not.
func (c *clusterBuilder) mapped(s validators.ObjectRef) *sourcetree.Artifact {
	for _, name := range []string{s.Kind + "/" + s.Namespace + "/" + s.Name, s.Namespace + "/" + s.Name, s.Name} {
		if t := c.sources[name]; t != nil {
			c.usedSources.Store(name, true)
			return t.Artifact("")
		}
	}
	return nil
}

// sourceArtifact returns the artifact of a source: the tree, a mapped directory, or one that is composed of these; nil when it is unknown. Depth
// counts the sources that it is composed for.
func (c *clusterBuilder) sourceArtifact(s validators.ObjectRef, depth int) *sourcetree.Artifact {
	if depth > maxSourceDepth {
		return nil
	}
	if a := c.mapped(s); a != nil {
		return a
	}
	if s.Name == "" && len(c.roots) > 0 {
		// The API server rejects a Kustomization without a source. What it was meant to build is evaluated all the same.
		e := c.roots[0]
		return c.withIncludes(e.Source, c.tree.View(e.Ignore, e.From, e.Mount), depth)
	}
	if s.Kind == flux.ExternalArtifact.Kind {
		if made := c.composed()[s]; made != nil {
			if a, err := c.compose(made, depth); err == nil {
				return a
			}
		}
		return nil
	}
	for _, e := range c.roots {
		if s == e.Source {
			return c.withIncludes(s, c.tree.View(e.Ignore, e.From, e.Mount), depth)
		}
	}
	if o := c.objects[s]; o != nil {
		url, _, _ := unstructured.NestedString(o.Object, "spec", "url")
		for _, e := range c.roots {
			if sameRepository(url, e.URL) {
				ignore, _, _ := unstructured.NestedString(o.Object, "spec", "ignore")
				return c.withIncludes(s, c.tree.View(ignore, e.From, e.Mount), depth)
			}
		}
		return nil
	}
	for _, e := range c.roots {
		if s.Name == e.Source.Name {
			return c.tree.View(e.Ignore, e.From, e.Mount) // nothing defines this source: most likely it is the tree
		}
	}
	return nil
}

// includes returns the sources that a GitRepository includes (spec.include), by the directory that they are put in, and the directories in them
// that are.
func (c *clusterBuilder) includes(s validators.ObjectRef) map[string]include {
	o := c.objects[s]
	if o == nil || s.Kind != flux.GitRepository.Kind {
		return nil
	}
	list, _, _ := unstructured.NestedSlice(o.Object, "spec", "include")
	out := map[string]include{}
	for _, item := range list {
		m, ok := item.(map[string]any)
		if !ok {
			continue
		}
		text := func(fields ...string) string { s, _, _ := unstructured.NestedString(m, fields...); return s }
		ref := validators.ObjectRef{Group: s.Group, Kind: s.Kind, Namespace: s.Namespace, Name: text("repository", "name")}
		out[sourcetree.Rel(cmp.Or(text("toPath"), ref.Name))] = include{ref, sourcetree.Rel(text("fromPath"))}
	}
	return out
}

// include is a source that a GitRepository includes, and the directory of it.
type include struct {
	source validators.ObjectRef
	from   string
}

type includeKey struct {
	base, included *sourcetree.Artifact
	from, to       string
}

// withIncludes returns the artifact of a source with what it includes, as far as that is known.
func (c *clusterBuilder) withIncludes(s validators.ObjectRef, a *sourcetree.Artifact, depth int) *sourcetree.Artifact {
	includes := c.includes(s)
	for _, to := range slices.Sorted(maps.Keys(includes)) {
		other := c.sourceArtifact(includes[to].source, depth+1)
		if other == nil {
			continue
		}
		key := includeKey{a, other, includes[to].from, to}
		c.composeMu.Lock()
		if c.included[key] == nil {
			c.included[key] = a.Include(other, includes[to].from, to)
		}
		a = c.included[key]
		c.composeMu.Unlock()
	}
	return a
}

// mayInclude reports whether the path of a Kustomization may come from a source that its own source includes, and that is not known.
func (c *clusterBuilder) mayInclude(k *Kustomization) bool {
	for to, i := range c.includes(k.Source) {
		if within(k.Path, to) && c.sourceArtifact(i.source, 1) == nil {
			return true
		}
	}
	return false
}

// reportUnknownSource reports the unknown source of a Kustomization, once for each source.
func (c *clusterBuilder) reportUnknownSource(k *Kustomization) {
	if k.artifact != nil || c.reported[k.Source] || k.builds == 0 || len(k.Problems) > 0 {
		return
	}
	c.reported[k.Source] = true
	if p := c.failedGenerator(k.Source); p != nil {
		k.report(p)
		return
	}
	name := fmt.Sprintf("%s %s", k.Source.Kind, objectName(k.Source.Namespace, k.Source.Name))
	p := problem(validators.ProblemSourceUnknown, validators.Position{},
		"the source %s is not this tree and was not mapped to a directory with --source: its Kustomizations were not built", name)
	p.Name, p.Path = name, validators.NewPath("spec", "sourceRef")
	k.report(p)
}

// failedGenerator returns the problem of an ArtifactGenerator that cannot make a source; nil if the source is none of one, or it is not known
// whether it can.
func (c *clusterBuilder) failedGenerator(source validators.ObjectRef) *validators.Problem {
	made := c.composed()[source]
	if made == nil || len(made.copy) == 0 {
		return nil
	}
	_, err := c.compose(made, 0)
	if err == nil || errors.Is(err, errSourceNotKnown) || errors.Is(err, sourcetree.ErrExtract) {
		return nil
	}
	g := made.generator
	p := problem(validators.ProblemBuildFailed, g.Locate(validators.NewPath("spec", "artifacts")).Position,
		"the build fails: ArtifactGenerator %s cannot make %s %s: %v",
		objectName(g.GetNamespace(), g.GetName()), source.Kind, objectName(source.Namespace, source.Name), err)
	p.Fix = "Correct from, to or the alias in spec.artifacts of the ArtifactGenerator: the paths are those of its sources."
	return p
}

// sameRepository reports whether two URLs are those of the same repository: scheme, user, letter case and the suffix
// .git do not count.
func sameRepository(a, b string) bool {
	normalize := func(s string) string {
		s = strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(s, "/"), ".git"))
		if _, rest, ok := strings.Cut(s, "://"); ok {
			s = rest
		}
		if _, rest, ok := strings.Cut(s, "@"); ok {
			s = rest
		}
		return strings.ReplaceAll(s, ":", "/")
	}
	return a != "" && normalize(a) == normalize(b)
}
