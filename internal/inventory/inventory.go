// Package inventory lists what a Git tree has: Kustomizations, Helm releases, sources and container images.
package inventory

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/validators/flux"
	"github.com/flux-admission/flux-admission/validators/helmrelease"
)

// Inventory is what a tree has. Its JSON tags define the JSON and YAML formats. Lists that were not wanted are nil.
type Inventory struct {
	Kustomizations []Kustomization `json:"kustomizations,omitempty"`
	HelmReleases   []HelmRelease   `json:"helmReleases,omitempty"`
	Sources        []Source        `json:"sources,omitempty"`
	Images         []Image         `json:"images,omitempty"`
	// Clusters is the number of clusters of the tree.
	Clusters int `json:"-"`
	// Untemplated are the releases whose images are unknown, with the reason.
	Untemplated []string `json:"-"`
	// Unbuilt are the Kustomizations whose objects are not all known.
	Unbuilt []string `json:"-"`
}

// Kustomization is a Flux Kustomization.
type Kustomization struct {
	Cluster         string   `json:"cluster,omitempty"`
	Namespace       string   `json:"namespace"`
	Name            string   `json:"name"`
	Path            string   `json:"path"`
	Source          string   `json:"source"`
	Objects         int      `json:"objects"`
	State           string   `json:"state"`
	Suspended       bool     `json:"suspended"`
	Prune           bool     `json:"prune"`
	TargetNamespace string   `json:"targetNamespace,omitempty"`
	DependsOn       []string `json:"dependsOn,omitempty"`
	File            string   `json:"file,omitempty"`
}

// HelmRelease is a Flux HelmRelease.
type HelmRelease struct {
	Cluster       string   `json:"cluster,omitempty"`
	Namespace     string   `json:"namespace"`
	Name          string   `json:"name"`
	Chart         string   `json:"chart"`
	Version       string   `json:"version,omitempty"`
	Source        string   `json:"source"`
	Suspended     bool     `json:"suspended"`
	Target        string   `json:"targetNamespace"`
	Kustomization string   `json:"kustomization,omitempty"`
	DependsOn     []string `json:"dependsOn,omitempty"`
	File          string   `json:"file,omitempty"`
}

// Source is a Flux source.
type Source struct {
	Cluster   string `json:"cluster,omitempty"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	URL       string `json:"url,omitempty"`
	Reference string `json:"reference,omitempty"`
	Suspended bool   `json:"suspended"`
	// Users is the number of Kustomizations and HelmReleases that refer to it.
	Users int    `json:"users"`
	File  string `json:"file,omitempty"`
}

// Image is a container image.
type Image struct {
	Cluster string   `json:"cluster,omitempty"`
	Image   string   `json:"image"`
	UsedBy  []string `json:"usedBy"`
}

// What is what to list.
type What struct{ Kustomizations, HelmReleases, Sources, Images bool }

// List lists what a built tree has. The error is that of the context.
func List(ctx context.Context, t *check.Tree, what What) (*Inventory, error) {
	out := &Inventory{Clusters: len(t.Clusters())}
	for _, c := range t.Clusters() {
		if what.Kustomizations {
			out.addKustomizations(c)
		}
		if what.HelmReleases {
			out.addReleases(c)
		}
		if what.Sources {
			out.addSources(c)
		}
		for _, k := range c.Kustomizations {
			if k.State != kustomization.Built {
				out.Unbuilt = append(out.Unbuilt, k.Key.String())
			}
		}
		if !what.Images {
			continue
		}
		releases, err := t.Releases(ctx, c)
		if err != nil {
			return nil, err
		}
		out.addImages(c, releases)
	}
	return out, nil
}

func (i *Inventory) addKustomizations(c *kustomization.Cluster) {
	for _, k := range c.Kustomizations {
		row := Kustomization{
			Cluster: c.Name, Namespace: k.Key.Namespace, Name: k.Key.Name, Path: k.Path, Objects: len(k.Objects),
			Source: k.Source.Kind + "/" + qualified(k.Source.Namespace, k.Source.Name, k.Key.Namespace), State: k.State.String(),
			Suspended: k.Spec.Suspend, Prune: k.Spec.Prune, TargetNamespace: k.Spec.TargetNamespace, File: k.Object.Origin.File,
		}
		if k.Failed() {
			row.State = "failed"
		}
		for _, d := range k.DependsOn() {
			row.DependsOn = append(row.DependsOn, qualified(d.Namespace, d.Name, k.Key.Namespace))
		}
		i.Kustomizations = append(i.Kustomizations, row)
	}
	slices.SortStableFunc(i.Kustomizations, func(a, b Kustomization) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

func (i *Inventory) addReleases(c *kustomization.Cluster) {
	for _, o := range c.Objects {
		if o.GroupVersionKind().GroupKind() != flux.HelmRelease {
			continue
		}
		ref, _ := helmrelease.ChartRef(o.Unstructured)
		row := HelmRelease{
			Cluster: c.Name, Namespace: o.GetNamespace(), Name: o.GetName(), Chart: ref.Chart, Version: ref.Version,
			Suspended: suspended(o.Unstructured), Target: helmrelease.Namespace(o.Unstructured), Kustomization: owner(o), File: o.Origin.File,
		}
		if ref.Source.Name != "" {
			row.Source = ref.Source.Kind + "/" + qualified(ref.Source.Namespace, ref.Source.Name, o.GetNamespace())
		}
		depends, _, _ := unstructured.NestedSlice(o.Object, "spec", "dependsOn")
		for _, d := range depends {
			m, _ := d.(map[string]any)
			name, _ := m["name"].(string)
			namespace, _ := m["namespace"].(string)
			row.DependsOn = append(row.DependsOn, qualified(cmp.Or(namespace, o.GetNamespace()), name, o.GetNamespace()))
		}
		i.HelmReleases = append(i.HelmReleases, row)
	}
	slices.SortStableFunc(i.HelmReleases, func(a, b HelmRelease) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

func (i *Inventory) addSources(c *kustomization.Cluster) {
	type key struct {
		kind string
		types.NamespacedName
	}
	users := map[key]int{}
	for _, k := range c.Kustomizations {
		users[key{k.Source.Kind, types.NamespacedName{Namespace: k.Source.Namespace, Name: k.Source.Name}}]++
	}
	for _, o := range c.Objects {
		if o.GroupVersionKind().GroupKind() == flux.HelmRelease {
			ref, _ := helmrelease.ChartRef(o.Unstructured)
			users[key{ref.Source.Kind, types.NamespacedName{Namespace: ref.Source.Namespace, Name: ref.Source.Name}}]++
		}
	}
	for _, o := range c.Objects {
		gvk := o.GroupVersionKind()
		if gvk.Group != flux.GitRepository.Group {
			continue
		}
		row := Source{
			Cluster: c.Name, Kind: gvk.Kind, Namespace: o.GetNamespace(), Name: o.GetName(), Suspended: suspended(o.Unstructured), File: o.Origin.File,
			Users: users[key{gvk.Kind, types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}}],
		}
		row.URL, _, _ = unstructured.NestedString(o.Object, "spec", "url")
		if gvk.Kind == flux.Bucket.Kind {
			endpoint, _, _ := unstructured.NestedString(o.Object, "spec", "endpoint")
			bucket, _, _ := unstructured.NestedString(o.Object, "spec", "bucketName")
			row.URL = endpoint + "/" + bucket
		}
		row.URL = withoutPassword(row.URL)
		ref, _, _ := unstructured.NestedMap(o.Object, "spec", "ref")
		// In the order of precedence of the APIs of GitRepository and OCIRepository.
		for _, field := range []string{"commit", "digest", "name", "semver", "tag", "branch"} {
			if text, ok := ref[field].(string); ok && text != "" {
				row.Reference = field + ": " + text
				break
			}
		}
		i.Sources = append(i.Sources, row)
	}
	slices.SortStableFunc(i.Sources, func(a, b Source) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

// withoutPassword removes what is before the host of a URL if it has a password.
func withoutPassword(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		return url
	}
	host, path, _ := strings.Cut(rest, "/")
	user, after, found := strings.Cut(host, "@")
	if !found || !strings.Contains(user, ":") {
		return url
	}
	return scheme + "://" + after + "/" + path
}

func (i *Inventory) addImages(c *kustomization.Cluster, releases []*check.Release) {
	users := map[string]map[string]bool{}
	add := func(o *unstructured.Unstructured, user string) {
		for _, image := range Images(o) {
			if users[image] == nil {
				users[image] = map[string]bool{}
			}
			users[image][user] = true
		}
	}
	for _, o := range c.Objects {
		add(o.Unstructured, o.String())
	}
	for _, r := range releases {
		if r.Err != nil {
			i.Untemplated = append(i.Untemplated, qualified(r.GetNamespace(), r.GetName(), "")+": "+r.Err.Error())
			continue
		}
		for _, o := range r.Manifests {
			add(o, r.String())
		}
	}
	for _, image := range slices.Sorted(maps.Keys(users)) {
		i.Images = append(i.Images, Image{Cluster: c.Name, Image: image, UsedBy: slices.Sorted(maps.Keys(users[image]))})
	}
}

// Images returns the container images that an object names, sorted: the texts of its fields "image" and "imageName", as
// in the containers of Pods and in custom resources. Objects of Flux configure where images come from, and are not
// searched.
func Images(o *unstructured.Unstructured) []string {
	gvk := o.GroupVersionKind()
	if strings.HasSuffix(gvk.Group, ".toolkit.fluxcd.io") || gvk.GroupKind() == kindschema.CustomResourceDefinition {
		return nil
	}
	found := map[string]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, value := range v {
				if text, ok := value.(string); ok && text != "" && (key == "image" || key == "imageName") {
					found[text] = true
					continue
				}
				walk(value)
			}
		case []any:
			for _, item := range v {
				walk(item)
			}
		}
	}
	for field, value := range o.Object {
		if field != "metadata" && field != "status" && field != "data" && field != "stringData" {
			walk(value)
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func suspended(o *unstructured.Unstructured) bool {
	yes, _, _ := unstructured.NestedBool(o.Object, "spec", "suspend")
	return yes
}

// owner returns the Kustomization that applies an object, as namespace/name; empty for none.
func owner(o *kustomization.Object) string {
	if o.Kustomization == nil {
		return ""
	}
	return o.Kustomization.Key.String()
}

// qualified returns the name with its namespace, unless that is the expected one.
func qualified(namespace, name, expected string) string {
	if namespace == "" || namespace == expected {
		return name
	}
	return namespace + "/" + name
}
