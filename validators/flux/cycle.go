package flux

import (
	"context"
	"errors"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/validators"
)

const (
	// maxCycle is how many dependencies a chain may have that is followed.
	maxCycle = 100
	// maxFollowed is how many objects are read for one that is reviewed: at admission each is a question to the API server.
	maxFollowed = 1000
)

// errTooMany explains why a chain of dependencies was not followed to its end.
var errTooMany = errors.New("it has too many dependencies")

// CheckCycles reports the entries of spec.dependsOn that lead back to the object itself, over objects of its kind, with the shortest way there. The object
// counts as it is in review, not as it is stored, so that the write that closes a cycle is the one that is reported. An entry of which too little can be
// seen is not reported.
func CheckCycles(ctx context.Context, p *validators.Pass, gk schema.GroupKind) {
	w := walk{pass: p, kind: gk, self: types.NamespacedName{Namespace: p.Object.GetNamespace(), Name: p.Object.GetName()}}
	w.known = map[types.NamespacedName][]types.NamespacedName{}
	for _, d := range dependencies(p.Object) {
		way := w.back(ctx, d.key)
		if way == nil {
			continue
		}
		names := make([]string, 0, len(way))
		for _, key := range way {
			names = append(names, key.String())
		}
		f := p.Report(d.at, nil, "the %s depends on itself: %s", gk.Kind, strings.Join(names, " → "))
		f.Key = d.key.String()
	}
	if w.unknown != nil {
		p.Unknown("whether its dependencies lead back to the %s is not known: %v", gk.Kind, w.unknown)
	}
}

// walk follows dependencies of one kind.
type walk struct {
	pass *validators.Pass
	kind schema.GroupKind
	self types.NamespacedName
	// known are the dependencies of the objects that were read.
	known map[types.NamespacedName][]types.NamespacedName
	// unknown is why the first of the objects that could not be read was not.
	unknown error
}

// back returns the shortest way from the object in review over one of its dependencies back to it, both ends included; nil when there is none.
func (w *walk) back(ctx context.Context, first types.NamespacedName) []types.NamespacedName {
	if first == w.self {
		return []types.NamespacedName{w.self, w.self}
	}
	before := map[types.NamespacedName]types.NamespacedName{first: w.self}
	for level, depth := []types.NamespacedName{first}, 1; len(level) > 0 && depth < maxCycle; depth++ {
		var next []types.NamespacedName
		for _, at := range level {
			for _, to := range w.dependenciesOf(ctx, at) {
				if to == w.self {
					way := []types.NamespacedName{w.self}
					for ; at != w.self; at = before[at] {
						way = append(way, at)
					}
					way = append(way, w.self)
					slices.Reverse(way)
					return way
				}
				if _, seen := before[to]; !seen {
					before[to] = at
					next = append(next, to)
				}
			}
		}
		level = next
	}
	return nil
}

func (w *walk) dependenciesOf(ctx context.Context, key types.NamespacedName) []types.NamespacedName {
	if out, ok := w.known[key]; ok {
		return out
	}
	if len(w.known) >= maxFollowed {
		w.unknown = errTooMany
		return nil
	}
	o, presence, err := w.pass.Lookup.Get(ctx, w.kind, key)
	if presence == validators.Unknown && w.unknown == nil {
		w.unknown = err
	}
	w.known[key] = nil
	if presence == validators.Present {
		for _, d := range dependencies(o) {
			w.known[key] = append(w.known[key], d.key)
		}
	}
	return w.known[key]
}
