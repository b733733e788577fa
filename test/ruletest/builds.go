package ruletest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/validators"
)

// built implements lookup.Builds with the builds of a case.
type built map[types.NamespacedName]*validators.Build

// Build implements lookup.Builds.
func (b built) Build(_ context.Context, key types.NamespacedName) (*validators.Build, validators.Presence, error) {
	if build, ok := b[key]; ok {
		return build, validators.Present, nil
	}
	return nil, validators.Absent, nil
}

// Owners implements lookup.Builds.
func (b built) Owners(
	_ context.Context,
	gk schema.GroupKind,
	key types.NamespacedName,
) ([]types.NamespacedName, validators.Presence, error) {
	var out []types.NamespacedName
	for k, build := range b {
		if slices.Contains(
			build.Applies,
			validators.ObjectRef{Group: gk.Group, Kind: gk.Kind, Namespace: key.Namespace, Name: key.Name},
		) {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b types.NamespacedName) int { return strings.Compare(a.String(), b.String()) })
	return out, validators.Present, nil
}

func key(text string) types.NamespacedName {
	namespace, name, ok := strings.Cut(text, "/")
	if !ok {
		return types.NamespacedName{Name: text}
	}
	return types.NamespacedName{Namespace: namespace, Name: name}
}

// problem is a validators.Problem as a case writes it.
type problem struct {
	validators.Problem
	Path string `json:"path"`
}

func (p problem) problem() validators.Problem {
	out := p.Problem
	for step := range strings.SplitSeq(p.Path, ".") {
		if step != "" {
			out.Path = out.Path.Child(step)
		}
	}
	return out
}

// file reads file.yaml.
func file(data []byte) (*validators.File, error) {
	var from struct {
		Name     string    `json:"name"`
		Problems []problem `json:"problems"`
	}
	if err := sigsyaml.UnmarshalStrict(data, &from); err != nil {
		return nil, err
	}
	out := &validators.File{Name: from.Name}
	for _, p := range from.Problems {
		out.Problems = append(out.Problems, p.problem())
	}
	return out, nil
}

func builds(data []byte) (map[types.NamespacedName]*validators.Build, error) {
	var list []struct {
		Kustomization string    `json:"kustomization"`
		Applies       []string  `json:"applies"`
		Dependents    []string  `json:"dependents"`
		Complete      bool      `json:"complete"`
		Problems      []problem `json:"problems"`
		// Bootstrap are the names of charts that the tree installs before Flux applies anything.
		Bootstrap []string `json:"bootstrap"`
	}
	if err := sigsyaml.UnmarshalStrict(data, &list); err != nil {
		return nil, err
	}
	out := map[types.NamespacedName]*validators.Build{}
	for _, item := range list {
		b := &validators.Build{
			Complete:   item.Complete,
			Dependents: map[types.NamespacedName]bool{key(item.Kustomization): true},
		}
		if item.Bootstrap != nil {
			b.Bootstrap = &validators.Bootstrap{Charts: map[string]bool{}}
		}
		for _, name := range item.Bootstrap {
			b.Bootstrap.Charts[name] = true
		}
		for _, text := range item.Dependents {
			b.Dependents[key(text)] = true
		}
		for _, text := range item.Applies {
			kind, name, ok := strings.Cut(text, " ")
			if !ok {
				return nil, fmt.Errorf("applies: %q: want \"Kind.group namespace/name\"", text)
			}
			gk, k := schema.ParseGroupKind(kind), key(name)
			b.Applies = append(
				b.Applies,
				validators.ObjectRef{Group: gk.Group, Kind: gk.Kind, Namespace: k.Namespace, Name: k.Name},
			)
		}
		for _, p := range item.Problems {
			b.Problems = append(b.Problems, p.problem())
		}
		out[key(item.Kustomization)] = b
	}
	return out, nil
}

func provenance(data []byte) (*validators.Provenance, error) {
	var from struct {
		DeclaredNamespace string `json:"declaredNamespace"`
		DeclaredName      string `json:"declaredName"`
		Kustomization     string `json:"kustomization"`
		Unapplied         bool   `json:"unapplied"`
		ReferencedBy      string `json:"referencedBy"`
		Entry             string `json:"entry"`
		// Written are the texts of scalars, by path.
		Written map[string]string `json:"written"`
	}
	if err := sigsyaml.UnmarshalStrict(data, &from); err != nil {
		return nil, err
	}
	out := &validators.Provenance{
		DeclaredNamespace: from.DeclaredNamespace, DeclaredName: from.DeclaredName,
		Kustomization: key(from.Kustomization),
		Unapplied:     from.Unapplied,
		ReferencedBy:  from.ReferencedBy,
		Entry:         from.Entry,
	}
	if from.Written != nil {
		out.Written = func(p validators.Path) string { return from.Written[p.String()] }
	}
	return out, nil
}
