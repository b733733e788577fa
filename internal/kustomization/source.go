package kustomization

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/validators"
)

// artifact returns the artifact that the Kustomization builds from; nil when its source is unknown.
func (c *clusterBuilder) artifact(k *Kustomization) *sourcetree.Artifact {
	s := k.Source
	for _, name := range []string{s.Kind + "/" + s.Namespace + "/" + s.Name, s.Namespace + "/" + s.Name, s.Name} {
		if t := c.sources[name]; t != nil {
			return t.Artifact("")
		}
	}
	if s == c.source || k == c.order[0] {
		return c.tree.Artifact(c.entry.Ignore)
	}
	if o := c.objects[s]; o != nil {
		url, _, _ := unstructured.NestedString(o.Object, "spec", "url")
		if sameRepository(url, c.entry.URL) {
			ignore, _, _ := unstructured.NestedString(o.Object, "spec", "ignore")
			return c.tree.Artifact(ignore)
		}
		return nil
	}
	if s.Name == c.source.Name || c.source.Name == "" {
		return c.tree.Artifact(c.entry.Ignore) // nothing defines this source: most likely it is the tree
	}
	return nil
}

// reportUnknownSource reports the unknown source of a Kustomization, once for each source.
func (c *clusterBuilder) reportUnknownSource(cluster *Cluster, k *Kustomization) {
	if k.artifact != nil || c.reported[k.Source] || k.builds == 0 || len(k.Problems) > 0 {
		return
	}
	c.reported[k.Source] = true
	n := 0
	for _, other := range cluster.Kustomizations {
		if other.artifact == nil && other.Source == k.Source {
			n++
		}
	}
	name := fmt.Sprintf("%s %s", k.Source.Kind, objectName(k.Source.Namespace, k.Source.Name))
	p := problem(validators.ProblemSourceUnknown, validators.Position{},
		"the source %s is not this tree and was not mapped to a directory: %d Kustomizations from it were not built", name, n)
	p.Name, p.Path = name, validators.NewPath("spec", "sourceRef")
	k.report(p)
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
