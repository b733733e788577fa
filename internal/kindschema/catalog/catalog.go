// Package catalog is the built-in CRD catalog: the CustomResourceDefinitions of Flux, CloudNativePG, External Secrets and the volume snapshots,
// for objects of these kinds whose definition is not part of the tree.
package catalog

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"path"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

//go:generate go run ./generate crds

// files contains index.json and a compressed definition for each of its entries. It is generated.
//
//go:embed crds
var files embed.FS

// maxBytes limits the size of an unpacked definition.
const maxBytes = 8 << 20

// Entry is the index entry of a definition.
type Entry struct {
	Group string `json:"group"`
	Kind  string `json:"kind"`
	// Origin names the project and its version.
	Origin string `json:"origin"`
	File   string `json:"file"`
}

// Catalog is the built-in CRD catalog. It is safe for concurrent use.
type Catalog struct {
	entries []Entry
	byKind  map[schema.GroupKind]Entry
}

// New returns the catalog. It reads the index only; CRD unpacks a definition.
func New() (*Catalog, error) {
	data, err := files.ReadFile("crds/index.json")
	if err != nil {
		return nil, fmt.Errorf("reading the CRD catalog: %w", err)
	}
	c := &Catalog{byKind: map[schema.GroupKind]Entry{}}
	if err := json.Unmarshal(data, &c.entries); err != nil {
		return nil, fmt.Errorf("reading the index of the CRD catalog: %w", err)
	}
	for _, e := range c.entries {
		c.byKind[schema.GroupKind{Group: e.Group, Kind: e.Kind}] = e
	}
	return c, nil
}

// Kinds returns the kinds that the catalog contains, in the order of its index.
func (c *Catalog) Kinds() []schema.GroupKind {
	out := make([]schema.GroupKind, 0, len(c.entries))
	for _, e := range c.entries {
		out = append(out, schema.GroupKind{Group: e.Group, Kind: e.Kind})
	}
	return out
}

// CRD returns the definition of a kind, without descriptions, and its project and version; nil if the catalog does not contain the kind.
func (c *Catalog) CRD(gk schema.GroupKind) (*apiextensionsv1.CustomResourceDefinition, string, error) {
	e, ok := c.byKind[gk]
	if !ok {
		return nil, "", nil
	}
	crd, err := read(e.File)
	if err != nil {
		return nil, "", fmt.Errorf("reading the definition of %s in the CRD catalog: %w", gk, err)
	}
	return crd, e.Origin, nil
}

func read(name string) (*apiextensionsv1.CustomResourceDefinition, error) {
	packed, err := files.ReadFile(path.Join("crds", name))
	if err != nil {
		return nil, err
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, maxBytes))
	if err != nil {
		return nil, err
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	return crd, json.Unmarshal(data, crd)
}
