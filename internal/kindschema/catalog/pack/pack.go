// Package pack generates the built-in CRD catalog from the Go modules of the projects.
package pack

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/kindschema/catalog"
	"github.com/flux-admission/flux-admission/test/controlplane/assets"
)

// project is a source of definitions and its name for a person.
type project struct {
	set  assets.CRDSet
	name string
}

func projects() []project {
	return []project{
		{assets.FluxKustomize, "Flux's kustomize-controller"},
		{assets.FluxHelm, "Flux's helm-controller"},
		{assets.FluxSource, "Flux's source-controller"},
		{assets.CloudNativePG, "CloudNativePG"},
		{assets.ExternalSecrets, "External Secrets"},
		{assets.VolumeSnapshots, "the external-snapshotter"},
	}
}

// Definitions returns the index of the catalog, and the definitions by file name as JSON without descriptions. The versions are those of the
// test control plane. Modules that are not in the module cache are downloaded.
func Definitions(ctx context.Context) ([]catalog.Entry, map[string][]byte, error) {
	var index []catalog.Entry
	defs := map[string][]byte{}
	for _, p := range projects() {
		dirs, err := assets.CRDs(ctx, p.set)
		if err != nil {
			return nil, nil, err
		}
		for _, dir := range dirs {
			version, err := versionOf(dir)
			if err != nil {
				return nil, nil, err
			}
			paths, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
			if err != nil {
				return nil, nil, err
			}
			for _, path := range paths {
				e, data, err := definition(path)
				if err != nil {
					return nil, nil, fmt.Errorf("%s: %w", path, err)
				}
				if data == nil {
					continue
				}
				e.Origin = p.name + " " + version
				index = append(index, e)
				defs[e.File] = data
			}
		}
	}
	slices.SortFunc(index, func(a, b catalog.Entry) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Kind, b.Kind))
	})
	return index, defs, nil
}

// versionOf parses the version of a directory in the module cache: .../module@v1.2.3/config/crd.
func versionOf(dir string) (string, error) {
	_, after, ok := strings.Cut(filepath.ToSlash(dir), "@v")
	if !ok {
		return "", fmt.Errorf("directory %s is not in the module cache", dir)
	}
	version, _, _ := strings.Cut(after, "/")
	return version, nil
}

// definition reads one file. It returns no data if the file does not contain a CustomResourceDefinition.
func definition(path string) (catalog.Entry, []byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return catalog.Entry{}, nil, err
	}
	var o map[string]any
	if err := yaml.Unmarshal(text, &o); err != nil {
		return catalog.Entry{}, nil, err
	}
	if o["kind"] != "CustomResourceDefinition" {
		return catalog.Entry{}, nil, nil
	}
	spec, _ := o["spec"].(map[string]any)
	names, _ := spec["names"].(map[string]any)
	group, _ := spec["group"].(string)
	kind, _ := names["kind"].(string)
	delete(o, "status")
	versions, _ := spec["versions"].([]any)
	for _, v := range versions {
		version, _ := v.(map[string]any)
		// Only kubectl uses the printer columns.
		delete(version, "additionalPrinterColumns")
		if s, ok := version["schema"].(map[string]any); ok {
			dropDescriptions(s["openAPIV3Schema"])
		}
	}
	data, err := json.Marshal(o)
	return catalog.Entry{Group: group, Kind: kind, File: group + "_" + strings.ToLower(kind) + ".json.gz"}, data, err
}

// dropDescriptions removes the descriptions from a schema, which are most of its size. The keys below "properties" are field names.
func dropDescriptions(schema any) {
	switch s := schema.(type) {
	case map[string]any:
		if _, isText := s["description"].(string); isText {
			delete(s, "description")
		}
		for k, v := range s {
			switch k {
			case "properties":
				fields, _ := v.(map[string]any)
				for _, f := range fields {
					dropDescriptions(f)
				}
			case "default", "enum", "example":
				// These contain values rather than schemas.
			default:
				dropDescriptions(v)
			}
		}
	case []any:
		for _, v := range s {
			dropDescriptions(v)
		}
	}
}

// Write replaces the catalog in a directory.
func Write(ctx context.Context, dir string) error {
	index, defs, err := Definitions(ctx)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	list, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), append(list, '\n'), 0o644); err != nil {
		return err
	}
	for name, data := range defs {
		packed, err := compress(data)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), packed, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func compress(data []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
