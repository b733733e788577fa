package kustomization

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/validators"
)

// builds answers what Kustomizations of a cluster build, with the contract of validators.Lookup.
type builds struct {
	cluster  *Cluster
	byKey    map[types.NamespacedName]*Kustomization
	appliers map[validators.ObjectRef][]types.NamespacedName

	mu    sync.Mutex
	built map[types.NamespacedName]*validators.Build
}

func newBuilds(c *Cluster) *builds {
	b := &builds{
		cluster: c, byKey: map[types.NamespacedName]*Kustomization{}, appliers: map[validators.ObjectRef][]types.NamespacedName{},
		built: map[types.NamespacedName]*validators.Build{},
	}
	for _, k := range c.Kustomizations {
		b.byKey[k.Key] = k
		if k.RemoteCluster() {
			continue
		}
		for _, o := range k.Objects {
			if ref := refOf(o); !slices.Contains(b.appliers[ref], k.Key) {
				b.appliers[ref] = append(b.appliers[ref], k.Key)
			}
		}
	}
	for _, keys := range b.appliers {
		slices.SortFunc(keys, func(a, b types.NamespacedName) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
		})
	}
	return b
}

// Build implements lookup.Builds.
func (b *builds) Build(_ context.Context, key types.NamespacedName) (*validators.Build, validators.Presence, error) {
	k := b.byKey[key]
	switch {
	case k == nil && !b.cluster.Complete:
		return nil, validators.Unknown, errNotBuilt
	case k == nil:
		return nil, validators.Absent, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.built[key] == nil {
		b.built[key] = b.describe(k)
	}
	return b.built[key], validators.Present, nil
}

func (b *builds) describe(k *Kustomization) *validators.Build {
	out := &validators.Build{Complete: k.State == Built, Dependents: b.precedes(k)}
	for _, o := range k.Objects {
		out.Applies = append(out.Applies, refOf(o))
	}
	for _, p := range k.Problems {
		if problem, ok := p.ForRules(); ok {
			out.Problems = append(out.Problems, problem)
		}
	}
	return out
}

// precedes returns the Kustomizations that cannot be applied before k has been, k itself included: those that depend on one of them, and those that nothing
// else applies.
func (b *builds) precedes(k *Kustomization) map[types.NamespacedName]bool {
	after := map[types.NamespacedName]bool{k.Key: true}
	for grown := true; grown; {
		grown = false
		for _, other := range b.cluster.Kustomizations {
			if after[other.Key] {
				continue
			}
			waits := slices.ContainsFunc(other.DependsOn(), func(d types.NamespacedName) bool { return after[d] })
			parents := 0
			for _, p := range other.Parents {
				if p == other {
					continue
				}
				parents++
				if !after[p.Key] {
					parents = -len(other.Parents)
				}
			}
			if waits || parents > 0 {
				after[other.Key], grown = true, true
			}
		}
	}
	return after
}

// Owners implements lookup.Builds. An object that only a build that failed would apply is not seen.
func (b *builds) Owners(_ context.Context, gk schema.GroupKind, key types.NamespacedName) ([]types.NamespacedName, validators.Presence, error) {
	found := b.appliers[validators.ObjectRef{Group: gk.Group, Kind: gk.Kind, Namespace: key.Namespace, Name: key.Name}]
	if len(found) == 0 && !b.cluster.Complete {
		return nil, validators.Unknown, errNotBuilt
	}
	return found, validators.Present, nil
}

// ForRules returns the problem in the words of the rules, and whether there is a rule for its kind. The others are what cannot be seen, or keep a tree from
// being read.
func (p *Problem) ForRules() (validators.BuildProblem, bool) {
	out := validators.BuildProblem{Position: validators.Position(p.Position), Message: p.Message, Detail: p.Detail, Name: p.Name, Near: p.Near}
	if p.Object == nil {
		out.Path = p.Path
	}
	for _, o := range p.Other {
		out.Other = append(out.Other, validators.Position(o))
	}
	switch p.Kind {
	case PathMissing:
		out.Kind = validators.ProblemPath
	case BuildFailed, SpecInvalid:
		out.Kind = validators.ProblemBuild
	case VariableUnset:
		out.Kind = validators.ProblemVariable
	case DecryptionMissing:
		out.Kind = validators.ProblemDecryption
	case DuplicateKey:
		out.Kind = validators.ProblemDuplicateKey
	case NotYAML, FileRefused:
		out.Kind = validators.ProblemNotYAML
	case RemoteBase, SourceUnknown, EntryPointMissing:
		return out, false
	}
	return out, true
}
