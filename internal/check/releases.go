package check

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	fluxssa "github.com/fluxcd/pkg/ssa/utils"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/kustomize/api/krusty"
	kustomize "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/kustomization/build"
	"github.com/flux-admission/flux-admission/validators/flux"
	"github.com/flux-admission/flux-admission/validators/helmrelease"
)

// hookAnnotation is on objects that Helm creates apart from the release, and gives to no post-renderer.
const hookAnnotation = "helm.sh/hook"

// Release is a HelmRelease with what Helm applies for it.
type Release struct {
	*kustomization.Object
	// Namespace is that of objects that have none.
	Namespace string
	// Manifests are the objects of the chart as Flux applies them, in Helm's order: after post-renderers and with the
	// common metadata.
	Manifests []*unstructured.Unstructured
	// Err is why Manifests are unknown.
	Err error
}

// Key returns the namespace and name of the HelmRelease.
func (r *Release) Key() types.NamespacedName {
	return types.NamespacedName{Namespace: r.GetNamespace(), Name: r.GetName()}
}

// Releases returns the HelmReleases of a cluster, templated with the tree's charts. The error is that of the context.
func (t *Tree) Releases(ctx context.Context, c *kustomization.Cluster) ([]*Release, error) {
	var out []*Release
	for _, o := range c.Objects {
		if o.GroupVersionKind().GroupKind() == flux.HelmRelease && !(o.Kustomization != nil && o.Kustomization.RemoteCluster()) {
			out = append(out, &Release{Object: o, Namespace: helmrelease.Namespace(o.Unstructured)})
		}
	}
	look := c.Lookup(t.chartsOf(c))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, r := range out {
		g.Go(func() error {
			templated, err := helmrelease.Template(gctx, look, r.Unstructured)
			if err != nil {
				r.Err = err
				return gctx.Err()
			}
			for _, o := range templated.Objects {
				r.Manifests = append(r.Manifests, o.Object)
			}
			r.Manifests, r.Err = finishRelease(r.Unstructured, r.Manifests)
			return gctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("templating releases: %w", err)
	}
	return out, nil
}

// finishRelease does to a chart's objects what helm-controller does after templating: it runs the release's
// post-renderers and sets the common metadata.
func finishRelease(release *unstructured.Unstructured, objects []*unstructured.Unstructured) ([]*unstructured.Unstructured, error) {
	renderers, _, _ := unstructured.NestedSlice(release.Object, "spec", "postRenderers")
	for i, r := range renderers {
		m, _ := r.(map[string]any)
		settings, ok := m["kustomize"].(map[string]any)
		if !ok {
			continue
		}
		var err error
		if objects, err = postRender(settings, objects); err != nil {
			// What kustomize quotes in backquotes is the patch, which may be that of a Secret.
			text, _, _ := strings.Cut(build.Redact(err.Error()), "`")
			return nil, fmt.Errorf("post-renderer %d fails: %s", i, strings.TrimRight(text, ": "))
		}
	}
	metadata, _, _ := unstructured.NestedMap(release.Object, "spec", "commonMetadata")
	if len(metadata) == 0 {
		return objects, nil
	}
	labels, _, _ := unstructured.NestedStringMap(metadata, "labels")
	annotations, _, _ := unstructured.NestedStringMap(metadata, "annotations")
	for i, o := range objects {
		objects[i] = o.DeepCopy()
	}
	fluxssa.SetCommonMetadata(objects, labels, annotations)
	return objects, nil
}

// postRender builds the objects of a release with the patches and images of a post-renderer. Hooks are left as they are.
func postRender(settings map[string]any, objects []*unstructured.Unstructured) (_ []*unstructured.Unstructured, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("kustomize fails: %v", r)
		}
	}()
	const dir, resources = "/release", "objects.yaml"
	fs := filesys.MakeFsInMemory()
	var text []byte
	var hooks []*unstructured.Unstructured
	for _, o := range objects {
		if o.GetAnnotations()[hookAnnotation] != "" {
			hooks = append(hooks, o)
			continue
		}
		document, err := yaml.Marshal(o.Object)
		if err != nil {
			return nil, err
		}
		text = append(append(text, "---\n"...), document...)
	}
	document, err := yaml.Marshal(map[string]any{
		"apiVersion": kustomize.KustomizationVersion, "kind": kustomize.KustomizationKind, "resources": []any{resources},
		"patches": inlinePatches(settings["patches"]), "images": settings["images"],
	})
	if err != nil {
		return nil, err
	}
	for name, data := range map[string][]byte{resources: text, "kustomization.yaml": document} {
		if err := fs.WriteFile(dir+"/"+name, data); err != nil {
			return nil, err
		}
	}
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(fs, dir)
	if err != nil {
		return nil, err
	}
	out := make([]*unstructured.Unstructured, 0, len(objects))
	for _, r := range built.Resources() {
		// Kustomize has integers of a type that objects cannot be copied with.
		document, err := r.MarshalJSON()
		if err != nil {
			return nil, err
		}
		o := &unstructured.Unstructured{}
		if err := o.UnmarshalJSON(document); err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return append(out, hooks...), nil
}

// inlinePatches returns the patches with the fields that Flux has: kustomize reads others, such as a path, from files and
// the network.
func inlinePatches(list any) []any {
	items, _ := list.([]any)
	out := make([]any, 0, len(items))
	for _, item := range items {
		m, _ := item.(map[string]any)
		patch := map[string]any{"patch": m["patch"]}
		if m["target"] != nil {
			patch["target"] = m["target"]
		}
		out = append(out, patch)
	}
	return out
}
