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
	// maxCycle is the length of the longest cycle that is detected.
	maxCycle = 100
	// maxFollowed limits the objects that are read for one evaluation: at admission each may be a request to the API
	// server.
	maxFollowed = 1000
)

// errTooMany is why some dependencies were not followed.
var errTooMany = errors.New("there are too many dependencies")

// CheckCycles reports the entries of spec.dependsOn that lead back to the object itself, over objects of its kind, each
// with the shortest cycle. It uses the object in review instead of the stored one, so that the write that closes a
// cycle is reported. Entries whose dependencies cannot be read are not reported.
func CheckCycles(ctx context.Context, p *validators.Pass, gk schema.GroupKind) {
	s := search{
		pass: p,
		kind: gk,
		self: types.NamespacedName{Namespace: p.Object.GetNamespace(), Name: p.Object.GetName()},
	}
	s.known = map[types.NamespacedName][]types.NamespacedName{}
	for _, d := range dependencies(p.Object) {
		cycle := s.cycleThrough(ctx, d.key)
		if cycle == nil {
			continue
		}
		names := make([]string, 0, len(cycle))
		for _, key := range s.fromFirst(cycle) {
			name := key.String()
			if !s.visible(key) {
				name = elsewhere
			}
			names = append(names, name)
		}
		f := p.Report(d.at, nil, "the %s depends on itself: %s", gk.Kind, strings.Join(names, " → "))
		f.Key = d.key.String()
	}
	if s.unknown != nil && !s.visible(s.unread) {
		p.Unknown("cannot determine whether the %s depends on itself: %s cannot be read", gk.Kind, elsewhere)
	} else if s.unknown != nil {
		p.Unknown("cannot determine whether the %s depends on itself: %v", gk.Kind, s.unknown)
	}
}

// search follows dependencies of one kind.
type search struct {
	pass *validators.Pass
	kind schema.GroupKind
	self types.NamespacedName
	// known are the dependencies of the objects that have been read.
	known map[types.NamespacedName][]types.NamespacedName
	// unknown is why the first unreadable object, unread, could not be read.
	unknown error
	unread  types.NamespacedName
}

// elsewhere is in place of the name of an object where findings are confined.
const elsewhere = "an object in another namespace"

// visible reports whether findings may name an object: it is in the namespace of the object in review, or that names it.
func (s *search) visible(key types.NamespacedName) bool {
	return !s.pass.Confined || key.Namespace == s.self.Namespace || key.Namespace == "" ||
		slices.ContainsFunc(dependencies(s.pass.Object), func(d dependency) bool { return d.key == key })
}

// fromFirst returns a cycle from its first member by name, so that the findings on all members have one message. Where findings are confined, it
// begins with the object in review.
func (s *search) fromFirst(cycle []types.NamespacedName) []types.NamespacedName {
	if s.pass.Confined {
		return cycle
	}
	members := cycle[:len(cycle)-1]
	first := 0
	for i, key := range members {
		if key.String() < members[first].String() {
			first = i
		}
	}
	return slices.Concat(members[first:], members[:first+1])
}

// cycleThrough returns the shortest cycle from the object in review over one of its dependencies, with the object at
// both ends; nil if there is none.
func (s *search) cycleThrough(ctx context.Context, first types.NamespacedName) []types.NamespacedName {
	if first == s.self {
		return []types.NamespacedName{s.self, s.self}
	}
	before := map[types.NamespacedName]types.NamespacedName{first: s.self}
	for level, depth := []types.NamespacedName{first}, 1; len(level) > 0 && depth < maxCycle; depth++ {
		var next []types.NamespacedName
		for _, at := range level {
			for _, to := range s.dependenciesOf(ctx, at) {
				if to == s.self {
					cycle := []types.NamespacedName{s.self}
					for ; at != s.self; at = before[at] {
						cycle = append(cycle, at)
					}
					cycle = append(cycle, s.self)
					slices.Reverse(cycle)
					return cycle
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

func (s *search) dependenciesOf(ctx context.Context, key types.NamespacedName) []types.NamespacedName {
	if out, ok := s.known[key]; ok {
		return out
	}
	if len(s.known) >= maxFollowed {
		s.unknown = errTooMany
		return nil
	}
	o, presence, err := s.pass.Lookup.Get(ctx, s.kind, key)
	if presence == validators.Unknown && s.unknown == nil {
		s.unknown, s.unread = err, key
	}
	s.known[key] = nil
	if presence == validators.Present {
		for _, d := range dependencies(o) {
			s.known[key] = append(s.known[key], d.key)
		}
	}
	return s.known[key]
}
