// Package catalog is the built-in CRD catalog: the CustomResourceDefinitions of Flux, release by release, and of the newest releases of
// projects that Flux users run, for objects of these kinds whose definition is not part of the tree.
package catalog

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/kindschema"
)

//go:generate go run ./generate crds

// files contains index.json and the compressed definitions that it names. It is generated.
//
//go:embed crds
var files embed.FS

// maxBytes limits the size of an unpacked definition.
const maxBytes = 8 << 20

// flux is the project whose releases are all packed, rather than the newest only.
const flux = "Flux"

// Index lists the definitions.
type Index struct {
	// Entries are sorted by group and kind; those of one kind by release, oldest first.
	Entries []Entry `json:"entries"`
}

// Entry is the index entry of a definition.
type Entry struct {
	Group string `json:"group"`
	Kind  string `json:"kind"`
	// Project names the project for a person, Version its release: "Flux", "2.9.5".
	Project string `json:"project"`
	Version string `json:"version"`
	// Module is the Go module that ships the definition, or its Go types, ModuleVersion the version and Date the day of its release.
	Module        string `json:"module"`
	ModuleVersion string `json:"moduleVersion"`
	Date          string `json:"date"`
	// ThirdParty means that clusters run any release of the project: what the definition states of a value is not certain either.
	ThirdParty bool `json:"thirdParty,omitempty"`
	// File is the compressed definition. Releases with the same definition share it. SHA256 is of its content.
	File   string `json:"file"`
	SHA256 string `json:"sha256"`
}

// Catalog is the built-in CRD catalog. It is safe for concurrent use.
type Catalog struct {
	index  Index
	byKind map[schema.GroupKind][]Entry
	// release is the release of Flux that the cluster runs; nil if it is unknown.
	release *Release
}

// New returns the catalog. It reads the index only; CRD unpacks a definition.
func New() (*Catalog, error) {
	data, err := files.ReadFile("crds/index.json")
	if err != nil {
		return nil, fmt.Errorf("reading the CRD catalog: %w", err)
	}
	c := &Catalog{byKind: map[schema.GroupKind][]Entry{}}
	if err := json.Unmarshal(data, &c.index); err != nil {
		return nil, fmt.Errorf("reading the index of the CRD catalog: %w", err)
	}
	for _, e := range c.index.Entries {
		gk := schema.GroupKind{Group: e.Group, Kind: e.Kind}
		c.byKind[gk] = append(c.byKind[gk], e)
	}
	return c, nil
}

// Entries returns the index.
func (c *Catalog) Entries() []Entry { return c.index.Entries }

// ForFlux returns the catalog for a cluster with a release of Flux, such as "2.8", "v2.8.3" or "2.8.x". A text that names no release, such
// as "2.x", leaves the release unknown.
func (c *Catalog) ForFlux(text string) *Catalog {
	r, ok := ParseRelease(text)
	if !ok {
		return c
	}
	out := *c
	out.release = &r
	return &out
}

// Kinds returns the kinds that the catalog contains, in the order of its index.
func (c *Catalog) Kinds() []schema.GroupKind {
	var out []schema.GroupKind
	for _, e := range c.index.Entries {
		gk := schema.GroupKind{Group: e.Group, Kind: e.Kind}
		if len(out) == 0 || out[len(out)-1] != gk {
			out = append(out, gk)
		}
	}
	return out
}

// CRD implements kindschema.Catalog. Of Flux it returns the definition of the cluster's release, or of the newest one that is older; the
// definition is only as good as the release that it is of, unless the catalog has the cluster's.
func (c *Catalog) CRD(gk schema.GroupKind) (*kindschema.Definition, error) {
	e, exact := c.choose(c.byKind[gk])
	if e == nil {
		return nil, nil
	}
	crd, err := read(e.File)
	if err != nil {
		return nil, fmt.Errorf("reading the definition of %s in the CRD catalog: %w", gk, err)
	}
	addOperatorKinds(crd)
	out := &kindschema.Definition{CRD: crd, Origin: e.Project + " " + e.Version, Installed: exact, Uncertain: e.ThirdParty}
	if e.Project == flux {
		r, _ := ParseRelease(e.Version)
		out.Origin = flux + " " + r.String()
	}
	if !exact {
		out.AsOf = out.Origin
	}
	return out, nil
}

// operatorKinds are the kinds that Flux Operator adds to those that Alerts and Receivers may name, when it installs Flux
// (internal/builder/templates.go of the Flux Operator). A cluster without it has no objects of these kinds either.
var operatorKinds = []string{"FluxInstance", "ResourceSet", "ResourceSetInputProvider"}

// addOperatorKinds changes a definition as Flux Operator does.
func addOperatorKinds(crd *apiextensionsv1.CustomResourceDefinition) {
	list := map[string]string{"alerts": "eventSources", "receivers": "resources"}[crd.Spec.Names.Plural]
	if crd.Spec.Group != "notification.toolkit.fluxcd.io" || list == "" {
		return
	}
	for i := range crd.Spec.Versions {
		schema := crd.Spec.Versions[i].Schema
		if schema == nil || schema.OpenAPIV3Schema == nil {
			continue
		}
		items := schema.OpenAPIV3Schema.Properties["spec"].Properties[list].Items
		if items == nil || items.Schema == nil {
			continue
		}
		kind := items.Schema.Properties["kind"]
		for _, name := range operatorKinds {
			kind.Enum = append(kind.Enum, apiextensionsv1.JSON{Raw: []byte(strconv.Quote(name))})
		}
		items.Schema.Properties["kind"] = kind
	}
}

// choose returns the entry of a kind for the cluster, and reports whether it is of the release that the cluster has.
func (c *Catalog) choose(entries []Entry) (*Entry, bool) {
	if len(entries) == 0 {
		return nil, false
	}
	newest := &entries[len(entries)-1]
	if newest.Project != flux || c.release == nil {
		return newest, false
	}
	for i := len(entries) - 1; i >= 0; i-- {
		r, _ := ParseRelease(entries[i].Version)
		switch {
		case r == *c.release:
			return &entries[i], true
		case r.Before(*c.release):
			// A kind that a later release of the catalog no longer has, or a release that the catalog does not have.
			return &entries[i], false
		}
	}
	return &entries[0], false
}

// Release is a minor release of Flux.
type Release struct{ major, minor int }

// ParseRelease returns the release of a text such as "2.8", "v2.8.3" or "2.8.x", and whether it names one.
func ParseRelease(text string) (Release, bool) {
	parts := strings.SplitN(strings.TrimPrefix(strings.TrimSpace(text), "v"), ".", 3)
	if len(parts) < 2 {
		return Release{}, false
	}
	major, err := strconv.Atoi(parts[0])
	if err != nil {
		return Release{}, false
	}
	minor, err := strconv.Atoi(parts[1])
	return Release{major, minor}, err == nil
}

// Before reports whether a release is older than another one.
func (r Release) Before(o Release) bool {
	return r.major < o.major || r.major == o.major && r.minor < o.minor
}

// String returns the release as Flux writes it.
func (r Release) String() string { return fmt.Sprintf("%d.%d", r.major, r.minor) }

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
