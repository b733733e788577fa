// Package pack makes the built-in stock of CustomResourceDefinitions from the modules that ship them.
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

	"github.com/flux-admission/flux-admission/internal/kindschema/builtin"
	"github.com/flux-admission/flux-admission/test/controlplane/assets"
)

// project is where definitions come from, and how a person calls it.
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

// Definitions returns the stock's index and its definitions by file name, as JSON without descriptions. The modules are those that the
// test control plane pins; those that are not in the module cache are downloaded.
func Definitions(ctx context.Context) ([]builtin.Entry, map[string][]byte, error) {
	var index []builtin.Entry
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
	slices.SortFunc(index, func(a, b builtin.Entry) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Kind, b.Kind))
	})
	return index, defs, nil
}

// versionOf reads the version from a directory of the module cache: .../module@v1.2.3/config/crd.
func versionOf(dir string) (string, error) {
	_, after, ok := strings.Cut(filepath.ToSlash(dir), "@v")
	if !ok {
		return "", fmt.Errorf("%s is not in the module cache", dir)
	}
	version, _, _ := strings.Cut(after, "/")
	return version, nil
}

// definition reads one file; it returns no data for one that is no CustomResourceDefinition.
func definition(path string) (builtin.Entry, []byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return builtin.Entry{}, nil, err
	}
	var o map[string]any
	if err := yaml.Unmarshal(text, &o); err != nil {
		return builtin.Entry{}, nil, err
	}
	if o["kind"] != "CustomResourceDefinition" {
		return builtin.Entry{}, nil, nil
	}
	spec, _ := o["spec"].(map[string]any)
	names, _ := spec["names"].(map[string]any)
	group, _ := spec["group"].(string)
	kind, _ := names["kind"].(string)
	delete(o, "status")
	versions, _ := spec["versions"].([]any)
	for _, v := range versions {
		version, _ := v.(map[string]any)
		// What kubectl prints of an object is of no use here.
		delete(version, "additionalPrinterColumns")
		if s, ok := version["schema"].(map[string]any); ok {
			dropDescriptions(s["openAPIV3Schema"])
		}
	}
	data, err := json.Marshal(o)
	return builtin.Entry{Group: group, Kind: kind, File: group + "_" + strings.ToLower(kind) + ".json.gz"}, data, err
}

// dropDescriptions removes the texts from a schema; they are most of its size. Below properties the keys are names of fields.
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
				// Values, not schemas.
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

// Write replaces the stock in a directory.
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
