package check

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/kindschema"
)

// Definition is a CustomResourceDefinition.
type Definition struct {
	// Origin is where it comes from, for people.
	Origin string
	Object *unstructured.Unstructured
}

// readDefinitions reads the CustomResourceDefinitions of files, and of all YAML and JSON files below directories.
func readDefinitions(paths []string) ([]Definition, error) {
	var out []Definition
	for _, root := range paths {
		before := len(out)
		err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			ext := filepath.Ext(name)
			if !d.Type().IsRegular() || name != root && ext != ".yaml" && ext != ".yml" && ext != ".json" {
				return nil
			}
			list, err := definitionsIn(name)
			out = append(out, list...)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("--crds: %w", err)
		}
		if len(out) == before {
			return nil, fmt.Errorf("--crds: there is no CustomResourceDefinition in %s; name a directory of JSON schemas with --schema-location", root)
		}
	}
	return out, nil
}

func definitionsIn(name string) ([]Definition, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var out []Definition
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		doc, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		content := map[string]any{}
		if err := yaml.Unmarshal(doc, &content); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if isJSONSchema(content) {
			return nil, fmt.Errorf("%s is a JSON schema, not a CustomResourceDefinition: name its directory with --schema-location", name)
		}
		for _, o := range objectsOf(content) {
			if o.GroupVersionKind().GroupKind() == kindschema.CustomResourceDefinition {
				out = append(out, Definition{Origin: name, Object: o})
			}
		}
	}
}

// isJSONSchema reports whether a document is a JSON schema of a kind, as catalogs have them, which would be passed over.
func isJSONSchema(content map[string]any) bool {
	_, declared := content["$schema"].(string)
	_, properties := content["properties"].(map[string]any)
	return content["kind"] == nil && (declared || properties && content["type"] == "object")
}

// objectsOf returns the object of a document, or those of a list, such as kubectl get prints.
func objectsOf(content map[string]any) []*unstructured.Unstructured {
	items, isList := content["items"].([]any)
	if kind, _ := content["kind"].(string); !isList || !strings.HasSuffix(kind, "List") {
		return []*unstructured.Unstructured{{Object: content}}
	}
	var out []*unstructured.Unstructured
	for _, item := range items {
		if object, ok := item.(map[string]any); ok {
			out = append(out, &unstructured.Unstructured{Object: object})
		}
	}
	return out
}
