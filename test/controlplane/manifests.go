package controlplane

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"
)

// InstallManifests builds the kustomization in dir and applies it with strict
// validation: CRDs first, waiting until they are established, then namespaces,
// then the rest in the order of the build. edit, which may be nil, may change
// each object before, for instance give a webhook a URL where the manifests
// name a Service; an object whose Object it sets to nil is left out.
func (cp *ControlPlane) InstallManifests(ctx context.Context, dir string, edit func(*unstructured.Unstructured)) error {
	built, _, err := cp.Kubectl(ctx, nil, "kustomize", dir)
	if err != nil {
		return err
	}
	objects, err := readObjects(built)
	if err != nil {
		return fmt.Errorf("reading the objects built from %s: %w", dir, err)
	}
	var stages [3][]byte // CRDs, namespaces, the rest
	var crds []string
	for _, object := range objects {
		if edit != nil {
			edit(object)
		}
		if object.Object == nil {
			continue
		}
		stage := 2
		switch object.GetKind() {
		case "CustomResourceDefinition":
			stage = 0
			crds = append(crds, object.GetName())
		case "Namespace":
			stage = 1
		}
		data, err := sigsyaml.Marshal(object.Object)
		if err != nil {
			return fmt.Errorf("writing %s %s: %w", object.GetKind(), object.GetName(), err)
		}
		stages[stage] = slices.Concat(stages[stage], []byte("---\n"), data)
	}
	for i, stage := range stages {
		if len(stage) == 0 {
			continue
		}
		if _, _, err := cp.Kubectl(ctx, bytes.NewReader(stage), "apply", "--validate=strict", "-f", "-"); err != nil {
			return fmt.Errorf("installing %s: %w", dir, err)
		}
		if i == 0 {
			if err := cp.WaitForCRDs(ctx, crds...); err != nil {
				return fmt.Errorf("installing %s: %w", dir, err)
			}
		}
	}
	return nil
}

// WaitForCRDs waits until the API server serves CustomResourceDefinitions, by their names.
func (cp *ControlPlane) WaitForCRDs(ctx context.Context, names ...string) error {
	args := append([]string{"wait", "crd", "--for=condition=Established", "--timeout=60s"}, names...)
	var failed error
	err := wait.PollUntilContextTimeout(ctx, pollEvery, crdTimeout, true, func(ctx context.Context) (bool, error) {
		_, stderr, err := cp.Kubectl(ctx, nil, args...)
		failed = err
		if strings.Contains(stderr, ".status.conditions accessor error") {
			return false, nil // kubectl fails for an object that has no condition yet
		}
		return err == nil, err
	})
	if err != nil {
		return fmt.Errorf("waiting for CustomResourceDefinitions: %w", cmp.Or(failed, err))
	}
	return nil
}

func readObjects(stream string) ([]*unstructured.Unstructured, error) {
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(stream), 4096)
	var objects []*unstructured.Unstructured
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", len(objects)+1, err)
		}
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}
