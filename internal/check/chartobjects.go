package check

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
	"github.com/flux-admission/flux-admission/validators/helmrelease"
)

// maxChartRounds is how often releases that charts create are followed: a release whose chart creates a release.
const maxChartRounds = 3

// chartObjects is a Lookup with the objects that the charts of releases create.
type chartObjects struct {
	validators.Lookup
	// created are those of the charts that can be templated.
	created *lookup.Memory
	// definitions are their CustomResourceDefinitions.
	definitions []Definition
	// unknown are the releases whose objects are not known, with the words of their values.
	unknown []unknownRelease

	mu sync.Mutex
	// lists are the results of List. Rules read the same few lists for each object that they evaluate.
	lists map[listKey]listResult
	// indexes are the objects of each index by their keys.
	indexes map[string]map[string][]*unstructured.Unstructured
}

type listKey struct {
	gk        schema.GroupKind
	namespace string
}

type listResult struct {
	objects  []*unstructured.Unstructured
	presence validators.Presence
	err      error
}

// unknownRelease is a release whose chart is not available or cannot be templated.
type unknownRelease struct {
	object *unstructured.Unstructured
	// general means that its chart may create objects of any kind: it is no packaged application.
	general bool
	// texts are the texts of its values, names those and their keys.
	texts, names map[string]bool
}

// withChartObjects returns a Lookup with the objects that releases create.
func withChartObjects(ctx context.Context, look validators.Lookup) *chartObjects {
	c := &chartObjects{Lookup: look, created: &lookup.Memory{}}
	seen := map[types.NamespacedName]bool{}
	for range maxChartRounds {
		releases, _, _ := c.List(ctx, flux.HelmRelease, "")
		before := len(seen)
		for _, release := range releases {
			key := types.NamespacedName{Namespace: release.GetNamespace(), Name: release.GetName()}
			if seen[key] || ctx.Err() != nil {
				continue
			}
			seen[key] = true
			if _, remote, _ := unstructured.NestedFieldNoCopy(release.Object, "spec", "kubeConfig"); !remote {
				c.add(ctx, release)
			}
		}
		if len(seen) == before {
			break
		}
	}
	return c
}

// add adds the objects of a release.
func (c *chartObjects) add(ctx context.Context, release *unstructured.Unstructured) {
	defer func() { c.lists, c.indexes = nil, nil }()
	out := helmrelease.Templated(ctx, c, release)
	if out == nil {
		texts, names := wordsOfValues(release)
		c.unknown = append(c.unknown, unknownRelease{release, isGeneral(release), texts, names})
		return
	}
	namespace, _, _ := unstructured.NestedString(release.Object, "spec", "targetNamespace")
	if namespace == "" {
		namespace = release.GetNamespace()
	}
	for _, r := range out.Objects {
		gk := r.Object.GroupVersionKind().GroupKind()
		if gk == kindschema.CustomResourceDefinition {
			origin := r.Template + " of HelmRelease " + release.GetNamespace() + "/" + release.GetName()
			c.definitions = append(c.definitions, Definition{Origin: origin, Object: r.Object})
			continue // the Lookup has them as kinds, with what installs them
		}
		o := r.Object
		if o.GetNamespace() == "" && !clusterScoped(gk) {
			o = o.DeepCopy()
			o.SetNamespace(namespace)
		}
		c.created.Add(o)
	}
}

// clusterScoped reports whether a kind is known to be cluster-scoped.
func clusterScoped(gk schema.GroupKind) bool {
	if gk.Group == "" && (gk.Kind == "Namespace" || gk.Kind == "PersistentVolume") ||
		gk.Group == "rbac.authorization.k8s.io" && strings.HasPrefix(gk.Kind, "Cluster") ||
		gk.Group == "storage.k8s.io" || strings.HasPrefix(gk.Kind, "Cluster") && gk.Group != "postgresql.cnpg.io" {
		return true
	}
	return gk == kindschema.CustomResourceDefinition
}

// Get implements validators.Lookup.
func (c *chartObjects) Get(
	ctx context.Context, gk schema.GroupKind, key types.NamespacedName,
) (*unstructured.Unstructured, validators.Presence, error) {
	o, presence, err := c.Lookup.Get(ctx, gk, key)
	if presence == validators.Present {
		return o, presence, err
	}
	if created, found, _ := c.created.Get(ctx, gk, key); found == validators.Present {
		return created, found, nil
	}
	if presence == validators.Absent {
		if release := c.mayCreate(gk, key.Name); release != nil {
			return nil, validators.Unknown, &validators.Likely{Text: fmt.Sprintf(
				"%s %s: the chart of HelmRelease %s/%s may create it", gk.Kind, key, release.GetNamespace(), release.GetName(),
			)}
		}
	}
	return o, presence, err
}

// List implements validators.Lookup.
func (c *chartObjects) List(
	ctx context.Context, gk schema.GroupKind, namespace string,
) ([]*unstructured.Unstructured, validators.Presence, error) {
	key := listKey{gk, namespace}
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.lists[key]
	if !ok {
		r.objects, r.presence, r.err = c.list(ctx, gk, namespace)
		if c.lists == nil {
			c.lists = map[listKey]listResult{}
		}
		c.lists[key] = r
	}
	return r.objects, r.presence, r.err
}

// list merges the objects of both lookups.
func (c *chartObjects) list(
	ctx context.Context, gk schema.GroupKind, namespace string,
) ([]*unstructured.Unstructured, validators.Presence, error) {
	list, presence, err := c.Lookup.List(ctx, gk, namespace)
	created, _, _ := c.created.List(ctx, gk, namespace)
	if len(created) == 0 {
		return list, presence, err
	}
	known := make(map[types.NamespacedName]bool, len(list))
	for _, o := range list {
		known[types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}] = true
	}
	list = slices.Clone(list)
	for _, o := range created {
		if !known[types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}] {
			list = append(list, o)
		}
	}
	return slices.Clip(list), presence, err
}

// Namespace implements validators.Lookup.
func (c *chartObjects) Namespace(
	ctx context.Context, name string,
) (*unstructured.Unstructured, validators.Presence, error) {
	return c.Get(ctx, schema.GroupKind{Kind: "Namespace"}, types.NamespacedName{Name: name})
}

// mayCreate returns a release that may create an object of Flux or a Namespace although its chart is not known: its
// chart is one that creates such objects, and the name is composed of its values.
func (c *chartObjects) mayCreate(gk schema.GroupKind, name string) *unstructured.Unstructured {
	if !strings.HasSuffix(gk.Group, ".toolkit.fluxcd.io") && gk != (schema.GroupKind{Kind: "Namespace"}) {
		return nil
	}
	for _, r := range c.unknown {
		if r.general && (r.names[name] || slices.ContainsFunc(strings.Split(name, "-"), func(word string) bool { return r.texts[word] })) {
			return r.object
		}
	}
	return nil
}

// generalCharts are words in the names of charts that create whatever their values list: tenants, their namespaces,
// Flux objects.
var generalCharts = []string{
	"tenant", "flux", "gitops", "namespace", "raw", "project", "team", "bootstrap", "onboarding", "landing", "manifest", "resource",
}

// isGeneral reports whether the chart of a release may create objects of any kind: by its name, or because it comes
// from a Git repository, or is composed, and is not from a repository of packaged applications.
func isGeneral(release *unstructured.Unstructured) bool {
	ref, _ := helmrelease.ChartRef(release)
	switch ref.Source.Kind {
	case flux.GitRepository.Kind, flux.Bucket.Kind, flux.ExternalArtifact.Kind:
		return true
	}
	name := ref.Chart
	if name == "" {
		name = ref.Source.Name
	}
	return slices.ContainsFunc(strings.FieldsFunc(name, func(r rune) bool { return r == '-' || r == '_' || r == '/' }), func(word string) bool {
		return slices.Contains(generalCharts, strings.TrimSuffix(word, "s"))
	})
}

// wordsOfValues returns the texts of a release's values, and these with the keys and the release's name.
func wordsOfValues(release *unstructured.Unstructured) (texts, names map[string]bool) {
	texts, names = map[string]bool{}, map[string]bool{release.GetName(): true}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			texts[v], names[v] = true, true
		case map[string]any:
			for _, key := range slices.Collect(maps.Keys(v)) {
				names[key] = true
				walk(v[key])
			}
		case []any:
			for _, item := range v {
				walk(item)
			}
		}
	}
	values, _, _ := unstructured.NestedFieldNoCopy(release.Object, "spec", "values")
	walk(values)
	return texts, names
}

// ByIndex implements validators.Indexed. The objects have the order of the list.
func (c *chartObjects) ByIndex(
	ctx context.Context, x *validators.Index, key string,
) ([]*unstructured.Unstructured, validators.Presence, error) {
	list, presence, err := c.List(ctx, x.Kind, "")
	c.mu.Lock()
	index := c.indexes[x.Name]
	c.mu.Unlock()
	if index == nil {
		index = map[string][]*unstructured.Unstructured{}
		for _, o := range list {
			for _, k := range x.KeysOf(ctx, c, o) {
				if of := index[k]; len(of) == 0 || of[len(of)-1] != o {
					index[k] = append(of, o)
				}
			}
		}
		if ctx.Err() == nil { // else some keys may be missing
			c.mu.Lock()
			if c.indexes == nil {
				c.indexes = map[string]map[string][]*unstructured.Unstructured{}
			}
			c.indexes[x.Name] = index
			c.mu.Unlock()
		}
	}
	return slices.Clip(index[key]), presence, err
}
