package kustomization

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/validators"
)

// ReadManifests reads plain manifests, without Flux: the YAML files of a directory, with positions relative to it, or
// one file, with its name as given. The result has one cluster, without Kustomizations; it is not complete, since any
// other object may exist.
func ReadManifests(ctx context.Context, name string, limits sourcetree.Limits) (_ *Result, err error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("reading manifests: %w", err)
	}
	if !info.IsDir() {
		return readManifestFile(name, limits)
	}
	t, err := sourcetree.Open(ctx, name, "", limits)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	res := &Result{Clusters: []*Cluster{{}}}
	a := t.Artifact("")
	for _, p := range a.Manifests() {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("reading %s: %w", p, err)
		}
		res.addManifests(a, p)
	}
	res.addCommented(a, nil)
	return res, nil
}

func readManifestFile(name string, limits sourcetree.Limits) (_ *Result, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading manifests: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// One byte more than the limit, so that the file is refused when it exceeds it.
	data, err := io.ReadAll(io.LimitReader(f, limits.WithDefaults().FileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return ParseManifests(data, filepath.ToSlash(name), limits), nil
}

// ParseManifests parses plain manifests from a YAML stream, as ReadManifests does. Name is the name of the file in
// positions, such as "stdin".
func ParseManifests(data []byte, name string, limits sourcetree.Limits) *Result {
	res := &Result{Clusters: []*Cluster{{}}}
	a := sourcetree.NewArtifact(name, data, limits)
	res.addManifests(a, name)
	if sourcetree.HasDirective(data) {
		res.Commented = append(res.Commented, &Commented{File: a.File(name)})
	}
	return res
}

// addManifests adds the objects of a file as they are in the file; the items of a List one by one.
func (r *Result) addManifests(a *sourcetree.Artifact, p string) {
	r.Files++
	r.Problems = append(r.Problems, a.File(p).Parse().Problems...)
	r.addObjects(r.Clusters[0], a, p, false)
}

// addObjects adds the objects of a file to a cluster. mayBePatch: they may be patches.
func (r *Result) addObjects(c *Cluster, a *sourcetree.Artifact, p string, mayBePatch bool) {
	f := a.File(p)
	for i := range f.Parse().Documents {
		object := f.Object(i)
		if object == nil || foreign(object.GetAPIVersion(), object.GetKind()) {
			continue
		}
		o := &Object{Unstructured: object, Origin: Origin{File: f.Name(), Document: i}, artifact: a, mayBePatch: mayBePatch}
		o.findEncrypted()
		if !strings.HasSuffix(o.GetKind(), "List") || !o.IsList() {
			c.Objects = append(c.Objects, o)
			continue
		}
		items, _ := o.Object["items"].([]any)
		for n, item := range items {
			if m, ok := item.(map[string]any); ok {
				each := &Object{
					Unstructured: &unstructured.Unstructured{Object: m}, Origin: o.Origin, artifact: a, mayBePatch: mayBePatch, item: validators.NewPath("items").Index(n),
				}
				each.findEncrypted()
				c.Objects = append(c.Objects, each)
			}
		}
	}
}
