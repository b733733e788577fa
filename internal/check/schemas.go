package check

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/kindschema/location"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/validators"
)

// schemas are the locations of schemas that the user named, and what was read from them. It is not safe for concurrent
// use.
type schemas struct {
	locations []*location.Location
	// found are the definitions, by kind and versions; nil where no location has one.
	found map[string]*kindschema.Definition
}

func openSchemas(texts []string) (*schemas, error) {
	s := &schemas{found: map[string]*kindschema.Definition{}}
	for _, text := range texts {
		l, err := location.Parse(text)
		if err != nil {
			s.close()
			return nil, fmt.Errorf("--schema-location: %w", err)
		}
		if l != nil {
			s.locations = append(s.locations, l)
		}
	}
	return s, nil
}

func (s *schemas) close() {
	if s == nil {
		return
	}
	for _, l := range s.locations {
		l.Close()
	}
}

// addTo adds the kinds of objects of which the set has no definition but that of the built-in catalog. Flux's own kinds
// stay those of the catalog, which follow the release that the tree shows.
func (s *schemas) addTo(ctx context.Context, set *kindschema.Set, objects []*kustomization.Object) error {
	if len(s.locations) == 0 {
		return nil
	}
	versions := map[schema.GroupKind][]string{}
	var order []schema.GroupKind
	for _, o := range objects {
		gvk := o.GroupVersionKind()
		gk := gvk.GroupKind()
		if versions[gk] == nil {
			order = append(order, gk)
		}
		if !slices.Contains(versions[gk], gvk.Version) {
			versions[gk] = append(versions[gk], gvk.Version)
		}
	}
	for _, gk := range order {
		scope := validators.KindScope("")
		kind, presence, _ := set.Kind(ctx, gk)
		if kind != nil {
			if kind.BuiltIn || presence == validators.Present && kind.AsOf == "" {
				continue
			}
			scope = kind.Scope
		}
		if !strings.Contains(gk.Group, ".") || slices.Contains(fluxGroups(), gk.Group) {
			continue
		}
		slices.Sort(versions[gk])
		id := gk.String() + " " + strings.Join(versions[gk], " ")
		found, known := s.found[id]
		if !known {
			var err error
			if found, err = location.Definition(ctx, s.locations, gk, versions[gk], scope); err != nil {
				return fmt.Errorf("--schema-location: %s: %w", gk, err)
			}
			s.found[id] = found
		}
		if found != nil {
			set.AddSchemas(gk, found)
		}
	}
	return nil
}
