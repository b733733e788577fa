package ruletest

import (
	"fmt"
	"os"
	"path"
	"path/filepath"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/validators"
)

// EntryPoint is the directory of the Flux entry point in the trees that WriteTree writes.
const EntryPoint = "entry"

// NotATree returns why the case cannot be written as a Git tree; empty when it can.
func (c *Case) NotATree() string {
	switch {
	case c.Request.Old != nil:
		return "a tree has no stored object"
	case c.Request.Stage == validators.StageAdmission:
		return "the object comes from the API server"
	case len(c.Hidden) > 0:
		return "every object of a tree can be read"
	case c.Builds != nil || c.Request.Provenance != nil:
		return "the case declares what the tree builds; see the trees of internal/check"
	case c.Request.File != nil:
		return "the case is about a file; see the trees of internal/check"
	}
	return ""
}

// WriteTree writes the case's object, and beside it the objects and CustomResourceDefinitions of its lookups, as a Git
// tree to dir, which must exist. It returns the names of the sources that its Kustomizations build from, all of which
// are this tree.
func (c *Case) WriteTree(dir string) (sources []string, err error) {
	seen := map[string]bool{}
	add := func(name string, o *unstructured.Unstructured, source []byte) error {
		if source == nil {
			if source, err = sigsyaml.Marshal(o.Object); err != nil {
				return fmt.Errorf("writing %s: %w", name, err)
			}
		}
		if err := WriteFile(dir, path.Join(EntryPoint, name), source); err != nil {
			return err
		}
		if o.GroupVersionKind().Group != "kustomize.toolkit.fluxcd.io" {
			return nil
		}
		if from, _, _ := unstructured.NestedString(o.Object, "spec", "sourceRef", "name"); from != "" && !seen[from] {
			seen[from] = true
			sources = append(sources, from)
		}
		// Without what a Kustomization builds, the rest of the tree is incomplete, and rules report nothing.
		at, _, _ := unstructured.NestedString(o.Object, "spec", "path")
		if at == "" {
			return nil
		}
		return WriteFile(dir, path.Join(path.Clean("/"+at), "placeholder.yaml"), fmt.Appendf(nil,
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: placeholder-%s, namespace: %s}\n", o.GetName(), o.GetNamespace()))
	}
	if err := add("object.yaml", c.Request.Object, c.Source); err != nil {
		return nil, err
	}
	for i, o := range c.Objects {
		if same := c.Request.Object; o.GroupVersionKind() == same.GroupVersionKind() && o.GetNamespace() == same.GetNamespace() &&
			o.GetName() == same.GetName() {
			continue // a lookup finds the object itself, as it does in a tree
		}
		if err := add(fmt.Sprintf("other-%d.yaml", i), o, nil); err != nil {
			return nil, err
		}
	}
	for _, o := range c.CRDs {
		if err := add(o.GetName()+".yaml", o, nil); err != nil {
			return nil, err
		}
	}
	return sources, nil
}

// WriteFile writes a file with the directories above it; name is relative to dir, with slashes.
func WriteFile(dir, name string, data []byte) error {
	file := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}
