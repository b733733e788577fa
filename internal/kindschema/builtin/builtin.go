// Package builtin holds the CustomResourceDefinitions of Flux, CloudNativePG, External Secrets and the volume snapshots, so that objects of
// these kinds can be judged where nothing else brings their schemas.
package builtin

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

// files holds index.json and a compressed definition for each of its entries. It is generated.
//
//go:embed crds
var files embed.FS

// maxBytes bounds a definition once it is unpacked.
const maxBytes = 8 << 20

// Entry is one definition of the stock.
type Entry struct {
	Group string `json:"group"`
	Kind  string `json:"kind"`
	// Origin names the project and its version.
	Origin string `json:"origin"`
	File   string `json:"file"`
}

// Stock is the stock of definitions.
type Stock struct {
	entries []Entry
	byKind  map[schema.GroupKind]Entry
}

// New returns the stock. A definition is unpacked when it is asked for.
func New() (*Stock, error) {
	data, err := files.ReadFile("crds/index.json")
	if err != nil {
		return nil, fmt.Errorf("the built-in CustomResourceDefinitions: %w", err)
	}
	s := &Stock{byKind: map[schema.GroupKind]Entry{}}
	if err := json.Unmarshal(data, &s.entries); err != nil {
		return nil, fmt.Errorf("the built-in CustomResourceDefinitions: index.json: %w", err)
	}
	for _, e := range s.entries {
		s.byKind[schema.GroupKind{Group: e.Group, Kind: e.Kind}] = e
	}
	return s, nil
}

// Kinds returns the kinds that the stock has a definition of, in the order of its index.
func (s *Stock) Kinds() []schema.GroupKind {
	out := make([]schema.GroupKind, 0, len(s.entries))
	for _, e := range s.entries {
		out = append(out, schema.GroupKind{Group: e.Group, Kind: e.Kind})
	}
	return out
}

// CRD returns the definition of a kind, without its descriptions, and the project and version that it comes from; nil when the stock does
// not have it.
func (s *Stock) CRD(gk schema.GroupKind) (*apiextensionsv1.CustomResourceDefinition, string, error) {
	e, ok := s.byKind[gk]
	if !ok {
		return nil, "", nil
	}
	crd, err := read(e.File)
	if err != nil {
		return nil, "", fmt.Errorf("the built-in CustomResourceDefinition of %s: %w", gk, err)
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
